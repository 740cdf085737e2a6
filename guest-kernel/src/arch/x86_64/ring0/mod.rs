//! The ring-0 stub: everything that runs in ring 0, and the ring-3 side of its calls.
//!
//! Ring 0 is emulated instruction by instruction on a KVM without hardware virtualization, so the
//! ring-0 stub is as small as it can be: boot code that loads the tables and leaves for ring 3
//! (`boot.s`), and entries for calls, interrupts and fatal faults (`entries.s`). It has no loops,
//! allocates nothing, takes no locks. Each entry has an IST stack of its own. Exceptions of ring 3
//! don't come here: their gates lead straight to ring 3 (see [`crate::arch::x86_64::trap`]).
//!
//! A call is `int3` with its number in `EAX`: `int3` is the one software interrupt that every host
//! delivers.
#![allow(unsafe_code, reason = "descriptor tables and the calls into ring 0")]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::offset_of;

use aerostat_abi::units::to_usize;
use x86_64::VirtAddr;
use x86_64::structures::tss::TaskStateSegment;

use crate::arch::x86_64::boot::Origin;
use crate::arch::x86_64::cpu::{CPUS, CpuBlock};
use crate::arch::x86_64::interrupt::InterruptLine;
use crate::config::{FIRST_DEVICE_VECTOR, MAX_VIRTIO_DEVICES};
use crate::layout::{BOOT_CODE_END, LOCAL_APIC};

/// Ring-3 selectors. They are Linux's own on purpose: a KVM without hardware virtualization runs
/// ring 3 on the host's descriptors, and only with equal values is a ring-3 `iretq` native.
pub(crate) const USER_CODE: u16 = 0x33;
pub(crate) const USER_DATA: u16 = 0x2b;
const KERNEL_CODE: u16 = 0x08;

/// Control register 4 (Intel SDM vol. 3, 2.5): physical address extension, which paging in long
/// mode needs, and SSE. All else is off.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;

/// The vector of interrupts that vanish before they are delivered: the only one that is no upcall.
pub(crate) const SPURIOUS_VECTOR: u8 = 0xff;

/// Bytes of code between the ring-3 stubs of the vectors 0 to 31.
const EXCEPTION_STUB_BYTES: u64 = 32;
/// The first virtio device's line; those of the others follow.
const FIRST_DEVICE: InterruptLine = InterruptLine::device(0).expect("there may be a device");
/// Bytes of code between the entries of two devices.
const DEVICE_ENTRY_BYTES: u64 = 128;
const INT3_VECTOR: usize = 3;
/// NMI, double fault, machine check: no guest causes them, or they can't be repaired.
const FATAL_VECTORS: [usize; 3] = [2, 8, 18];

/// IST slots (1 to 7): each kind of entry has its own, as one may interrupt the other.
const CALL_IST: u8 = 1;
const EXCEPTION_IST: u8 = 2;
const INTERRUPT_IST: u8 = 3;
const FATAL_IST: u8 = 4;
const IST_STACK_BYTES: usize = 4096;

global_asm!(
    include_str!("boot.s"),
    gdt_tss = const 0x18,
    user_data = const USER_DATA,
    user_code = const USER_CODE,
    flags = const 0x0002,
    cr4 = const CR4,
    code_end = const BOOT_CODE_END,
    tss_limit = const size_of::<TaskState>() - 1,
    cpus = sym CPUS,
    tss = sym TSS,
    idt = sym IDT,
    origin_hermit = const Origin::Hermit as u32,
    origin_pvh = const Origin::Pvh as u32,
    kernel_main = sym kernel_main,
);
global_asm!(
    include_str!("entries.s"),
    mask = const offset_of!(CpuBlock, mask),
    pending = const offset_of!(CpuBlock, pending),
    upcall_rip = const offset_of!(CpuBlock, upcall_rip),
    user_data = const USER_DATA,
    end_of_interrupt = const LOCAL_APIC + 0xb0,
    timer = const InterruptLine::TIMER.pending_bit(),
    balloon = const InterruptLine::BALLOON.pending_bit(),
    first_device = const FIRST_DEVICE.pending_bit(),
    devices = const MAX_VIRTIO_DEVICES,
    device_entry_bytes = const DEVICE_ENTRY_BYTES,
    exit_port = const aerostat_abi::exit::EXIT_PORT,
    ring0_fault = const aerostat_abi::exit::GuestExit::Ring0Fault.encode(),
);

unsafe extern "C" {
    static boot_pml4: u8;
    static exception_stubs: u8;
    fn ring0_call();
    fn ring0_timer();
    fn ring0_balloon();
    fn ring0_devices();
    fn ring0_spurious();
    fn ring0_fatal();
    /// The start list: the one function above this layer that is called by name.
    fn kernel_main(information: u64, origin: Origin) -> !;
}

/// A page-aligned static that assembly and the CPU use besides this module.
#[repr(C, align(4096))]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: written once by `install_gates` and `install_stacks` on the boot CPU, before the CPU
// reads it, then only read.
unsafe impl<T> Sync for Shared<T> {}

/// The task state segment with its I/O permission bitmap (Intel SDM vol. 1, 19.5.2), all zero: ring
/// 3 may use every port. Raising IOPL would do the same on hardware, but an emulated `iretq` or
/// `popfq` doesn't change it.
#[repr(C, packed)]
struct TaskState {
    segment: TaskStateSegment,
    port_permissions: [u8; 65536 / 8],
    /// The CPU reads two bytes at once, and the one behind the bitmap must be all ones.
    end: u8,
}

static TSS: Shared<TaskState> = Shared(UnsafeCell::new(TaskState {
    segment: TaskStateSegment::new(),
    port_permissions: [0; 65536 / 8],
    end: 0xff,
}));
static IDT: Shared<[Gate; 256]> = Shared(UnsafeCell::new([Gate::ABSENT; 256]));
static IST_STACKS: Shared<[[u8; IST_STACK_BYTES]; 4]> = Shared(UnsafeCell::new([[0; IST_STACK_BYTES]; 4]));

/// An entry of the interrupt descriptor table (Intel SDM vol. 3, 6.14.1). The `x86_64` crate's type
/// can't name a ring-3 selector.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate(u64, u64);

/// How a gate is entered.
#[derive(Clone, Copy)]
enum GateKind {
    /// Ring 0, interrupts off.
    Interrupt,
    /// Ring 0, interrupts off, open to `int3` in ring 3.
    Call,
    /// Stays in ring 3: same privilege, another stack, the interrupt flag untouched.
    Exception,
}

impl Gate {
    const ABSENT: Self = Self(0, 0);

    fn new(handler: u64, kind: GateKind, ist: u8) -> Self {
        let (selector, kind) = match kind {
            GateKind::Interrupt => (KERNEL_CODE, 0x8e),
            GateKind::Call => (KERNEL_CODE, 0xee),
            GateKind::Exception => (USER_CODE, 0x8f),
        };
        let low = handler & 0xffff
            | u64::from(selector) << 16
            | u64::from(ist) << 32
            | kind << 40
            | (handler >> 16 & 0xffff) << 48;
        Self(low, handler >> 32)
    }
}

/// Fills the descriptor tables that the boot code has loaded empty. Runs once, in ring 3, before
/// anything can trap.
pub(crate) fn install() {
    install_stacks();
    install_gates();
}

fn install_stacks() {
    let tss = TSS.0.get();
    for ist in [CALL_IST, EXCEPTION_IST, INTERRUPT_IST, FATAL_IST] {
        let slot = usize::from(ist - 1);
        let top = IST_STACKS.0.get().expose_provenance() + (slot + 1) * IST_STACK_BYTES;
        // SAFETY: nothing traps yet, so the CPU does not use the TSS; the slot is below 7.
        unsafe { (*tss).segment.interrupt_stack_table[slot] = VirtAddr::new(top as u64) };
    }
}

fn install_gates() {
    let mut gates = [Gate::ABSENT; 256];
    let stubs = (&raw const exception_stubs).expose_provenance() as u64;
    for (vector, gate) in gates.iter_mut().enumerate().take(32) {
        *gate = Gate::new(stubs + vector as u64 * EXCEPTION_STUB_BYTES, GateKind::Exception, EXCEPTION_IST);
    }
    let ring_0 = |entry: unsafe extern "C" fn()| entry as usize as u64;
    gates[INT3_VECTOR] = Gate::new(ring_0(ring0_call), GateKind::Call, CALL_IST);
    for vector in FATAL_VECTORS {
        gates[vector] = Gate::new(ring_0(ring0_fatal), GateKind::Interrupt, FATAL_IST);
    }
    gates[usize::from(InterruptLine::TIMER.vector())] =
        Gate::new(ring_0(ring0_timer), GateKind::Interrupt, INTERRUPT_IST);
    gates[usize::from(InterruptLine::BALLOON.vector())] =
        Gate::new(ring_0(ring0_balloon), GateKind::Interrupt, INTERRUPT_IST);
    let devices = &mut gates[usize::from(FIRST_DEVICE_VECTOR)..][..MAX_VIRTIO_DEVICES];
    for (entry, gate) in (ring_0(ring0_devices)..).step_by(to_usize(DEVICE_ENTRY_BYTES)).zip(devices) {
        *gate = Gate::new(entry, GateKind::Interrupt, INTERRUPT_IST);
    }
    gates[usize::from(SPURIOUS_VECTOR)] = Gate::new(ring_0(ring0_spurious), GateKind::Interrupt, INTERRUPT_IST);
    // SAFETY: nothing traps yet, so the CPU does not read the table.
    unsafe { *IDT.0.get() = gates };
}

/// Returns the address of the top-level page table that the boot code has loaded.
pub(crate) fn page_table_root() -> u64 {
    (&raw const boot_pml4).expose_provenance() as u64
}

/// Numbers of the calls; `entries.s` tests for them in this order.
const READ_FAULT_ADDRESS: u64 = 0;
const FLUSH_ALL: u64 = 1;
const HALT: u64 = 2;
const ENABLE_INTERRUPTS: u64 = 3;
const REMOVE_GATES: u64 = 4;

/// Returns the address of the last page fault (CR2).
pub(crate) fn read_fault_address() -> u64 {
    call(READ_FAULT_ADDRESS)
}

/// Flushes every translation that this CPU has cached.
pub(crate) fn flush_all() {
    call(FLUSH_ALL);
}

/// Waits for an interrupt, unless one is pending. Upcalls are masked, so it is noted, and delivered
/// at unmask.
pub(crate) fn halt() {
    call(HALT);
}

/// Enables interrupts, for good.
pub(crate) fn enable_interrupts() {
    call(ENABLE_INTERRUPTS);
}

/// Resets the machine by a fault that no gate handles, which shuts the processor down. The fault is
/// one of ring 3, as a KVM without hardware virtualization does not emulate one of ring 0.
pub(crate) fn reset() -> ! {
    call(REMOVE_GATES);
    // SAFETY: the instruction faults, and the machine ends.
    unsafe { asm!("ud2", options(noreturn)) }
}

fn call(number: u64) -> u64 {
    let result;
    // SAFETY: the entry changes RAX only, runs on a stack of its own and does what the number says;
    // none of the calls can harm memory that Rust knows of.
    unsafe { asm!("int3", inout("rax") number => result) };
    result
}
