//! Ports of the machine itself: the exit port, boot marks, the 8259 interrupt controllers, and the
//! balloon port.
#![allow(unsafe_code, reason = "port instructions")]

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use aerostat_abi::boot::{BootMark, MARK_PORT};
use aerostat_abi::exit::{EXIT_PORT, GuestExit};
use aerostat_abi::port::{PORT, Registers};

use super::port_io::{out_byte, out_dword};
use crate::arch::x86_64::{apic, cpu, power, serial};

/// Data ports of the two 8259 interrupt controllers.
const PIC_DATA: [u16; 2] = [0x21, 0xa1];

/// The exit code of the guest; zero until the guest begins to end.
static END: AtomicU8 = AtomicU8::new(0);

/// Whether the outcome is on the console, or the monitor's business.
static IS_OUTCOME_SAID: AtomicBool = AtomicBool::new(false);

/// Begins to end the guest for this reason. From here on no other thread runs: one that ended the
/// guest with success meanwhile would hide what has happened. If the guest is ending already, a
/// report has failed half-way, and there is no second attempt.
pub(crate) fn begin_end(reason: GuestExit) {
    core::mem::forget(cpu::UpcallMask::new());
    if END.compare_exchange(0, reason.encode(), Ordering::Relaxed, Ordering::Relaxed).is_err() {
        end()
    }
}

/// Returns whether the guest is about to end.
pub(crate) fn is_ending() -> bool {
    END.load(Ordering::Relaxed) != 0
}

/// Ends the machine. If that has begun already, the first reason counts.
pub(crate) fn exit(reason: GuestExit) -> ! {
    core::mem::forget(cpu::UpcallMask::new());
    let _ = END.compare_exchange(0, reason.encode(), Ordering::Relaxed, Ordering::Relaxed);
    end()
}

/// Leaves it to the monitor to say how the guest has ended. Other machines forget the exit code, or
/// have no exit port, so the guest says it itself.
pub(crate) fn leave_outcome_to_monitor() {
    IS_OUTCOME_SAID.store(true, Ordering::Relaxed);
}

fn end() -> ! {
    let code = u32::from(END.load(Ordering::Relaxed));
    if !IS_OUTCOME_SAID.swap(true, Ordering::Relaxed)
        && let Some(reason) = GuestExit::decode(code)
    {
        serial::write_line(format_args!("the guest has ended: {reason} (exit code {code:#x})"));
    }
    out_dword(EXIT_PORT, code);
    apic::stop();
    power::end()
}

/// Tells the monitor how far the boot has come.
pub(crate) fn mark(mark: BootMark) {
    out_byte(MARK_PORT, mark.encode());
}

/// Masks both 8259 controllers: interrupts come through the local APIC only.
pub(crate) fn mask_legacy_interrupts() {
    for port in PIC_DATA {
        out_byte(port, 0xff);
    }
}

/// Makes a call through the balloon port: the monitor reads and writes the registers while the
/// instruction is under way.
pub(crate) fn balloon_call(call: Registers) -> Registers {
    let mut reply = call;
    // SAFETY: the monitor may change the four registers that are outputs, and the memory of the
    // page that the call names, which the default clobber of memory covers.
    unsafe {
        asm!(
            "out dx, eax",
            in("dx") PORT,
            inout("rax") reply.rax,
            inout("rdi") reply.rdi,
            inout("rsi") reply.rsi,
            inout("r8") reply.r8,
            options(nostack)
        );
    }
    reply
}
