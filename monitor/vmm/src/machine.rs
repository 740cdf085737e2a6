//! The virtual machine: KVM's objects, and what eventfds connect to it.
//!
//! The interrupt controller is the kernel's, so its registers and the guest's timer cost no exit to
//! this process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE,
    kvm_enable_cap,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, SyncReg, VcpuFd, VmFd};
use rustix::io::Errno;
use thiserror::Error;

use super::balloon_interrupt::BalloonInterrupt;
use super::cpu;
use super::interrupts::InterruptRouter;
use super::memory::GuestMemory;
use super::memory_slots::MemorySlots;
use super::serial_ring::SerialRing;
use super::virtio::Wires;

/// Three pages in the device hole that Intel's virtualization needs.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// Why no guest can run.
#[derive(Debug, Error)]
pub enum KvmError {
    /// The device is missing.
    #[error(
        "there is no /dev/kvm: enable virtualization in the firmware, \
         or load kvm_intel, kvm_amd or (on a virtual host) kvm_pvm"
    )]
    Missing,
    /// The device exists, but may not be used.
    #[error("/dev/kvm may not be opened: run as root, or add this user to the group that owns it (often `kvm`)")]
    NotPermitted,
    /// Its version is unknown.
    #[error("/dev/kvm speaks version {0}, this monitor {KVM_API_VERSION}")]
    WrongVersion(i32),
    /// It lacks something that the monitor needs.
    #[error("this host's KVM can't {0}: use Linux 4.17 or later")]
    Lacks(&'static str),
    /// A call failed.
    #[error("KVM can't {what}: {cause}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// Checks whether guests can run on this host, as far as that is known before one is started.
///
/// # Errors
/// Returns a sentence that says what to do.
pub fn check_kvm() -> Result<(), KvmError> {
    open().map(drop)
}

/// A virtual machine with one vCPU.
#[derive(Debug)]
pub(super) struct Machine {
    vm: Arc<VmFd>,
    vcpu: VcpuFd,
    interrupts: Arc<InterruptRouter>,
}

impl Machine {
    /// Creates a machine with this memory. Returns its slots, too, through which the guest gets
    /// more than it starts with.
    ///
    /// Memory comes first. Once there is an interrupt controller, whose creation starts a grace
    /// period in the kernel, attaching memory takes 6 ms instead of 0.05.
    ///
    /// # Safety
    /// `memory` has to stay mapped as long as the machine's processor may run.
    pub(super) unsafe fn new(kvm: &Kvm, memory: &GuestMemory) -> Result<(Self, MemorySlots), KvmError> {
        let vm = Arc::new(kvm.create_vm().map_err(failed("create a virtual machine"))?);
        // Older kernels lack it; the guest's features name no counters in any case.
        let _ = vm.enable_cap(&capability(KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE));
        // SAFETY: the caller keeps the memory mapped.
        let slots = unsafe { MemorySlots::new(Arc::clone(&vm), memory)? };
        vm.set_tss_address(TSS_ADDRESS).map_err(failed("place the task state segment"))?;
        vm.create_irq_chip().map_err(failed("create the interrupt controller"))?;
        let mut vcpu = vm.create_vcpu(0).map_err(failed("create a processor"))?;
        // Paravirtual interfaces that the guest's features do not name are then closed, too.
        let _ = vcpu.enable_cap(&capability(KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1));
        vcpu.set_sync_valid_reg(SyncReg::Register);
        let interrupts = Arc::new(InterruptRouter::new(Arc::clone(&vm)));
        Ok((Self { vm, vcpu, interrupts }, slots))
    }

    /// Returns the rate of the guest's time stamp counter, where KVM reports it.
    pub(super) fn tsc_hz(&self) -> Option<u64> {
        self.vcpu.get_tsc_khz().ok().map(|khz| u64::from(khz) * 1000)
    }

    /// Returns a ring for the bytes from `port` that needs no exits, where KVM has one.
    pub(super) fn serial_ring(&self, port: u16) -> Option<SerialRing> {
        if !self.vm.check_extension(Cap::CoalescedPio) {
            return None;
        }
        // SAFETY: the vCPU's descriptor is open as long as `self`.
        let vcpu = unsafe { BorrowedFd::borrow_raw(self.vcpu.as_raw_fd()) };
        SerialRing::new(&self.vm, vcpu, port).ok()
    }

    /// Returns the guest's balloon interrupt.
    pub(super) fn balloon_interrupt(&self) -> BalloonInterrupt {
        BalloonInterrupt::new(Arc::clone(&self.vm))
    }

    /// Connects a device: its interrupt, and notifications to it where KVM can take them without an
    /// exit.
    pub(super) fn connect_device(&self, wires: &Wires<'_>) -> Result<(), KvmError> {
        // Where KVM can't take notifications, each is an exit, which the vCPU's thread handles.
        let notify = IoEventAddress::Mmio(wires.notify.0);
        match wires.kicks {
            // The written value does not matter, so KVM need not compare it.
            [kick] => drop(self.vm.register_ioevent(kick, &notify, NoDatamatch)),
            kicks => {
                for (queue, kick) in (0_u32..).zip(kicks) {
                    let _ = self.vm.register_ioevent(kick, &notify, queue);
                }
            }
        }
        self.interrupts.connect_device(wires.interrupt, wires.slot.vector)
    }

    /// Returns the machine's processor with these features, about to execute `entry`.
    pub(super) fn into_vcpu(self, features: &CpuId, entry: u64) -> Result<VcpuFd, KvmError> {
        cpu::set_up(&self.vcpu, features, entry).map_err(failed("set the processor's registers"))?;
        Ok(self.vcpu)
    }
}

/// Returns the request for a capability of KVM, with its first argument.
fn capability(number: u32, argument: u32) -> kvm_enable_cap {
    kvm_enable_cap { cap: number, args: [argument.into(), 0, 0, 0], ..kvm_enable_cap::default() }
}

/// Opens KVM, and checks that it has what a machine needs.
pub(super) fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| match Errno::from_raw_os_error(error.errno()) {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => KvmError::Missing,
        Errno::ACCESS | Errno::PERM => KvmError::NotPermitted,
        _ => failed("be opened")(error),
    })?;
    let version = kvm.get_api_version();
    if u32::try_from(version) != Ok(KVM_API_VERSION) {
        return Err(KvmError::WrongVersion(version));
    }
    if !kvm.check_extension(Cap::SyncRegs) {
        return Err(KvmError::Lacks("share registers"));
    }
    if !kvm.check_extension(Cap::Irqfd) {
        return Err(KvmError::Lacks("take interrupts from an eventfd"));
    }
    Ok(kvm)
}

/// What a failed call was for.
pub(super) fn failed(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Failed { what, cause: error.into() }
}
