//! The balloon driver: an ordinary kernel driver in a thread of its own.
//!
//! The loop's logic is in [`aerostat_balloon_driver`]; here are [`ledger`], the frames in the balloon, `port`, the monitor at the other end,
//! the kernel's memory as the driver sees it, and the thread: woken by the balloon interrupt, by whoever needs memory, and once a second.

mod ledger;
#[cfg(target_os = "none")]
mod port;
#[cfg(test)]
mod tests;

#[cfg(target_os = "none")]
pub(crate) use machine::{flush_report, interrupt, report_soon, size, start, words};

#[cfg(target_os = "none")]
mod machine {
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use aerostat_abi::batch::Entry;
    use aerostat_abi::statistics::Statistics;
    use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HUGE_ORDER, MAX_ORDER, to_usize};
    use aerostat_balloon_driver::{Driver, Ledger as _, Memory, Next, Rate, RateLimits};

    use super::ledger::Ledger;
    use super::port::Port;
    use crate::boot::Machine;
    use crate::config::{BALLOON_PERIOD_NS, GUEST_FLOOR, RECLAIM_STEP, REPORT_PATIENCE_NS, REPORT_SPACING_NS};
    use crate::mm::carve::Carver;
    use crate::mm::ladder::{Deflator, Patience};
    use crate::mm::shortage::{self, Cause};
    use crate::mm::{self, Block, BlockSize, FRAMES, MemoryStatistics, Purpose, reclaim};
    use crate::report;
    use crate::sync::SpinLock;
    use crate::thread::{self, Event, Priority};
    use crate::time::Instant;

    /// Wakes the driver: a new target, or something to report.
    static WAKE: Event = Event::new();
    /// Wakes who waits for memory.
    static MEMORY_CAME: Event = Event::new();
    /// Frames that somebody waits for.
    static WANTED: AtomicU64 = AtomicU64::new(0);
    /// Frames in the balloon, for whoever wonders if waiting makes sense.
    static IN_BALLOON: AtomicU64 = AtomicU64::new(0);
    /// The target may have changed; the statistics have.
    static TARGET_CHANGED: AtomicBool = AtomicBool::new(false);
    static REPORT_DUE: AtomicBool = AtomicBool::new(false);
    /// Somebody waits for the report to be made, and is told through the event.
    static FLUSH: AtomicBool = AtomicBool::new(false);
    static REPORTED: Event = Event::new();

    /// The driver's thread has begun its work.
    static IS_RUNNING: AtomicBool = AtomicBool::new(false);

    /// The driver between [`start`] and its thread.
    static STARTING: SpinLock<Option<(Driver<Ledger>, Port)>> = SpinLock::new(None);

    /// Greets the monitor, takes the initial balloon over and starts the driver's thread. Without a port, the guest simply keeps
    /// its memory.
    pub(crate) fn start(machine: &Machine, books: &mut Carver) {
        if !machine.has_balloon_port {
            return;
        }
        let Some((mut port, welcome)) = Port::open(GUEST_FLOOR) else {
            log::warn!("balloon: the monitor did not answer HELLO");
            return;
        };
        let total = mm::total_frames();
        let mut ledger = Ledger::new(huge_frames(mm::memory_end()), books);
        let mut is_claimed = true;
        let is_listed = port.list(|given| is_claimed = is_claimed && claim(&mut ledger, given));
        if !is_listed || !is_claimed {
            report::bad_machine("the first grant is not in whole huge frames, or too small for the kernel");
        }
        IN_BALLOON.store(ledger.size().0, Ordering::Relaxed);
        log::debug!("balloon: {} of {total} to begin with, target {}", ledger.size(), welcome.target);
        let driver = Driver::new(ledger, Rate::new(RateLimits::DEFAULT, Instant::now().as_nanos()), total, GUEST_FLOOR);
        *STARTING.lock() = Some((driver, port));
        mm::ladder::set_deflator(&Balloon);
        if let Err(error) = thread::spawn_entry("balloon", Priority::Kernel, run, 0) {
            log::warn!("balloon: {error}");
        }
    }

    /// Words of bookkeeping that the driver needs on a machine whose memory ends at `end`.
    pub(crate) const fn words(end: FrameNumber) -> usize {
        Ledger::words(huge_frames(end))
    }

    const fn huge_frames(end: FrameNumber) -> usize {
        to_usize(end.0.div_ceil(HUGE_FRAMES))
    }

    /// Claims a block that counts as given from the start; says whether all of it could be had.
    fn claim(ledger: &mut Ledger, given: Entry) -> bool {
        if !(HUGE_ORDER..=MAX_ORDER).contains(&given.order) {
            return false;
        }
        let end = given.frame.0.saturating_add(given.count().0);
        for frame in (given.frame.0..end).step_by(to_usize(HUGE_FRAMES)) {
            let Some(block) = FRAMES.claim_huge(FrameNumber(frame)) else { return false };
            ledger.put(block);
        }
        true
    }

    /// Balloon size.
    pub(crate) fn size() -> FrameCount {
        FrameCount(IN_BALLOON.load(Ordering::Relaxed))
    }

    /// The balloon interrupt's upcall.
    pub(crate) fn interrupt() {
        TARGET_CHANGED.store(true, Ordering::Relaxed);
        WAKE.signal();
    }

    /// The application allocated, freed or did something that the host would like to know.
    pub(crate) fn report_soon() {
        if !REPORT_DUE.swap(true, Ordering::Relaxed) {
            WAKE.signal();
        }
    }

    /// Has the latest figures reported before it returns, if there is anybody to report to.
    pub(crate) fn flush_report() {
        if !IS_RUNNING.load(Ordering::Relaxed) {
            return;
        }
        let deadline = Instant::now().after(REPORT_PATIENCE_NS);
        FLUSH.store(true, Ordering::Relaxed);
        REPORT_DUE.store(true, Ordering::Relaxed);
        WAKE.signal();
        while FLUSH.load(Ordering::Relaxed) && Instant::now() < deadline {
            REPORTED.wait(Some(deadline));
        }
    }

    /// The driver's thread.
    extern "C" fn run(_: u64) {
        let Some((mut driver, mut port)) = STARTING.lock().take() else { return };
        IS_RUNNING.store(true, Ordering::Relaxed);
        let mut reported = Instant::default();
        let mut memory = KernelMemory::default();
        driver.refresh(&mut port);
        loop {
            let next = loop {
                let next = driver.step(&mut port, &mut memory, Instant::now().as_nanos());
                if IN_BALLOON.swap(driver.balloon().0, Ordering::Relaxed) > driver.balloon().0 {
                    mm::ladder::host_gave();
                    MEMORY_CAME.signal();
                }
                if next != Next::Continue {
                    break next;
                }
            };
            let now = Instant::now();
            let is_flush = FLUSH.load(Ordering::Relaxed);
            let is_due = is_flush || now >= reported.after(REPORT_SPACING_NS) || WANTED.load(Ordering::Relaxed) > 0;
            if is_due && (REPORT_DUE.swap(false, Ordering::Relaxed) || now >= reported.after(BALLOON_PERIOD_NS)) {
                reported = now;
                port.report(&statistics(&driver));
                if is_flush {
                    FLUSH.store(false, Ordering::Relaxed);
                    REPORTED.signal();
                }
                driver.refresh(&mut port);
                continue;
            }
            let report_at = if REPORT_DUE.load(Ordering::Relaxed) { REPORT_SPACING_NS } else { BALLOON_PERIOD_NS };
            let until = reported.after(report_at);
            let until =
                if let Next::Wait { until_ns } = next { until.min(Instant::from_nanos(until_ns)) } else { until };
            WAKE.wait(Some(until));
            if TARGET_CHANGED.swap(false, Ordering::Relaxed) || Instant::now() >= until {
                driver.refresh(&mut port);
            }
        }
    }

    fn statistics(driver: &Driver<Ledger>) -> Statistics {
        debug_assert_eq!(driver.ledger().validate(), Ok(()));
        debug_assert_eq!(mm::validate(), Ok(()));
        let memory = mm::statistics();
        let progress = crate::app::progress();
        Statistics {
            total_frames: memory.total.0,
            free_frames: memory.frames.free.0,
            committed_frames: committed(driver, &memory).0,
            wanted_frames: WANTED.load(Ordering::Relaxed),
            balloon_frames: driver.balloon().0,
            huge_faults: memory.faults.huge,
            small_faults: memory.faults.small,
            allocation_failures: memory.allocation_failures,
            refused_entries: driver.refused_entries(),
            rate_frames_per_s: driver.frames_per_s(),
            verified_bytes: progress.verified_bytes,
            app_errors: progress.errors,
            available_frames: memory.frames.available.0,
            file_frames: memory.reclaim.file_pages,
            compressed_pages: memory.reclaim.tier.pages,
            compressed_frames: memory.reclaim.tier.frames.0,
            swapped_pages: memory.reclaim.pages_on_disk,
            swap_in: memory.reclaim.disk.reads,
            swap_out: memory.reclaim.disk.writes,
            major_faults: memory.faults.major,
            evictions: memory.reclaim.evictions,
            restores: memory.reclaim.restores,
            refaults: memory.reclaim.refaults,
            stalled_ns: memory.pressure.stalled_ns,
            pressure_per_mille: memory.pressure.recent_per_mille,
            activity: progress.activity,
        }
    }

    /// What the guest would occupy if nothing were evicted and every promise were kept.
    fn committed(driver: &Driver<Ledger>, memory: &MemoryStatistics) -> FrameCount {
        let used = driver.size().saturating_sub(memory.frames.free).saturating_sub(memory.reclaim.tier.frames);
        used.saturating_add(memory.frames.promised)
    }

    /// The frame allocator and reclaim as the driver sees them.
    #[derive(Default)]
    struct KernelMemory {
        /// The last episode of thrashing that the log has been told of.
        logged_episode: u64,
    }

    impl KernelMemory {
        /// Whether the guest can't get on with what it has. To take more would stop it: the driver slows down, and tries again.
        fn is_too_small(&mut self) -> bool {
            if !reclaim::is_thrashing() {
                return false;
            }
            let episode = reclaim::statistics().thrash_episodes;
            if core::mem::replace(&mut self.logged_episode, episode) != episode {
                log::warn!("balloon: the guest is thrashing, nothing more is reclaimed for the host meanwhile");
            }
            true
        }
    }

    impl Memory for KernelMemory {
        type Block = Block;

        fn allocate(&mut self, size: BlockSize) -> Option<Block> {
            let free = FRAMES.allocate(size, Purpose::Balloon);
            if free.is_some() || size == BlockSize::Huge {
                return free;
            }
            // A driver that asks for a frame pushes the guest to reclaim, like anybody who asks for memory.
            shortage::announce(Cause::Balloon);
            let block = FRAMES.allocate(size, Purpose::Balloon);
            if block.is_some() || self.is_too_small() || reclaim::reclaim(RECLAIM_STEP) == FrameCount::ZERO {
                return block;
            }
            FRAMES.allocate(size, Purpose::Balloon)
        }

        fn free(&mut self, block: Block) {
            FRAMES.free(block);
        }

        fn free_unbacked(&mut self, block: Block) {
            FRAMES.free_unbacked(block);
        }
    }

    /// The balloon as the ladder sees it.
    struct Balloon;

    impl Deflator for Balloon {
        fn wait_for(&self, wanted: FrameCount, missing: FrameCount, patience: &mut Patience) -> bool {
            let deadline = *patience.end.get_or_insert_with(|| Instant::now().after(patience.nanoseconds));
            if IN_BALLOON.load(Ordering::Relaxed) < missing.0 || Instant::now() >= deadline {
                return false;
            }
            WANTED.fetch_add(wanted.0, Ordering::Relaxed);
            REPORT_DUE.store(true, Ordering::Relaxed);
            WAKE.signal();
            MEMORY_CAME.wait(Some(deadline));
            WANTED.fetch_sub(wanted.0, Ordering::Relaxed);
            true
        }

        fn memory_came(&self) {
            if WANTED.load(Ordering::Relaxed) > 0 {
                MEMORY_CAME.signal();
            }
        }
    }
}
