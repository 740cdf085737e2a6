//! The balloon driver: an ordinary kernel driver in a thread of its own.
//!
//! The loop's logic is in [`aerostat_balloon_driver`]; here are [`page_list`], the frames in the
//! balloon, `port`, the monitor at the other end, `memory`, the kernel's as the driver sees it,
//! `statistics`, what the monitor is told of the guest, and the thread: woken by the balloon
//! interrupt, by whoever needs memory, and once a second. Without a driver in the kernel
//! (`balloon=none`) there is `handover` instead.

#[cfg(target_os = "none")]
mod handover;
#[cfg(target_os = "none")]
mod memory;
mod page_list;
#[cfg(target_os = "none")]
mod port;
#[cfg(target_os = "none")]
mod statistics;
#[cfg(test)]
mod tests;

#[cfg(target_os = "none")]
pub(crate) use handover::{claim_initial, take_port};
#[cfg(target_os = "none")]
pub use machine::announce;
#[cfg(target_os = "none")]
pub(crate) use machine::{extent, flush_report, interrupt, report_soon, size, start, words};
#[cfg(target_os = "none")]
pub use port::Port;

#[cfg(target_os = "none")]
mod machine {
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use aerostat_abi::metadata;
    use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
    use aerostat_balloon_driver::{Announcements, Driver, Extent, Next};

    use super::handover;
    use super::memory::{KernelMemory, WANTED};
    use super::page_list::PageList;
    use super::port::{Port, Wishes};
    use crate::arch::x86_64::boot::{BalloonDriver, Machine, MachineError};
    use crate::config::{BALLOON_PERIOD_NS, REPORT_PATIENCE_NS, REPORT_SPACING_NS};
    use crate::mm::bump::BumpAllocator;
    use crate::mm::slow_path::Deflator;
    use crate::mm::{self, FRAMES};
    use crate::patience::Patience;
    use crate::report;
    use crate::sync::SpinLock;
    use crate::thread::{self, Event, Priority};
    use crate::time::Instant;

    /// Wakes the driver: a new target, or something to report.
    static WAKE: Event = Event::new();
    /// Wakes who waits for memory.
    static MEMORY_CAME: Event = Event::new();
    /// Times that there was something to look for.
    static ARRIVALS: AtomicU64 = AtomicU64::new(0);
    /// Frames in the kernel's balloon, for whoever wonders if waiting makes sense.
    pub(super) static IN_BALLOON: AtomicU64 = AtomicU64::new(0);
    /// The target may have changed; the statistics have.
    static TARGET_CHANGED: AtomicBool = AtomicBool::new(false);
    static REPORT_DUE: AtomicBool = AtomicBool::new(false);
    /// The driver could do with memory that comes free, and some has.
    static IS_HUNGRY: AtomicBool = AtomicBool::new(false);
    static CAME_FREE: AtomicBool = AtomicBool::new(false);
    /// Somebody waits for the report to be made, and is told through the event.
    static FLUSH: AtomicBool = AtomicBool::new(false);
    static REPORTED: Event = Event::new();

    /// The driver's thread has begun its work.
    static IS_RUNNING: AtomicBool = AtomicBool::new(false);

    /// The driver between [`start`] and its thread.
    static STARTING: SpinLock<Option<(Driver<PageList>, Port)>> = SpinLock::new(None);

    /// Negotiates the monitor, takes the initial balloon over and starts the driver's thread, or
    /// leaves both to an application. Without a port, the guest simply keeps its memory.
    ///
    /// # Errors
    /// When the command line asks for a rate or a driver that can't be.
    pub(crate) fn start(machine: &Machine, books: &mut BumpAllocator) -> Result<(), MachineError> {
        let limits = machine.balloon_rate()?;
        let who = machine.balloon_driver()?;
        let wishes = match who {
            BalloonDriver::Kernel => Wishes::KERNEL,
            BalloonDriver::Application => Wishes::APPLICATION,
        };
        let opened = if machine.has_balloon_port { Port::open(wishes) } else { None };
        let Some(mut port) = opened else { return Ok(()) };
        let extent = extent();
        let page_list = PageList::new(huge_frames(extent.end), books);
        let mut driver = Driver::new(page_list, limits, extent, Instant::now().as_nanos());
        if !driver.begin(&mut port, &mut KernelMemory::default()) {
            log::warn!("balloon: the monitor did not answer HELLO, or not with anything that makes sense");
            return Ok(());
        }
        if driver.strays() > FrameCount::ZERO {
            report::bad_machine("the first grant is too small for the kernel");
        }
        IN_BALLOON.store(driver.balloon().0, Ordering::Relaxed);
        log::debug!("balloon: {} of {} to begin with, target {}", driver.balloon(), extent.total, driver.target());
        if who == BalloonDriver::Application {
            handover::leave(port, driver.into_page_list());
            return Ok(());
        }
        *STARTING.lock() = Some((driver, port));
        mm::slow_path::set_deflator(&Balloon);
        if let Err(error) = thread::spawn_entry("balloon", Priority::Kernel, run, 0) {
            log::warn!("balloon: {error}");
        }
        Ok(())
    }

    /// The guest's memory, as a driver sees it.
    pub(crate) fn extent() -> Extent {
        let end = mm::memory_end();
        Extent { total: mm::total_frames(), floor: metadata::smallest_size(end), end }
    }

    /// Words of bookkeeping that the driver needs on a machine whose memory ends at `end`.
    pub(crate) const fn words(end: FrameNumber) -> usize {
        PageList::words(huge_frames(end))
    }

    const fn huge_frames(end: FrameNumber) -> usize {
        to_usize(end.0.div_ceil(HUGE_FRAMES))
    }

    /// Balloon size, with what the monitor has taken and the driver has not looked at; as far as
    /// the kernel holds the balloon.
    pub(crate) fn size() -> FrameCount {
        FRAMES.taken().saturating_add(FrameCount(IN_BALLOON.load(Ordering::Relaxed)))
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

    /// Has the latest metrics reported before it returns, if there is anybody to report to.
    pub(crate) fn flush_report() {
        if !IS_RUNNING.load(Ordering::Relaxed) {
            return;
        }
        let mut patience = Patience::new(REPORT_PATIENCE_NS);
        FLUSH.store(true, Ordering::Relaxed);
        REPORT_DUE.store(true, Ordering::Relaxed);
        WAKE.signal();
        while FLUSH.load(Ordering::Relaxed)
            && let Some(until) = patience.look(Instant::now())
        {
            REPORTED.wait(Some(until));
        }
    }

    /// The driver's thread.
    extern "C" fn run(_: u64) {
        let Some((mut driver, mut port)) = STARTING.lock().take() else { return };
        IS_RUNNING.store(true, Ordering::Relaxed);
        let mut reported = Instant::default();
        let mut memory = KernelMemory::default();
        let mut announcements = Announcements::default();
        let mut settled_at = driver.size();
        loop {
            let next = driver.step(&mut port, &mut memory);
            publish(&driver, &mut announcements);
            if next == Next::Idle && core::mem::replace(&mut settled_at, driver.size()) != driver.size() {
                log::debug!("balloon: the size is {}; so far {:?}", driver.size(), driver.metrics());
            }
            match next {
                Next::Continue => continue,
                Next::Rest => thread::rest(),
                Next::Wait { .. } | Next::Idle => {}
            }
            FRAMES.offer_spare();
            let now = Instant::now();
            let is_flush = FLUSH.load(Ordering::Relaxed);
            let is_due = is_flush || now >= reported.after(REPORT_SPACING_NS) || WANTED.load(Ordering::Relaxed) > 0;
            if is_due && (REPORT_DUE.swap(false, Ordering::Relaxed) || now >= reported.after(BALLOON_PERIOD_NS)) {
                reported = now;
                let wanted = FrameCount(WANTED.load(Ordering::Relaxed));
                debug_assert_eq!(driver.page_list().validate(), Ok(()));
                debug_assert_eq!(thread::validate(), Ok(()));
                debug_assert_eq!(FRAMES.ballooned(), driver.balloon(), "the guest's size is wrong");
                let reply = port.report(&driver, wanted);
                driver.hear(reply, now.as_nanos());
                if is_flush {
                    FLUSH.store(false, Ordering::Relaxed);
                    REPORTED.signal();
                }
                continue;
            }
            if next == Next::Rest {
                continue;
            }
            let report_at = if REPORT_DUE.load(Ordering::Relaxed) { REPORT_SPACING_NS } else { BALLOON_PERIOD_NS };
            let until = reported.after(report_at);
            let until =
                if let Next::Wait { until_ns } = next { until.min(Instant::from_nanos(until_ns)) } else { until };
            WAKE.wait(Some(until));
            if TARGET_CHANGED.swap(false, Ordering::Relaxed) {
                driver.refresh(&mut port, Instant::now().as_nanos());
            }
            if CAME_FREE.swap(false, Ordering::Relaxed) {
                driver.memory_came_free();
            }
        }
    }

    /// Lets the rest of the kernel, and whoever reads the log, know what a step has changed.
    fn publish(driver: &Driver<PageList>, announcements: &mut Announcements) {
        let balloon = driver.balloon().0;
        let before = IN_BALLOON.swap(balloon, Ordering::Relaxed);
        if before > balloon {
            mm::slow_path::host_gave(FrameCount(before - balloon));
            wake_waiters();
        }
        IS_HUNGRY.store(driver.wants_memory(), Ordering::Relaxed);
        announce(driver, announcements);
    }

    /// Lets those look again who wait for memory.
    fn wake_waiters() {
        ARRIVALS.fetch_add(1, Ordering::Relaxed);
        MEMORY_CAME.signal();
    }

    /// Says in the log what keeps a balloon from its target, when that has changed.
    pub fn announce(driver: &Driver<impl aerostat_balloon_driver::PageList>, announcements: &mut Announcements) {
        match announcements.news(driver.stall_reason(), Instant::now().as_nanos()) {
            Some(Some(stall_reason)) => {
                log::warn!("balloon: {stall_reason}; the size is {}, the target {}", driver.size(), driver.target());
            }
            Some(None) => log::info!("balloon: nothing is in its way any more"),
            None => {}
        }
    }

    /// The balloon as the slow path sees it.
    struct Balloon;

    impl Deflator for Balloon {
        fn wait_for(&self, wanted: FrameCount, missing: FrameCount, patience: &mut Patience) -> bool {
            if IN_BALLOON.load(Ordering::Relaxed) < missing.0 || patience.look(Instant::now()).is_none() {
                return false;
            }
            let arrivals = ARRIVALS.load(Ordering::Relaxed);
            WANTED.fetch_add(wanted.0, Ordering::Relaxed);
            REPORT_DUE.store(true, Ordering::Relaxed);
            WAKE.signal();
            while ARRIVALS.load(Ordering::Relaxed) == arrivals
                && let Some(until) = patience.look(Instant::now())
            {
                MEMORY_CAME.wait(Some(until));
            }
            WANTED.fetch_sub(wanted.0, Ordering::Relaxed);
            true
        }

        fn memory_came(&self) {
            if IS_HUNGRY.load(Ordering::Relaxed) && !CAME_FREE.swap(true, Ordering::Relaxed) {
                WAKE.signal();
            }
            if WANTED.load(Ordering::Relaxed) > 0 {
                wake_waiters();
            }
        }
    }
}
