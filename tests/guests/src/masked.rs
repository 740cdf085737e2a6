//! Work during which a guest gets no upcall.

/// Masks upcalls and loops for ever.
#[allow(dead_code, reason = "a guest uses one of the two")]
pub(crate) fn stay_masked() -> ! {
    while_masked(|| {
        loop {
            core::hint::spin_loop();
        }
    })
}

/// Masks upcalls while it does `work`.
#[allow(dead_code, reason = "a guest uses one of the two")]
pub(crate) fn while_masked<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: raises the upcall mask, the first word of the CPU block, and lowers it again below.
    unsafe { core::arch::asm!("inc qword ptr gs:[0]") };
    let result = work();
    // SAFETY: it was raised above.
    unsafe { core::arch::asm!("dec qword ptr gs:[0]") };
    result
}
