//! The driver's loop, one step at a time: compare guest size and target, move a batch, return when
//! the next step is due.
//!
//! *Inflating* uses the cheapest memory first: whole huge frames, then huge frames that become
//! whole by moving pages where that is cheaper, then single frames, for which the guest may have to
//! evict pages. It stops at once while a thread of the guest waits for memory, and for some time
//! after that. *Deflating* has no limit on its rate. A block whose INFLATE is refused stays the
//! guest's; a block whose DEFLATE is refused stays in the page list. The driver trusts no reply: it
//! bounds a target by the guest's own floor and its total.
//!
//! A failed step is repeated after pauses that grow ([`Backoff`]), and sooner when memory becomes
//! free or the target changes.

use core::cmp::Ordering;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};

use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::compaction::Compaction;
use crate::hold::Hold;
use crate::pace::{Direction, Pace};
use crate::rate::{Rate, RateLimits};
use crate::session::Session;
use crate::sides::{Block as _, Memory, Monitor, PageList, Reply, Room};
use crate::state::{Failure, Metrics, StallReason, State};

/// Huge frames that one compaction makes whole at most.
const COMPACTED_AT_ONCE: usize = 32;

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
    pub(crate) page_list: L,
    pub(crate) extent: Extent,
    /// The target of the monitor's latest reply.
    asked: FrameCount,
    pub(crate) session: Session,
    /// Frames that the monitor counts as ballooned although they are not in the page list.
    pub(crate) strays: FrameCount,
    pub(crate) rate: Rate,
    pub(crate) pace: Pace,
    compaction: Compaction,
    /// Pauses after failures of inflating, of deflating and of sessions.
    giving: Backoff,
    pub(crate) taking: Backoff,
    pub(crate) talking: Backoff,
    hold: Hold,
    stall_reason: Option<StallReason>,
    pub(crate) metrics: Metrics,
}

impl<L: PageList> Driver<L> {
    /// Returns a driver with an empty page list, which has made no call yet.
    #[must_use]
    pub fn new(page_list: L, limits: RateLimits, extent: Extent, now_ns: u64) -> Self {
        Self {
            page_list,
            extent,
            asked: extent.total,
            session: Session::Ended,
            strays: FrameCount::ZERO,
            rate: Rate::new(limits, now_ns),
            pace: Pace::new(),
            compaction: Compaction::new(),
            giving: Backoff::default(),
            taking: Backoff::default(),
            talking: Backoff::default(),
            hold: Hold::default(),
            stall_reason: None,
            metrics: Metrics::default(),
        }
    }

    /// Returns the guest size: the frames that the monitor does not count as ballooned.
    #[must_use]
    pub fn size(&self) -> FrameCount {
        self.extent.total.saturating_sub(self.balloon()).saturating_sub(self.strays)
    }

    /// Returns the balloon size.
    #[must_use]
    pub fn balloon(&self) -> FrameCount {
        self.page_list.size()
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
    /// the guest's bounds.
    #[must_use]
    pub fn target(&self) -> FrameCount {
        self.asked.clamp(self.extent.floor.min(self.extent.total), self.extent.total)
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
            (Some(stall_reason), _) => State::Hindered(stall_reason),
            (None, Ordering::Equal) => State::AtTarget,
            (None, Ordering::Greater) => State::Inflating,
            (None, Ordering::Less) => State::Deflating,
        }
    }

    /// Returns whether the driver could continue with memory that becomes free in the guest. If so,
    /// the caller calls [`Self::memory_came_free`] when memory becomes free.
    #[must_use]
    pub fn wants_memory(&self) -> bool {
        matches!(self.stall_reason, Some(StallReason::NoMemory | StallReason::Thrashing))
    }

    /// Returns the number of frames that the monitor counts as ballooned although the guest uses
    /// them.
    #[must_use]
    pub fn strays(&self) -> FrameCount {
        self.strays
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
        self.rate.frames_per_s()
    }

    /// Asks the monitor for the target.
    pub fn refresh(&mut self, monitor: &mut impl Monitor, now_ns: u64) {
        if self.session == Session::Open {
            let reply = monitor.target();
            self.hear(reply, now_ns);
        }
    }

    /// Notes that memory became free in the guest, so that inflating is tried again soon.
    pub fn memory_came_free(&mut self) {
        self.giving.nudge();
    }

    /// Moves at most one batch towards the target.
    pub fn step(&mut self, monitor: &mut impl Monitor, memory: &mut impl Memory<Block = L::Block>) -> Next {
        let began_ns = memory.now_ns();
        self.pace.go_on(began_ns);
        self.collect_reclaimed(monitor, memory);
        let mut batch = Batch::new();
        let next = if self.session == Session::Open {
            match self.size().cmp(&self.target()) {
                Ordering::Greater => {
                    let next = self.inflate(&mut batch, monitor, memory);
                    self.metrics.inflating_ns += memory.now_ns().saturating_sub(began_ns);
                    next
                }
                Ordering::Less => {
                    let next = self.deflate(&mut batch, monitor, memory);
                    self.metrics.deflating_ns += memory.now_ns().saturating_sub(began_ns);
                    next
                }
                Ordering::Equal => {
                    self.stall_reason = (self.asked < self.target()).then_some(StallReason::Floor);
                    Next::Idle
                }
            }
        } else {
            self.negotiate_session(monitor, memory)
        };
        if next != Next::Continue {
            self.pace.end_burst();
        }
        next
    }

    /// Puts the huge frames that are reclaimed by the host into the page list. The monitor may have
    /// reclaimed them for a target that this driver does not know yet, so it asks for the target.
    fn collect_reclaimed(&mut self, monitor: &mut impl Monitor, memory: &mut impl Memory<Block = L::Block>) {
        let before = self.balloon();
        while let Some(block) = memory.collect_reclaimed() {
            self.page_list.put(block);
        }
        if self.balloon() > before {
            self.refresh(monitor, memory.now_ns());
        }
    }

    fn inflate(
        &mut self,
        batch: &mut Batch<L::Block>,
        monitor: &mut impl Monitor,
        memory: &mut impl Memory<Block = L::Block>,
    ) -> Next {
        let now_ns = memory.now_ns();
        if memory.is_short() {
            self.hold.extend(now_ns);
        }
        if let Some(until_ns) = self.hold.pending(now_ns) {
            return self.wait(StallReason::GuestWaiting, until_ns);
        }
        if let Some(until_ns) = self.giving.pending(now_ns) {
            return Next::Wait { until_ns };
        }
        let missing = self.size().saturating_sub(self.target());
        let wanted = missing.min(self.rate.allowance(now_ns));
        if wanted < missing && wanted.0 < HUGE_FRAMES {
            return self.wait(StallReason::Rate, self.rate.next_allowance());
        }
        self.huge_frames(wanted, batch, memory);
        let dry = if batch.is_empty() { self.single_frames(wanted, batch, memory) } else { None };
        self.hand_over(batch, dry, monitor, memory)
    }

    /// Adds whole huge frames to the batch: at most `wanted`, what fits the burst, and what is
    /// free.
    fn huge_frames<M: Memory<Block = L::Block>>(
        &mut self,
        wanted: FrameCount,
        batch: &mut Batch<L::Block>,
        memory: &mut M,
    ) {
        let most = to_usize(wanted.0 / HUGE_FRAMES);
        let most = most.min(self.pace.blocks(Direction::Inflate, BlockSize::Huge, memory.now_ns()));
        while batch.len() < most {
            let whole = memory.allocate(BlockSize::Huge);
            let made = if batch.is_empty() { whole.or_else(|| self.compacted(most, memory)) } else { whole };
            let Some(block) = made else { return };
            batch.push(block);
        }
    }

    /// Returns a huge frame that became whole by moving pages, where that is cheaper than single
    /// frames.
    fn compacted<M: Memory<Block = L::Block>>(&mut self, wanted: usize, memory: &mut M) -> Option<L::Block> {
        let now_ns = memory.now_ns();
        if !self.compaction.is_open(now_ns) {
            return None;
        }
        let offer = memory.compactable(wanted.min(COMPACTED_AT_ONCE));
        if !self.compaction.is_worth_it(offer, &self.pace) {
            return None;
        }
        let gained = memory.compact(offer.huge_frames);
        let after_ns = memory.now_ns();
        self.compaction.note(offer, gained, after_ns.saturating_sub(now_ns), after_ns);
        self.metrics.compacted += gained as u64;
        memory.allocate(BlockSize::Huge)
    }

    /// Adds single frames to the batch: at most `wanted`, and what fits the burst. Returns the
    /// reason where it found too few.
    fn single_frames<M: Memory<Block = L::Block>>(
        &mut self,
        wanted: FrameCount,
        batch: &mut Batch<L::Block>,
        memory: &mut M,
    ) -> Option<StallReason> {
        let most = self.pace.blocks(Direction::Inflate, BlockSize::Frame, memory.now_ns()).min(to_usize(wanted.0));
        let mut room_ns = 0;
        while batch.len() < most {
            if let Some(block) = memory.allocate(BlockSize::Frame) {
                batch.push(block);
                continue;
            }
            // Making room takes time, and the burst must have time left to inflate the batch.
            let began_ns = memory.now_ns();
            let needed_ns = room_ns + self.pace.batch_ns(Direction::Inflate, BlockSize::Frame, batch.len());
            if !batch.is_empty() && self.pace.left_ns(began_ns) < needed_ns {
                break;
            }
            if memory.is_short() {
                self.hold.extend(began_ns);
            }
            if self.hold.pending(began_ns).is_some() {
                return Some(StallReason::GuestWaiting);
            }
            let why = match memory.make_room() {
                Room::Made => StallReason::NoMemory, // another thread may have been faster
                Room::Thrashing => StallReason::Thrashing,
                Room::Nothing => StallReason::NoMemory,
            };
            room_ns = memory.now_ns().saturating_sub(began_ns);
            let Some(block) = memory.allocate(BlockSize::Frame) else {
                self.metrics.allocation_failures += 1;
                return Some(why);
            };
            batch.push(block);
        }
        None
    }

    /// Inflates a batch. `dry` is the reason why the batch is shorter than wanted, if it is.
    fn hand_over(
        &mut self,
        batch: &mut Batch<L::Block>,
        dry: Option<StallReason>,
        monitor: &mut impl Monitor,
        memory: &mut impl Memory<Block = L::Block>,
    ) -> Next {
        let before_ns = memory.now_ns();
        let (size, count) = (batch.size(), batch.len());
        let reply = if batch.is_empty() { None } else { monitor.inflate(batch.entries()) };
        let mut inflated = FrameCount::ZERO;
        batch.settle(reply, |block, status| {
            if status == EntryStatus::Done {
                inflated = inflated.saturating_add(FrameCount(size.frames()));
                self.page_list.put(block);
            } else {
                self.metrics.refused(status);
                memory.free(block);
            }
        });
        let now_ns = memory.now_ns();
        self.pace.note(Direction::Inflate, size, count, now_ns.saturating_sub(before_ns));
        self.rate.moved(inflated);
        if count > 0 {
            self.hear(reply, now_ns);
        }
        if self.session != Session::Open {
            return Next::Continue;
        }
        let failure = if inflated == FrameCount::ZERO { dry.or(Some(refusal(reply))) } else { dry };
        let Some(stall_reason) = failure else {
            self.rate.succeeded();
            self.giving.succeeded();
            self.talking.succeeded();
            return self.went_well(now_ns);
        };
        self.rate.failed();
        let until_ns = self.giving.failed(now_ns);
        self.wait(stall_reason, until_ns)
    }

    /// Deflates a batch. No rate applies: the memory helps at once, and costs nothing until it is
    /// touched.
    fn deflate(
        &mut self,
        batch: &mut Batch<L::Block>,
        monitor: &mut impl Monitor,
        memory: &mut impl Memory<Block = L::Block>,
    ) -> Next {
        let before_ns = memory.now_ns();
        if let Some(until_ns) = self.taking.pending(before_ns) {
            return Next::Wait { until_ns };
        }
        let surplus = self.target().saturating_sub(self.size());
        self.page_list_blocks(surplus, batch, before_ns);
        if batch.is_empty() {
            // The monitor counts more frames as ballooned than the page list has.
            self.session = Session::BEGUN;
            return Next::Continue;
        }
        let (size, count) = (batch.size(), batch.len());
        let reply = monitor.deflate(batch.entries());
        let mut deflated = 0;
        batch.settle(reply, |block, status| {
            if status == EntryStatus::Done {
                deflated += 1;
                memory.free_unbacked(block);
            } else {
                self.metrics.refused(status);
                self.page_list.put(block);
            }
        });
        let now_ns = memory.now_ns();
        self.pace.note(Direction::Deflate, size, count, now_ns.saturating_sub(before_ns));
        self.hear(reply, now_ns);
        if self.session != Session::Open {
            return Next::Continue;
        }
        if deflated == 0 && self.size() >= self.target() {
            return Next::Continue; // refused because the host lowered the target
        }
        if deflated == 0 {
            let until_ns = self.taking.failed(now_ns);
            return self.wait(refusal(reply), until_ns);
        }
        self.taking.succeeded();
        self.talking.succeeded();
        self.went_well(now_ns)
    }

    /// Fills the batch with blocks of the page list to deflate. All have the size of the first one
    /// that fits; there are as many as fit the burst.
    fn page_list_blocks(&mut self, surplus: FrameCount, batch: &mut Batch<L::Block>, now_ns: u64) {
        let mut most = 1;
        while batch.len() < most {
            let Some(block) = self.page_list.take(surplus.saturating_sub(batch.frames())) else { return };
            if batch.is_empty() {
                most = self.pace.blocks(Direction::Deflate, block.size(), now_ns);
            } else if block.size() != batch.size() {
                return self.page_list.put(block);
            }
            batch.push(block);
        }
    }

    fn went_well(&mut self, now_ns: u64) -> Next {
        self.stall_reason = None;
        if self.pace.is_burst_over(now_ns) { Next::Rest } else { Next::Continue }
    }

    pub(crate) fn wait(&mut self, stall_reason: StallReason, until_ns: u64) -> Next {
        self.stall_reason = Some(stall_reason);
        Next::Wait { until_ns }
    }

    /// Notes the reply to any call, or its absence.
    pub fn hear(&mut self, reply: Option<Reply>, now_ns: u64) {
        let Some(reply) = reply else {
            self.metrics.last_failure = Some(Failure::Silence);
            return;
        };
        if reply.target != self.asked {
            self.asked = reply.target;
            self.giving.nudge();
            self.taking.nudge();
        }
        if reply.status != Status::Ok {
            self.metrics.last_failure = Some(Failure::Call(reply.status));
        }
        if matches!(reply.status, Status::ResetOrdered | Status::NoSession) {
            self.session = Session::Ended;
            self.talking.failed(now_ns);
        }
    }
}

/// Returns the stall reason after a reply with which nothing was done.
pub(crate) fn refusal(reply: Option<Reply>) -> StallReason {
    if reply.is_some() { StallReason::Refused } else { StallReason::HostSilent }
}

#[cfg(test)]
mod tests;
