//! What the driver's thread and the rest of the kernel tell each other.
//!
//! The rest of the kernel makes *requests*, each a bit that stays set until the thread handles it,
//! and wakes the thread. The thread publishes what it has done. Nothing in here takes a lock, so
//! interrupts and the allocator may call it.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use aerostat_abi::threads::Wait;
use aerostat_abi::units::FrameCount;

use super::report_timer::Demand;
use crate::arch::x86_64::interrupt::InterruptLine;
use crate::config::REPORT_PATIENCE_NS;
use crate::mm::FRAMES;
use crate::mm::slow_path::{Deflator, Need, Resort};
use crate::patience::Patience;
use crate::thread::Event;
use crate::time::Instant;

/// The signals of the guest's balloon.
pub(super) static SIGNALS: Signals = Signals::new();

/// A request to the driver's thread.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Request {
    /// The target may have changed: ask for it.
    Target = 1 << 0,
    /// The statistics have changed: report them.
    Report = 1 << 1,
    /// A thread waits until they are reported.
    Flush = 1 << 2,
    /// Memory became free, and the driver wants some.
    Memory = 1 << 3,
    /// Memory became free, and the host is told of it.
    FreeMemory = 1 << 4,
    /// A thread needs memory whatever the target is.
    Relief = 1 << 5,
}

/// The state that the driver's thread shares with the rest of the kernel.
#[derive(Debug)]
pub(super) struct Signals {
    /// Wakes the driver's thread.
    wake: Event,
    /// A bit for each pending [`Request`].
    requests: AtomicU8,
    /// Whether the driver's thread has begun its work.
    is_running: AtomicBool,
    /// Whether the driver could continue with memory that becomes free.
    wants_memory: AtomicBool,
    /// Whether the host is told of memory that becomes free.
    reports_free_memory: AtomicBool,
    /// Whether the host permits the guest to exceed its target.
    permits_relief: AtomicBool,
    /// Frames that a relief is to bring, at least.
    missing: AtomicU64,
    /// Frames in the balloon, as long as the kernel holds it.
    balloon: AtomicU64,
    /// Frames that are held because they were hinted to the host.
    hinted: AtomicU64,
    /// The host's target.
    target: AtomicU64,
    /// Frames that threads wait for.
    wanted: AtomicU64,
    /// The number of times that waiting threads were told to try again.
    arrivals: AtomicU64,
    /// Wakes the threads that wait for memory.
    arrived: Event,
    /// Wakes the threads that wait for a report.
    flushed: Event,
}

impl Signals {
    const fn new() -> Self {
        Self {
            wake: Event::of(Wait::Work),
            requests: AtomicU8::new(0),
            is_running: AtomicBool::new(false),
            wants_memory: AtomicBool::new(false),
            reports_free_memory: AtomicBool::new(false),
            permits_relief: AtomicBool::new(false),
            missing: AtomicU64::new(0),
            balloon: AtomicU64::new(0),
            hinted: AtomicU64::new(0),
            target: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            arrivals: AtomicU64::new(0),
            arrived: Event::of(Wait::Memory),
            flushed: Event::of(Wait::Host),
        }
    }

    /// Notes that the driver's thread has begun its work.
    pub(super) fn begin(&self) {
        self.is_running.store(true, Ordering::Relaxed);
    }

    /// Puts the driver's thread to sleep until a request wakes it, at most until the given time.
    pub(super) fn sleep(&self, until: Option<Instant>) {
        self.wake.wait(until);
    }

    /// Returns whether the target may have changed since the last call.
    pub(super) fn take_target_change(&self) -> bool {
        self.take(Request::Target)
    }

    /// Returns whether memory that the driver wants became free since the last call.
    pub(super) fn take_freed_memory(&self) -> bool {
        self.take(Request::Memory)
    }

    /// Returns whether memory that the host is told of became free since the last call.
    pub(super) fn take_free_memory(&self) -> bool {
        self.take(Request::FreeMemory)
    }

    /// Returns the frames that a thread needs whatever the target is, if one has said so since the
    /// last call.
    pub(super) fn take_relief(&self) -> Option<FrameCount> {
        self.take(Request::Relief).then(|| FrameCount(self.missing.swap(0, Ordering::Relaxed)))
    }

    /// Returns how much a report is needed.
    pub(super) fn report_demand(&self) -> Demand {
        if self.is_flushing() {
            return Demand::Urgent;
        }
        match (self.is_pending(Request::Report), self.wanted()) {
            (false, _) => Demand::None,
            (true, FrameCount::ZERO) => Demand::Changed,
            (true, _) => Demand::Urgent,
        }
    }

    /// Returns whether a thread waits for a report.
    pub(super) fn is_flushing(&self) -> bool {
        self.is_pending(Request::Flush)
    }

    /// Begins a report: later changes of the statistics need another one.
    pub(super) fn begin_report(&self) {
        self.take(Request::Report);
    }

    /// Does the same as [`Self::end_flush`] if a thread waits.
    pub(super) fn end_flush_if_pending(&self) {
        if self.is_flushing() {
            self.end_flush();
        }
    }

    /// Tells the threads that wait for a report that it was made.
    pub(super) fn end_flush(&self) {
        self.take(Request::Flush);
        self.flushed.signal();
    }

    /// Returns the number of frames that threads wait for.
    pub(super) fn wanted(&self) -> FrameCount {
        FrameCount(self.wanted.load(Ordering::Relaxed))
    }

    /// Publishes the balloon size, and returns the one before.
    pub(super) fn set_balloon(&self, balloon: FrameCount) -> FrameCount {
        FrameCount(self.balloon.swap(balloon.0, Ordering::Relaxed))
    }

    /// Publishes the host's target, and returns the one before.
    pub(super) fn set_target(&self, target: FrameCount) -> FrameCount {
        FrameCount(self.target.swap(target.0, Ordering::Relaxed))
    }

    /// Publishes how many frames are held because they were hinted to the host.
    pub(super) fn set_hinted(&self, hinted: FrameCount) {
        self.hinted.store(hinted.0, Ordering::Relaxed);
    }

    /// Publishes whether the driver could continue with memory that becomes free.
    pub(super) fn set_wants_memory(&self, wants_memory: bool) {
        self.wants_memory.store(wants_memory, Ordering::Relaxed);
    }

    /// Publishes whether the host is told of memory that becomes free.
    pub(super) fn set_reports_free_memory(&self, reports: bool) {
        self.reports_free_memory.store(reports, Ordering::Relaxed);
    }

    /// Publishes whether the host permits the guest to exceed its target.
    pub(super) fn set_permits_relief(&self, permits: bool) {
        self.permits_relief.store(permits, Ordering::Relaxed);
    }

    /// Tells the threads that wait for memory to try again.
    pub(super) fn wake_waiters(&self) {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
        self.arrived.signal();
    }

    /// Makes a request. Returns whether it was not pending already.
    fn request(&self, request: Request) -> bool {
        self.requests.fetch_or(request as u8, Ordering::Relaxed) & request as u8 == 0
    }

    fn is_pending(&self, request: Request) -> bool {
        self.requests.load(Ordering::Relaxed) & request as u8 != 0
    }

    /// Ends a request. Returns whether it was pending.
    fn take(&self, request: Request) -> bool {
        self.requests.fetch_and(!(request as u8), Ordering::Relaxed) & request as u8 != 0
    }
}

impl Deflator for Signals {
    fn wait_for(&self, need: Need, patience: &mut Patience) -> bool {
        let Need { wanted, missing, resort } = need;
        let held = self.balloon.load(Ordering::Relaxed) + self.hinted.load(Ordering::Relaxed);
        if held < missing.0 || patience.charge(Instant::now()).is_none() {
            return false;
        }
        let arrivals = self.arrivals.load(Ordering::Relaxed);
        self.wanted.fetch_add(wanted.0, Ordering::Relaxed);
        self.request(Request::Report);
        if resort == Resort::Last && self.permits_relief.load(Ordering::Relaxed) {
            self.missing.fetch_max(missing.0, Ordering::Relaxed);
            self.request(Request::Relief);
        }
        self.wake.signal();
        while self.arrivals.load(Ordering::Relaxed) == arrivals
            && let Some(until) = patience.charge(Instant::now())
        {
            self.arrived.wait(Some(until));
        }
        self.wanted.fetch_sub(wanted.0, Ordering::Relaxed);
        true
    }

    fn frames_freed(&self) {
        if self.wants_memory.load(Ordering::Relaxed) && self.request(Request::Memory) {
            self.wake.signal();
        }
        if self.reports_free_memory.load(Ordering::Relaxed) && self.request(Request::FreeMemory) {
            self.wake.signal();
        }
        if self.wanted() > FrameCount::ZERO {
            self.wake_waiters();
        }
    }

    fn balloon_and_target(&self) -> (FrameCount, FrameCount) {
        let frames = |count: &AtomicU64| FrameCount(count.load(Ordering::Relaxed));
        (frames(&self.balloon), frames(&self.target))
    }
}

/// Returns the balloon size as far as the kernel holds the balloon, with the memory that the host
/// has reclaimed and the driver has not collected.
pub(crate) fn size() -> FrameCount {
    FRAMES.reclaimed_by_host().saturating_add(FrameCount(SIGNALS.balloon.load(Ordering::Relaxed)))
}

/// Handles the interrupt of the balloon port.
pub(super) fn interrupt(_: InterruptLine) {
    check_target();
}

/// Has the driver's thread ask for the target.
pub(super) fn check_target() {
    SIGNALS.request(Request::Target);
    SIGNALS.wake.signal();
}

/// Has the driver's thread exchange requests with the host.
pub(super) fn exchange_soon() {
    SIGNALS.wake.signal();
}

/// Has the changed statistics reported soon.
pub(crate) fn report_soon() {
    if SIGNALS.request(Request::Report) {
        SIGNALS.wake.signal();
    }
}

/// Has the latest statistics reported before it returns, if the kernel drives the balloon.
pub(crate) fn flush_report() {
    if !SIGNALS.is_running.load(Ordering::Relaxed) {
        return;
    }
    let mut patience = Patience::new(REPORT_PATIENCE_NS);
    SIGNALS.request(Request::Flush);
    SIGNALS.wake.signal();
    while SIGNALS.is_flushing()
        && let Some(until) = patience.charge(Instant::now())
    {
        SIGNALS.flushed.wait(Some(until));
    }
}
