//! A loop in which a guest gets no upcall any more.

/// Masks upcalls and loops for ever.
pub(crate) fn stay_masked() -> ! {
    // SAFETY: raises the upcall mask, the first word of the CPU block. It is never lowered, as this
    // guest does nothing else.
    unsafe { core::arch::asm!("inc qword ptr gs:[0]") };
    loop {
        core::hint::spin_loop();
    }
}
