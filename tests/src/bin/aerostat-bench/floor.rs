//! The lower bound of every start: a process that does only what no VMM can leave out.
//!
//! It is spawned like a VMM process, creates a virtual machine with an interrupt controller, a page
//! of memory and a vCPU, runs one guest instruction that exits to it, and prints the time. It loads
//! no image, builds no boot information and has no kernel to start, so a real start can approach it
//! but not reach it.

use std::env;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VmFd};

use aerostat_tests::monotonic_ns;

/// The address at which KVM may place a task state segment to emulate real mode on Intel
/// processors: below the firmware, where there is no memory.
const TSS_ADDRESS: usize = 0xfffb_d000;
/// `out 0x80, al`.
const EXIT_INSTRUCTION: [u8; 2] = [0xe6, 0x80];

/// A page of guest memory.
#[repr(align(4096))]
struct Page([u8; 4096]);

/// Returns the milliseconds from before the spawn to the first exit of an empty VMM.
pub(crate) fn spawn_to_first_exit_ms() -> Result<f64> {
    let program = env::current_exe()?;
    let start = monotonic_ns();
    let run =
        Command::new(program).arg("--empty-vmm").stderr(Stdio::inherit()).output().context("starting the empty VMM")?;
    ensure!(run.status.success(), "the empty VMM failed ({})", run.status);
    let exit: u64 = String::from_utf8_lossy(&run.stdout).trim().parse().context("the empty VMM names a time")?;
    Ok(Duration::from_nanos(exit - start).as_secs_f64() * 1e3)
}

/// Runs the empty VMM in this process.
pub(crate) fn be_an_empty_vmm() -> Result<()> {
    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    // Before the interrupt controller: a change of memory after it makes the kernel wait 5 ms for
    // all readers of the old state.
    add_memory(&vm)?;
    vm.set_tss_address(TSS_ADDRESS)?;
    vm.create_irq_chip()?;
    let mut vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    let mut system = vcpu.get_sregs()?;
    system.cs.base = 0;
    system.cs.selector = 0;
    vcpu.set_sregs(&system)?;
    let mut registers = vcpu.get_regs()?;
    registers.rip = 0;
    registers.rflags = 2;
    vcpu.set_regs(&registers)?;
    match vcpu.run()? {
        VcpuExit::IoOut(..) => println!("{}", monotonic_ns()),
        other => bail!("the first instruction ended in {other:?}"),
    }
    Ok(())
}

/// Adds a page of memory to the machine, which holds the instruction.
fn add_memory(vm: &VmFd) -> Result<()> {
    let mut page = Box::new(Page([0; 4096]));
    page.0[..EXIT_INSTRUCTION.len()].copy_from_slice(&EXIT_INSTRUCTION);
    let page: &'static mut Page = Box::leak(page);
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: size_of::<Page>() as u64,
        userspace_addr: page.0.as_mut_ptr() as u64,
    };
    // SAFETY: the page is leaked, so it outlives the machine, and nothing else uses it from here
    // on.
    unsafe { vm.set_user_memory_region(region) }.context("adding a page of memory to the machine")
}
