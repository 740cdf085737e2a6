//! This CPU: its block of data behind GS, and the software mask for upcalls.
//!
//! Ring 3 can't reliably change the interrupt flag (a KVM without hardware virtualization never sees it try), so the flag stays
//! set and the kernel masks *upcalls* instead: while the mask is not zero, the nub only notes an interrupt, and whoever unmasks
//! delivers it. The mask is a depth and goes with the thread: a context switch saves and restores it.
#![allow(unsafe_code, reason = "reads and writes the CPU block through GS")]

/// Keeps upcalls masked on this CPU while it lives.
#[derive(Debug)]
pub(crate) struct UpcallMask {
    /// Not to be sent to another CPU.
    _here: core::marker::PhantomData<*const ()>,
}

impl UpcallMask {
    pub(crate) fn new() -> Self {
        machine::mask();
        Self { _here: core::marker::PhantomData }
    }
}

impl Drop for UpcallMask {
    fn drop(&mut self) {
        machine::unmask();
    }
}

pub(crate) use machine::flush_tlb;
#[cfg(target_os = "none")]
pub(crate) use machine::{
    CPUS, CpuBlock, mask_depth, set_mask_depth, set_stack_bounds, stack_bounds, take_pending, unmask,
};

/// On the host there is nothing to mask and nothing to flush.
#[cfg(not(target_os = "none"))]
mod machine {
    pub(super) fn mask() {}
    pub(super) fn unmask() {}
    pub(crate) fn flush_tlb() {}
}

#[cfg(target_os = "none")]
mod machine {
    use core::arch::asm;
    use core::cell::UnsafeCell;
    use core::mem::offset_of;
    use core::ops::Range;

    use crate::config::MAX_CPUS;

    /// What the nub, the trap entries and the kernel share on one CPU. The assembly knows the fields by their offsets.
    #[derive(Debug)]
    #[repr(C, align(64))]
    pub(crate) struct CpuBlock {
        /// Depth of the upcall mask.
        pub(crate) mask: u64,
        /// Interrupts that arrived and wait for their upcall, a bit each.
        pub(crate) pending: u64,
        /// Where the code that an upcall interrupted goes on; valid from the nub's interrupt entry until the upcall has read it.
        pub(crate) upcall_rip: u64,
        /// The current thread's stack: an exception taken outside of it can't be handled on it.
        pub(crate) stack_low: u64,
        pub(crate) stack_high: u64,
    }

    /// All CPUs' blocks; GS of CPU n points to block n.
    pub(crate) struct CpuBlocks(UnsafeCell<[CpuBlock; MAX_CPUS]>);

    // SAFETY: each block is used by its own CPU alone, through GS, and outside the nub only with single instructions.
    unsafe impl Sync for CpuBlocks {}

    /// Starts masked: the boot code unmasks when there is somebody to take an upcall.
    pub(crate) static CPUS: CpuBlocks = CpuBlocks(UnsafeCell::new(
        [const { CpuBlock { mask: 1, pending: 0, upcall_rip: 0, stack_low: 0, stack_high: u64::MAX } }; MAX_CPUS],
    ));

    pub(super) fn mask() {
        // SAFETY: GS points to this CPU's block since the boot code set it; one instruction, so no interrupt comes between.
        unsafe { asm!("inc qword ptr gs:[{mask}]", mask = const offset_of!(CpuBlock, mask), options(nostack)) };
    }

    /// Takes one level off the mask; at the last one, delivers what arrived meanwhile.
    pub(crate) fn unmask() {
        if mask_depth() > 1 {
            lower_mask();
            return;
        }
        loop {
            if pending() != 0 {
                crate::trap::deliver_pending();
            }
            lower_mask();
            // An interrupt between the check and the lowering was only noted: look again.
            if pending() == 0 {
                return;
            }
            mask();
        }
    }

    pub(crate) fn mask_depth() -> u64 {
        let depth;
        // SAFETY: as in `mask`.
        unsafe {
            asm!("mov {depth}, gs:[{mask}]", depth = out(reg) depth, mask = const offset_of!(CpuBlock, mask), options(nostack, preserves_flags))
        };
        depth
    }

    /// Gives the thread that was just switched to its own depth back; at least one, so no upcall comes between.
    pub(crate) fn set_mask_depth(depth: u64) {
        debug_assert!(depth > 0);
        // SAFETY: as in `mask`.
        unsafe {
            asm!("mov gs:[{mask}], {depth}", depth = in(reg) depth, mask = const offset_of!(CpuBlock, mask), options(nostack, preserves_flags))
        };
    }

    fn lower_mask() {
        // SAFETY: as in `mask`.
        unsafe { asm!("dec qword ptr gs:[{mask}]", mask = const offset_of!(CpuBlock, mask), options(nostack)) };
    }

    fn pending() -> u64 {
        let pending;
        // SAFETY: as in `mask`.
        unsafe {
            asm!("mov {pending}, gs:[{offset}]", pending = out(reg) pending, offset = const offset_of!(CpuBlock, pending), options(nostack, preserves_flags));
        }
        pending
    }

    /// The interrupts that wait, and forgets them.
    pub(crate) fn take_pending() -> u64 {
        let mut pending = 0_u64;
        // SAFETY: as in `mask`; the exchange is one instruction.
        unsafe {
            asm!("xchg {pending}, gs:[{offset}]", pending = inout(reg) pending, offset = const offset_of!(CpuBlock, pending), options(nostack, preserves_flags));
        }
        pending
    }

    /// Tells the trap entries which stack is in use. Upcalls are masked.
    pub(crate) fn set_stack_bounds(bounds: &Range<u64>) {
        // SAFETY: as in `mask`; the caller switches stacks with upcalls masked, so nobody reads a half-written pair.
        unsafe {
            asm!(
                "mov gs:[{low_offset}], {low}",
                "mov gs:[{high_offset}], {high}",
                low = in(reg) bounds.start,
                high = in(reg) bounds.end,
                low_offset = const offset_of!(CpuBlock, stack_low),
                high_offset = const offset_of!(CpuBlock, stack_high),
                options(nostack, preserves_flags)
            );
        }
    }

    /// The stack in use.
    pub(crate) fn stack_bounds() -> Range<u64> {
        let (low, high);
        // SAFETY: as in `mask`.
        unsafe {
            asm!(
                "mov {low}, gs:[{low_offset}]",
                "mov {high}, gs:[{high_offset}]",
                low = out(reg) low,
                high = out(reg) high,
                low_offset = const offset_of!(CpuBlock, stack_low),
                high_offset = const offset_of!(CpuBlock, stack_high),
                options(nostack, preserves_flags)
            );
        }
        low..high
    }

    /// Forgets every translation that this CPU remembers.
    pub(crate) fn flush_tlb() {
        crate::nub::flush_all();
    }
}
