//! This CPU: its block of data behind GS, and the software mask for upcalls.
//!
//! Ring 3 can't reliably change the interrupt flag (a KVM without hardware virtualization never
//! sees it try), so the flag stays set and the kernel masks *upcalls* instead: while the mask is
//! not zero, the ring-0 stub only notes an interrupt, and the thread that unmasks delivers it. The
//! mask is a depth and belongs to the thread: a context switch saves and restores it.
#![allow(unsafe_code, reason = "reads and writes the CPU block through GS")]

/// Keeps upcalls masked on this CPU while it lives.
#[derive(Debug)]
pub(crate) struct UpcallMask {
    /// Keeps the guard from being sent to another CPU.
    _here: core::marker::PhantomData<*const ()>,
}

impl UpcallMask {
    /// Masks upcalls.
    pub(crate) fn new() -> Self {
        mask();
        Self { _here: core::marker::PhantomData }
    }
}

impl Drop for UpcallMask {
    fn drop(&mut self) {
        unmask();
    }
}

/// Waits for a moment without yielding the CPU.
pub(crate) fn relax() {
    core::hint::spin_loop();
}

use machine::mask;
#[cfg(test)]
pub(crate) use machine::set_index;
#[cfg(target_os = "none")]
pub(crate) use machine::{
    CPUS, CpuBlock, is_pending, mask_depth, set_mask_depth, set_stack_bounds, stack_bounds, take_pending,
};
pub(crate) use machine::{flush_tlb, index, is_masked, unmask};

/// On the host there is nothing to mask and nothing to flush, and each thread is a CPU.
#[cfg(not(target_os = "none"))]
mod machine {
    use core::cell::Cell;
    use core::sync::atomic::{AtomicUsize, Ordering};

    use crate::config::MAX_CPUS;

    static THREADS: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! {
        static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
    }

    pub(crate) fn index() -> usize {
        INDEX.get().unwrap_or_else(|| {
            let index = THREADS.fetch_add(1, Ordering::Relaxed) % MAX_CPUS;
            INDEX.set(Some(index));
            index
        })
    }

    /// Makes the calling thread another CPU.
    #[cfg(test)]
    pub(crate) fn set_index(index: usize) {
        INDEX.set(Some(index));
    }

    pub(crate) fn mask() {}
    pub(crate) fn unmask() {}
    pub(crate) fn flush_tlb() {}
    pub(crate) fn is_masked() -> bool {
        false
    }
}

#[cfg(target_os = "none")]
mod machine {
    use core::arch::asm;
    use core::cell::UnsafeCell;
    use core::mem::offset_of;
    use core::ops::Range;

    use aerostat_abi::units::to_usize;

    use crate::arch::x86_64::interrupt::InterruptLine;
    use crate::arch::x86_64::{ring0, trap};
    use crate::config::MAX_CPUS;

    /// What the ring-0 stub, the trap entries and the kernel share on one CPU. The assembly knows
    /// the fields by their offsets.
    #[derive(Debug)]
    #[repr(C, align(64))]
    pub(crate) struct CpuBlock {
        /// Depth of the upcall mask.
        pub(crate) mask: u64,
        /// Interrupt lines that wait for their upcall, a bit each.
        pub(crate) pending: u64,
        /// Where the code that an upcall interrupted continues; valid from the ring-0 stub's
        /// interrupt entry until the upcall has read it.
        pub(crate) upcall_rip: u64,
        /// The current thread's stack: an exception taken outside of it can't be handled on it.
        pub(crate) stack_low: u64,
        pub(crate) stack_high: u64,
        /// Which CPU this is.
        index: u64,
    }

    /// The blocks of all CPUs; GS of CPU n points to block n. All access is through GS, none by
    /// reference.
    #[expect(dead_code, reason = "the field is reached through GS")]
    pub(crate) struct CpuBlocks(UnsafeCell<[CpuBlock; MAX_CPUS]>);

    // SAFETY: each block is used by its own CPU alone, through GS, and outside the ring-0 stub only
    // with single instructions.
    unsafe impl Sync for CpuBlocks {}

    /// Starts masked: the boot code unmasks when upcalls can be handled.
    pub(crate) static CPUS: CpuBlocks = CpuBlocks(UnsafeCell::new(initial_blocks()));

    const fn initial_blocks() -> [CpuBlock; MAX_CPUS] {
        let mut blocks =
            [const { CpuBlock { mask: 1, pending: 0, upcall_rip: 0, stack_low: 0, stack_high: u64::MAX, index: 0 } };
                MAX_CPUS];
        let mut index = 0;
        while index < MAX_CPUS {
            blocks[index].index = index as u64;
            index += 1;
        }
        blocks
    }

    const MASK: usize = offset_of!(CpuBlock, mask);
    const PENDING: usize = offset_of!(CpuBlock, pending);
    const STACK_LOW: usize = offset_of!(CpuBlock, stack_low);
    const STACK_HIGH: usize = offset_of!(CpuBlock, stack_high);
    const INDEX: usize = offset_of!(CpuBlock, index);

    /// Returns the number of this CPU, below [`MAX_CPUS`]. Unless upcalls are masked, the thread
    /// may be on another CPU a moment later.
    pub(crate) fn index() -> usize {
        to_usize(read::<INDEX>()) % MAX_CPUS
    }

    /// Adds one level to the mask.
    pub(crate) fn mask() {
        // SAFETY: GS points to this CPU's block since the boot code set it; one instruction, so no
        // interrupt comes between.
        unsafe { asm!("inc qword ptr gs:[{mask}]", mask = const MASK, options(nostack)) };
    }

    /// Takes one level off the mask; at the last one, delivers what arrived meanwhile.
    pub(crate) fn unmask() {
        if mask_depth() > 1 {
            lower_mask();
            return;
        }
        loop {
            if read::<PENDING>() != 0 {
                trap::deliver_pending();
            }
            lower_mask();
            // An interrupt between the check and the lowering was only noted: check again.
            if read::<PENDING>() == 0 {
                return;
            }
            mask();
        }
    }

    /// Returns whether upcalls are masked. If so, the current thread must not wait.
    pub(crate) fn is_masked() -> bool {
        mask_depth() > 0
    }

    /// Returns how many levels the mask has.
    pub(crate) fn mask_depth() -> u64 {
        read::<MASK>()
    }

    /// Restores the mask depth of the thread that was just switched to. It is at least one, so no
    /// upcall can intervene.
    pub(crate) fn set_mask_depth(depth: u64) {
        debug_assert!(depth > 0);
        write::<MASK>(depth);
    }

    fn lower_mask() {
        // SAFETY: as in `mask`.
        unsafe { asm!("dec qword ptr gs:[{mask}]", mask = const MASK, options(nostack)) };
    }

    /// Returns whether the line has interrupted and waits for its upcall.
    pub(crate) fn is_pending(line: InterruptLine) -> bool {
        read::<PENDING>() & line.pending_bit() != 0
    }

    /// Returns the pending interrupts and clears them.
    pub(crate) fn take_pending() -> u64 {
        let mut pending = 0_u64;
        // SAFETY: as in `mask`; the exchange is one instruction.
        unsafe {
            asm!(
                "xchg {pending}, gs:[{offset}]",
                pending = inout(reg) pending,
                offset = const PENDING,
                options(nostack, preserves_flags)
            );
        }
        pending
    }

    /// Tells the trap entries which stack is in use. Upcalls are masked, so no entry
    /// reads a half-written pair.
    pub(crate) fn set_stack_bounds(bounds: &Range<u64>) {
        write::<STACK_LOW>(bounds.start);
        write::<STACK_HIGH>(bounds.end);
    }

    /// Returns the stack in use.
    pub(crate) fn stack_bounds() -> Range<u64> {
        read::<STACK_LOW>()..read::<STACK_HIGH>()
    }

    /// Reads a word of this CPU's block.
    fn read<const OFFSET: usize>() -> u64 {
        let value;
        // SAFETY: as in `mask`.
        unsafe {
            asm!(
                "mov {value}, gs:[{offset}]",
                value = out(reg) value,
                offset = const OFFSET,
                options(nostack, preserves_flags)
            );
        }
        value
    }

    /// Writes a word of this CPU's block.
    fn write<const OFFSET: usize>(value: u64) {
        // SAFETY: as in `mask`.
        unsafe {
            asm!(
                "mov gs:[{offset}], {value}",
                value = in(reg) value,
                offset = const OFFSET,
                options(nostack, preserves_flags)
            );
        }
    }

    /// Flushes every translation that this CPU has cached.
    pub(crate) fn flush_tlb() {
        ring0::flush_all();
    }
}
