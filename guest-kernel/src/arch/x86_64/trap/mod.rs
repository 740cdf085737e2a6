//! Exceptions and upcalls: how ring 3 handles what the CPU and the ring-0 stub deliver.
//!
//! *Exceptions* of ring 3 come through gates that stay in ring 3, on a stack of their own
//! (`entries.s`). The entry masks upcalls, checks that the thread's stack has room, moves there,
//! and calls [`handle_exception`]; from then on the thread may be preempted in the middle of its
//! own fault. Code that masks upcalls, as the holder of a spin lock does, must not fault: the
//! fault handler takes locks and may sleep. *Upcalls* are interrupts that the ring-0 stub
//! passes on: they run on the interrupted thread's stack, masked, and call [`deliver_pending`].
#![allow(unsafe_code, reason = "the entries are assembly that calls into this module")]

use core::arch::global_asm;
use core::mem::offset_of;

use aerostat_abi::units::to_usize;

use crate::arch::x86_64::cpu::{self, CpuBlock};
use crate::arch::x86_64::operand::{self, LONGEST, Registers};
use crate::arch::x86_64::ring0;
use crate::config::FAULT_STACK_BYTES;
use crate::mm::address_space::Fault;
use crate::mm::fault::FaultError;
use crate::mm::page_table::Access;
use crate::{mm, report, thread};

const PAGE_FAULT: u64 = 14;
/// Error code bit of a page fault: the page is mapped, but not for this kind of access (Intel SDM
/// vol. 3, 4.7).
const PROTECTION: u64 = 1 << 0;
/// The access was a write.
const WRITE: u64 = 1 << 1;
/// The access was an instruction fetch.
const FETCH: u64 = 1 << 4;

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
    if frame.vector != PAGE_FAULT {
        report::exception(frame, None);
    }
    if cfg!(debug_assertions) && cpu::mask_depth() > 1 && !report::is_reporting() {
        report::masked_fault(frame, ring0::read_fault_address());
    }
    let fault = touched(frame).unwrap_or_else(|| fault_at(ring0::read_fault_address(), frame));
    cpu::unmask();
    let address = fault.address;
    match mm::fault::handle(fault) {
        // No translation outlives a change of protection: a second try would end here again.
        Ok(()) if frame.error_code & PROTECTION != 0 => report::exception(frame, Some(address)),
        Ok(()) => {}
        Err(FaultError::Violation(violation)) => report::violation(frame, address, violation),
        Err(FaultError::OutOfMemory) => report::out_of_memory(frame, address),
        Err(FaultError::Disk) => report::disk_error(frame, address),
    }
}

fn fault_at(address: u64, frame: &TrapFrame) -> Fault {
    Fault { address, access: if frame.error_code & WRITE == 0 { Access::ReadOnly } else { Access::ReadWrite } }
}

/// Returns the address of a page fault, if it follows from the faulting instruction and its page
/// may be mapped.
fn touched(frame: &TrapFrame) -> Option<Fault> {
    let image = crate::arch::x86_64::boot::image_range();
    if frame.error_code & (PROTECTION | FETCH) != 0 || !(image.start..image.end - LONGEST as u64).contains(&frame.rip) {
        return None;
    }
    let access = if frame.error_code & WRITE == 0 { operand::Access::Read } else { operand::Access::Write };
    let code = core::ptr::with_exposed_provenance::<[u8; LONGEST]>(to_usize(frame.rip));
    // SAFETY: this many bytes from RIP on lie within the image, which is mapped, and whose code is
    // never written.
    let code = unsafe { code.read() };
    let address = operand::address(&code, &frame.registers(), access)?;
    Some(fault_at(address, frame)).filter(|&fault| mm::fault::is_due(fault))
}

/// Handles an exception whose thread has no room left on its stack. Runs on the exception stack,
/// upcalls masked.
extern "C" fn stack_overflow(frame: &TrapFrame) -> ! {
    report::stack_overflow(frame)
}

/// Runs the handlers of all pending interrupts. Upcalls are masked exactly once.
pub(crate) extern "C" fn deliver_pending() {
    loop {
        let pending = cpu::take_pending();
        if pending == 0 {
            break;
        }
        if pending & ring0::BALLOON_PENDING != 0 {
            crate::balloon::interrupt();
        }
        if pending & ring0::DEVICES_PENDING != 0 {
            crate::drivers::block::interrupt(pending / ring0::FIRST_DEVICE_PENDING);
        }
        if pending & ring0::TIMER_PENDING != 0 {
            thread::timer_interrupt();
        }
    }
    thread::preempt();
}
