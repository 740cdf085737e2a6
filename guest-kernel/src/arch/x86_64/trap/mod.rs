//! Exceptions and upcalls: how ring 3 handles what the CPU and the ring-0 stub deliver.
//!
//! *Exceptions* of ring 3 come through gates that stay in ring 3, on a stack of their own
//! (`entries.s`). The entry masks upcalls, checks that the thread's stack has room, moves there,
//! and calls [`handle_exception`]; from then on the thread may be preempted in the middle of its
//! own fault. Code that masks upcalls, as the holder of a spin lock does, must not fault: the
//! fault handler takes locks and may sleep. *Upcalls* are interrupts that the ring-0 stub
//! passes on: they run on the interrupted thread's stack, masked, and call [`deliver_pending`].
//!
//! Who resolves a page fault, writes a report or serves a device is not known here: the layers
//! above register their handlers ([`set_handlers`], [`register_interrupt`], [`set_reschedule`]).
//! Each is a reference or a function that is set once, before its event can happen, and never
//! changed: a handler is found with one load and takes no lock.
#![allow(unsafe_code, reason = "the entries are assembly that calls into this module")]

use core::arch::global_asm;
use core::mem::offset_of;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::to_usize;
use spin::Once;

use crate::arch::x86_64::cpu::{self, CpuBlock};
use crate::arch::x86_64::interrupt::{Handler, HandlerTable, InterruptLine, LineInUse};
use crate::arch::x86_64::operand::{self, Access, LONGEST, Registers};
use crate::arch::x86_64::{image, machine_ports, ring0};
use crate::config::FAULT_STACK_BYTES;

const PAGE_FAULT: u64 = 14;
/// Error code bit of a page fault: the page is mapped, but not for this kind of access (Intel SDM
/// vol. 3, 4.7).
const PROTECTION: u64 = 1 << 0;
/// The access was a write.
const WRITE: u64 = 1 << 1;
/// The access was an instruction fetch.
const FETCH: u64 = 1 << 4;

/// A page fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageFault {
    /// The address of the access.
    pub(crate) address: u64,
    /// Whether the access was a write.
    pub(crate) access: Access,
}

/// Memory management as this module sees it.
pub(crate) trait PageFaultHandler: Sync {
    /// Returns whether the access faults and the fault can be resolved. Upcalls are masked.
    fn is_due(&self, fault: PageFault) -> bool;
    /// Resolves the fault, or ends the guest with a report. May sleep.
    fn resolve(&self, fault: PageFault, frame: &TrapFrame);
}

/// The reports that end a guest.
pub(crate) trait Reports: Sync {
    /// Reports an exception that nothing resolves, and ends the guest.
    fn exception(&self, frame: &TrapFrame, address: Option<u64>) -> !;
    /// Reports a page fault of code that must not have any, as it holds a spin lock or handles an
    /// interrupt, and ends the guest.
    fn masked_fault(&self, frame: &TrapFrame, address: u64) -> !;
    /// Reports a stack that is used up, and ends the guest.
    fn stack_overflow(&self, frame: &TrapFrame) -> !;
}

/// What the layers above do about exceptions.
#[derive(Clone, Copy)]
pub(crate) struct ExceptionHandlers {
    pub(crate) page_faults: &'static dyn PageFaultHandler,
    pub(crate) reports: &'static dyn Reports,
}

static EXCEPTIONS: Once<ExceptionHandlers> = Once::new();
static INTERRUPTS: HandlerTable = HandlerTable::new();
static RESCHEDULE: Once<fn()> = Once::new();

/// Sets the handlers of exceptions. Called before the descriptor tables are installed, without
/// which no exception arrives.
pub(crate) fn set_handlers(handlers: ExceptionHandlers) {
    EXCEPTIONS.call_once(|| handlers);
}

/// Sets the handler of an interrupt line. Called before the line's source may interrupt.
///
/// # Errors
/// [`LineInUse`] when the line has a handler.
pub(crate) fn register_interrupt(line: InterruptLine, handler: Handler) -> Result<(), LineInUse> {
    INTERRUPTS.register(line, handler)
}

/// Sets the function that is called at the end of upcalls, with upcalls masked once: it may switch
/// to another thread. Called before interrupts are enabled.
pub(crate) fn set_reschedule(reschedule: fn()) {
    RESCHEDULE.call_once(|| reschedule);
}

/// A thread's state at an exception, in the order in which `entries.s` pushes it.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct TrapFrame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rbp: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
    pub(crate) rbx: u64,
    pub(crate) rax: u64,
    pub(crate) vector: u64,
    pub(crate) error_code: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

impl TrapFrame {
    /// Returns the registers in the order of their numbers.
    fn registers(&self) -> Registers {
        [
            self.rax, self.rcx, self.rdx, self.rbx, self.rsp, self.rbp, self.rsi, self.rdi, self.r8, self.r9, self.r10,
            self.r11, self.r12, self.r13, self.r14, self.r15,
        ]
    }

    /// Returns how a page fault's instruction accessed memory.
    fn access(&self) -> Access {
        if self.error_code & WRITE == 0 { Access::Read } else { Access::Write }
    }
}

global_asm!(
    include_str!("entries.s"),
    mask = const offset_of!(CpuBlock, mask),
    pending = const offset_of!(CpuBlock, pending),
    upcall_rip = const offset_of!(CpuBlock, upcall_rip),
    stack_low = const offset_of!(CpuBlock, stack_low),
    stack_high = const offset_of!(CpuBlock, stack_high),
    stack_room = const FAULT_STACK_BYTES,
    frame_words = const size_of::<TrapFrame>() / 8,
    saved_rsp = const offset_of!(TrapFrame, rsp),
    user_code = const ring0::USER_CODE,
    user_data = const ring0::USER_DATA,
    handle_exception = sym handle_exception,
    stack_overflow = sym stack_overflow,
    deliver_pending = sym deliver_pending,
);

/// Handles an exception on the thread's own stack. Upcalls are masked once more than the
/// interrupted code had them.
extern "C" fn handle_exception(frame: &mut TrapFrame) {
    let ExceptionHandlers { page_faults, reports } = handlers();
    if frame.vector != PAGE_FAULT {
        reports.exception(frame, None);
    }
    // A report masks upcalls for good, and may be about memory that has been evicted.
    if cfg!(debug_assertions) && cpu::mask_depth() > 1 && !machine_ports::is_ending() {
        reports.masked_fault(frame, ring0::read_fault_address());
    }
    let fault = decoded_fault(frame).filter(|&fault| page_faults.is_due(fault));
    let fault = fault.unwrap_or_else(|| PageFault { address: ring0::read_fault_address(), access: frame.access() });
    cpu::unmask();
    page_faults.resolve(fault, frame);
    if frame.error_code & PROTECTION != 0 {
        // No translation outlives a change of protection: a second try would end here again.
        reports.exception(frame, Some(fault.address));
    }
}

/// Returns the page fault that follows from the faulting instruction, if the instruction tells its
/// address.
fn decoded_fault(frame: &TrapFrame) -> Option<PageFault> {
    let image = image::range();
    if frame.error_code & (PROTECTION | FETCH) != 0 || !(image.start..image.end - LONGEST as u64).contains(&frame.rip) {
        return None;
    }
    let code = core::ptr::with_exposed_provenance::<[u8; LONGEST]>(to_usize(frame.rip));
    // SAFETY: this many bytes from RIP on lie within the image, which is mapped, and whose code is
    // never written.
    let code = unsafe { code.read() };
    let access = frame.access();
    let address = operand::address(&code, &frame.registers(), access)?;
    Some(PageFault { address, access })
}

/// Handles an exception whose thread has no room left on its stack. Runs on the exception stack,
/// upcalls masked.
extern "C" fn stack_overflow(frame: &TrapFrame) -> ! {
    handlers().reports.stack_overflow(frame)
}

fn handlers() -> ExceptionHandlers {
    // There is no way to report that there are no handlers.
    EXCEPTIONS.get().copied().unwrap_or_else(|| machine_ports::exit(GuestExit::Exception))
}

/// Calls the handlers of all pending interrupts. Upcalls are masked exactly once.
pub(crate) extern "C" fn deliver_pending() {
    loop {
        let pending = cpu::take_pending();
        if pending == 0 {
            break;
        }
        INTERRUPTS.call(pending);
    }
    if let Some(reschedule) = RESCHEDULE.get() {
        reschedule();
    }
}
