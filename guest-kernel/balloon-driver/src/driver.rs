//! The driver, one step at a time: compare guest size and target, move a batch, return when the
//! next step is due. The crate's documentation draws a step.
//!
//! The driver trusts no reply. It bounds a target by the guest's own floor and its total; a block
//! whose INFLATE is not done stays the guest's, and a block whose DEFLATE is not done stays in the
//! page list.

mod deflate;
mod inflate;
mod session;
#[cfg(test)]
mod tests;

use core::cmp::Ordering;

use aerostat_abi::port::Status;
use aerostat_abi::units::{FrameCount, FrameNumber};

use self::session::Session;
use crate::assembly::Assembly;
use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::compaction::Compaction;
use crate::gate::Gate;
use crate::pace::Pace;
use crate::rate::RateLimits;
use crate::relief::Relief;
use crate::sides::{Memory, Monitor, PageList, Reply};
use crate::state::{Failure, Metrics, StallReason, State};

/// When the driver's next step is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next step is due at once.
    Continue,
    /// The next step is due when other threads have run; at once if none is ready.
    Rest,
    /// The next step is due at a time, or when something changes.
    Wait {
        /// That time.
        until_ns: u64,
    },
    /// The target is reached.
    Idle,
}

/// The guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// All frames, those in the balloon included.
    pub total: FrameCount,
    /// The smallest guest size that the guest can work at.
    pub floor: FrameCount,
    /// The frame after the last one.
    pub end: FrameNumber,
}

/// A balloon driver, with the balloon of its guest.
#[derive(Debug)]
pub struct Driver<L> {
    page_list: L,
    extent: Extent,
    /// The target of the monitor's latest reply.
    host_target: FrameCount,
    session: Session,
    gate: Gate,
    pace: Pace,
    compaction: Compaction,
    assembly: Assembly,
    deflate_backoff: Backoff,
    relief: Relief,
    stall_reason: Option<StallReason>,
    metrics: Metrics,
}

/// What a step works with: the two sides, and the batch between them.
struct Step<'a, M, G: Memory> {
    monitor: &'a mut M,
    memory: &'a mut G,
    /// A batch is large: there is one for a step, and it is not moved.
    batch: &'a mut Batch<G::Block>,
}

/// What a step does.
enum Work {
    OpenSession,
    Inflate { missing: FrameCount },
    Deflate { surplus: FrameCount },
    Nothing,
}

impl<L: PageList> Driver<L> {
    /// Returns a driver with an empty page list, which has made no call yet.
    #[must_use]
    pub fn new(page_list: L, limits: RateLimits, extent: Extent, now_ns: u64) -> Self {
        Self {
            page_list,
            extent,
            host_target: extent.total,
            session: Session::new(),
            gate: Gate::new(limits, now_ns),
            pace: Pace::new(),
            compaction: Compaction::new(),
            assembly: Assembly::default(),
            deflate_backoff: Backoff::default(),
            relief: Relief::default(),
            stall_reason: None,
            metrics: Metrics::default(),
        }
    }

    /// Opens the first session, up to the end of the monitor's list. Returns whether there is one.
    pub fn begin(&mut self, monitor: &mut impl Monitor, memory: &mut impl Memory<Block = L::Block>) -> bool {
        let step = &mut Step { monitor, memory, batch: &mut Batch::new() };
        while !self.session.is_open() {
            if self.open_session(step) != Next::Continue {
                return false;
            }
        }
        true
    }

    /// Moves at most one batch towards the target.
    pub fn step(&mut self, monitor: &mut impl Monitor, memory: &mut impl Memory<Block = L::Block>) -> Next {
        let began_ns = memory.now_ns();
        self.pace.begin_burst(began_ns);
        let step = &mut Step { monitor, memory, batch: &mut Batch::new() };
        self.collect_reclaimed(step);
        self.relief.expire(began_ns);
        let next = match self.work() {
            Work::OpenSession => self.open_session(step),
            Work::Inflate { missing } => {
                let next = self.inflate(missing, step);
                self.metrics.inflating_ns += step.memory.now_ns().saturating_sub(began_ns);
                next
            }
            Work::Deflate { surplus } => {
                let next = self.deflate(surplus, step);
                self.metrics.deflating_ns += step.memory.now_ns().saturating_sub(began_ns);
                next
            }
            Work::Nothing => match self.relief_end() {
                Some(until_ns) => self.wait(StallReason::GuestWaiting, until_ns),
                None => {
                    self.stall_reason = (self.host_target < self.target()).then_some(StallReason::Floor);
                    Next::Idle
                }
            },
        };
        if next != Next::Continue {
            self.pace.end_burst();
        }
        next
    }

    fn work(&self) -> Work {
        if !self.session.is_open() {
            return Work::OpenSession;
        }
        let (size, target) = (self.size(), self.target());
        match size.cmp(&target) {
            Ordering::Greater => Work::Inflate { missing: size.saturating_sub(target) },
            Ordering::Less => Work::Deflate { surplus: target.saturating_sub(size) },
            Ordering::Equal => Work::Nothing,
        }
    }

    /// Asks the monitor for the target.
    pub fn refresh(&mut self, monitor: &mut impl Monitor, now_ns: u64) {
        if self.session.is_open() {
            let reply = monitor.target();
            self.note_reply(reply, now_ns);
        }
    }

    /// Notes the reply to any call, or its absence.
    pub fn note_reply(&mut self, reply: Option<Reply>, now_ns: u64) {
        let Some(reply) = reply else {
            self.metrics.last_failure = Some(Failure::Silence);
            return;
        };
        if reply.target != self.host_target {
            self.host_target = reply.target;
            self.gate.nudge();
            self.deflate_backoff.nudge();
        }
        if reply.status != Status::Ok {
            self.metrics.last_failure = Some(Failure::Call(reply.status));
        }
        if matches!(reply.status, Status::ResetOrdered | Status::NoSession) {
            self.session.fail(now_ns);
        }
    }

    /// Notes that memory became free in the guest, so that inflating is tried again soon.
    pub fn note_freed_memory(&mut self) {
        self.gate.nudge();
    }

    /// Deflates beyond the target for some time: a thread of the guest needs `missing` frames, and
    /// nothing else has them. To be called only where the host permits it.
    pub fn relieve(&mut self, missing: FrameCount, now_ns: u64) {
        self.relief.extend(self.size(), missing, now_ns);
        self.deflate_backoff.nudge();
    }

    /// Puts the huge frames that the host has reclaimed into the page list. The monitor may have
    /// reclaimed them for a target that this driver does not know yet, so it asks for the target.
    fn collect_reclaimed(&mut self, step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>) {
        let before = self.balloon();
        while let Some(block) = step.memory.collect_reclaimed() {
            self.page_list.insert(block);
        }
        if self.balloon() > before {
            self.refresh(step.monitor, step.memory.now_ns());
        }
    }

    /// Ends a step that moved a batch: the burst continues as long as it has time left.
    fn progress(&mut self, now_ns: u64) -> Next {
        self.stall_reason = None;
        if self.pace.is_burst_over(now_ns) { Next::Rest } else { Next::Continue }
    }

    /// Ends a step that waits for `stall_reason`.
    fn wait(&mut self, stall_reason: StallReason, until_ns: u64) -> Next {
        self.stall_reason = Some(stall_reason);
        Next::Wait { until_ns }
    }

    /// Returns the guest size: the frames that the monitor does not count as ballooned.
    #[must_use]
    pub fn size(&self) -> FrameCount {
        self.extent.total.saturating_sub(self.balloon()).saturating_sub(self.disputed())
    }

    /// Returns the balloon size.
    #[must_use]
    pub fn balloon(&self) -> FrameCount {
        self.page_list.size()
    }

    /// Returns the number of frames that the monitor counts as ballooned although the guest uses
    /// them.
    #[must_use]
    pub fn disputed(&self) -> FrameCount {
        self.session.disputed
    }

    /// Returns the frames in the balloon.
    #[must_use]
    pub fn page_list(&self) -> &L {
        &self.page_list
    }

    /// Returns the frames in the balloon, for another driver that continues with them.
    #[must_use]
    pub fn into_page_list(self) -> L {
        self.page_list
    }

    /// Returns the guest size that the driver works towards: the target of the latest reply, within
    /// the guest's bounds, or what a relief lets the guest have.
    #[must_use]
    pub fn target(&self) -> FrameCount {
        self.granted().max(self.relief.size()).min(self.extent.total)
    }

    /// Returns when a relief ends that lets the guest exceed its target.
    fn relief_end(&self) -> Option<u64> {
        (self.target() > self.granted()).then(|| self.relief.until_ns())
    }

    /// Returns the target of the latest reply, within the guest's bounds.
    fn granted(&self) -> FrameCount {
        self.host_target.clamp(self.extent.floor.min(self.extent.total), self.extent.total)
    }

    /// Returns the stall reason, if the driver has one.
    #[must_use]
    pub fn stall_reason(&self) -> Option<StallReason> {
        self.stall_reason
    }

    /// Returns the driver's state.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.stall_reason, self.size().cmp(&self.target())) {
            (Some(stall_reason), _) => State::Stalled(stall_reason),
            (None, Ordering::Equal) => State::AtTarget,
            (None, Ordering::Greater) => State::Inflating,
            (None, Ordering::Less) => State::Deflating,
        }
    }

    /// Returns whether the driver could continue with memory that becomes free in the guest. If so,
    /// the caller calls [`Self::note_freed_memory`] when memory becomes free.
    #[must_use]
    pub fn wants_memory(&self) -> bool {
        matches!(self.stall_reason, Some(StallReason::NoMemory | StallReason::Thrashing))
    }

    /// Returns the driver's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the number of entries that the monitor refused since boot.
    #[must_use]
    pub fn refused_entries(&self) -> u64 {
        self.metrics.refused_entries.iter().sum()
    }

    /// Returns the rate at which the driver may inflate, in frames per second.
    #[must_use]
    pub fn frames_per_s(&self) -> u64 {
        self.gate.rate.frames_per_s()
    }
}

/// Returns the stall reason after a call with which nothing was done.
fn refusal(reply: Option<Reply>) -> StallReason {
    if reply.is_some() { StallReason::Refused } else { StallReason::HostSilent }
}
