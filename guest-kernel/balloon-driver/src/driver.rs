//! The driver's loop, one step at a time: compare size and target, move a batch, say when to come back.
//!
//! *Inflating* takes what costs least: whole huge frames, then huge frames that become whole by moving pages where that is cheaper, then
//! single frames, for which the guest may have to put pages elsewhere. It gives way at once to anybody in the guest who waits for memory,
//! and for a while after that. *Deflating* gives, and knows no rate. What the monitor refuses to take stays the guest's; what it refuses
//! to return stays in the ledger. The driver trusts no reply: a target is bounded by the guest's own floor and its total.
//!
//! A step that has failed is repeated after ever longer pauses ([`Backoff`]), sooner when memory comes free or the target changes.

use core::cmp::Ordering;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};

use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::compaction::Compaction;
use crate::conversation::Conversation;
use crate::hold::Hold;
use crate::pace::{Direction, Pace};
use crate::rate::{Rate, RateLimits};
use crate::sides::{Block as _, Ledger, Memory, Monitor, Reply, Room};
use crate::state::{Failure, Figures, Hindrance, State};

/// Huge frames that are made whole at once.
const COMPACTED_AT_ONCE: usize = 32;

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another step at once.
    Continue,
    /// Another step once others have had their turn, at once if nobody wants one.
    Rest,
    /// Nothing to do before this moment, or before something changes.
    Wait {
        /// That moment.
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
    /// The guest is never to be smaller.
    pub floor: FrameCount,
    /// The frame behind the last one.
    pub end: FrameNumber,
}

/// The balloon of one guest.
#[derive(Debug)]
pub struct Driver<L> {
    pub(crate) ledger: L,
    pub(crate) extent: Extent,
    /// As the monitor said last.
    asked: FrameCount,
    pub(crate) conversation: Conversation,
    /// Frames that the monitor holds to be given though the ledger has not got them.
    pub(crate) strays: FrameCount,
    pub(crate) rate: Rate,
    pub(crate) pace: Pace,
    compaction: Compaction,
    /// After failures of inflating, of deflating and of conversations.
    giving: Backoff,
    pub(crate) taking: Backoff,
    pub(crate) talking: Backoff,
    hold: Hold,
    hindrance: Option<Hindrance>,
    pub(crate) figures: Figures,
}

impl<L: Ledger> Driver<L> {
    /// A driver with an empty ledger, which has not talked to its monitor yet.
    #[must_use]
    pub fn new(ledger: L, limits: RateLimits, extent: Extent, now_ns: u64) -> Self {
        Self {
            ledger,
            extent,
            asked: extent.total,
            conversation: Conversation::Ended,
            strays: FrameCount::ZERO,
            rate: Rate::new(limits, now_ns),
            pace: Pace::new(),
            compaction: Compaction::new(),
            giving: Backoff::default(),
            taking: Backoff::default(),
            talking: Backoff::default(),
            hold: Hold::default(),
            hindrance: None,
            figures: Figures::default(),
        }
    }

    /// Guest size: what the monitor does not hold to be in the balloon.
    #[must_use]
    pub fn size(&self) -> FrameCount {
        self.extent.total.saturating_sub(self.balloon()).saturating_sub(self.strays)
    }

    /// Balloon size.
    #[must_use]
    pub fn balloon(&self) -> FrameCount {
        self.ledger.size()
    }

    /// The frames in the balloon.
    #[must_use]
    pub fn ledger(&self) -> &L {
        &self.ledger
    }

    /// The frames in the balloon, for whoever goes on with them.
    #[must_use]
    pub fn into_ledger(self) -> L {
        self.ledger
    }

    /// Guest size that the driver works towards: what the monitor said last, within the guest's bounds.
    #[must_use]
    pub fn target(&self) -> FrameCount {
        self.asked.clamp(self.extent.floor.min(self.extent.total), self.extent.total)
    }

    /// What keeps it from the target, if anything does.
    #[must_use]
    pub fn hindrance(&self) -> Option<Hindrance> {
        self.hindrance
    }

    /// What it is about.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.hindrance, self.size().cmp(&self.target())) {
            (Some(hindrance), _) => State::Hindered(hindrance),
            (None, Ordering::Equal) => State::AtTarget,
            (None, Ordering::Greater) => State::Inflating,
            (None, Ordering::Less) => State::Deflating,
        }
    }

    /// Whether memory that comes free in the guest would help; then [`Self::memory_came_free`] is to be called.
    #[must_use]
    pub fn wants_memory(&self) -> bool {
        matches!(self.hindrance, Some(Hindrance::NoMemory | Hindrance::Thrashing))
    }

    /// Frames that the monitor holds to be given although the guest uses them.
    #[must_use]
    pub fn strays(&self) -> FrameCount {
        self.strays
    }

    /// What it has done.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Entries that the monitor refused since boot.
    #[must_use]
    pub fn refused_entries(&self) -> u64 {
        self.figures.refused_entries.iter().sum()
    }

    /// Frames per second that the driver allows itself.
    #[must_use]
    pub fn frames_per_s(&self) -> u64 {
        self.rate.frames_per_s()
    }

    /// Looks at the target again.
    pub fn refresh(&mut self, monitor: &mut impl Monitor, now_ns: u64) {
        if self.conversation == Conversation::Open {
            let reply = monitor.target();
            self.hear(reply, now_ns);
        }
    }

    /// Memory has come free in the guest: what failed for want of it may work.
    pub fn memory_came_free(&mut self) {
        self.giving.nudge();
    }

    /// Moves at most one batch towards the target.
    pub fn step(&mut self, monitor: &mut impl Monitor, memory: &mut impl Memory<Block = L::Block>) -> Next {
        let began_ns = memory.now_ns();
        self.pace.go_on(began_ns);
        self.collect_taken(monitor, memory);
        let mut batch = Batch::new();
        let next = if self.conversation == Conversation::Open {
            match self.size().cmp(&self.target()) {
                Ordering::Greater => {
                    let next = self.inflate(&mut batch, monitor, memory);
                    self.figures.inflating_ns += memory.now_ns().saturating_sub(began_ns);
                    next
                }
                Ordering::Less => {
                    let next = self.deflate(&mut batch, monitor, memory);
                    self.figures.deflating_ns += memory.now_ns().saturating_sub(began_ns);
                    next
                }
                Ordering::Equal => {
                    self.hindrance = (self.asked < self.target()).then_some(Hindrance::Floor);
                    Next::Idle
                }
            }
        } else {
            self.converse(monitor, memory)
        };
        if next != Next::Continue {
            self.pace.end_burst();
        }
        next
    }

    /// Puts into the ledger what the monitor has taken by itself. It did so for a target that nobody may have told this driver of.
    fn collect_taken(&mut self, monitor: &mut impl Monitor, memory: &mut impl Memory<Block = L::Block>) {
        let before = self.balloon();
        while let Some(block) = memory.collect_taken() {
            self.ledger.put(block);
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
            return self.wait(Hindrance::GuestShort, until_ns);
        }
        if let Some(until_ns) = self.giving.pending(now_ns) {
            return Next::Wait { until_ns };
        }
        let missing = self.size().saturating_sub(self.target());
        let wanted = missing.min(self.rate.allowance(now_ns));
        if wanted < missing && wanted.0 < HUGE_FRAMES {
            return self.wait(Hindrance::Rate, self.rate.next_allowance());
        }
        self.huge_frames(wanted, batch, memory);
        let dry = if batch.is_empty() { self.single_frames(wanted, batch, memory) } else { None };
        self.give(batch, dry, monitor, memory)
    }

    /// Whole huge frames, as many as are wanted, fit the burst, and are there.
    fn huge_frames<M: Memory<Block = L::Block>>(
        &mut self,
        wanted: FrameCount,
        batch: &mut Batch<L::Block>,
        memory: &mut M,
    ) {
        let most = to_usize(wanted.0 / HUGE_FRAMES);
        let most = most.min(self.pace.blocks(Direction::Give, BlockSize::Huge, memory.now_ns()));
        while batch.len() < most {
            let whole = memory.allocate(BlockSize::Huge);
            let made = if batch.is_empty() { whole.or_else(|| self.compacted(most, memory)) } else { whole };
            let Some(block) = made else { return };
            batch.push(block);
        }
    }

    /// A huge frame that has become whole by moving pages, where that is cheaper than single frames.
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
        self.figures.compacted += gained as u64;
        memory.allocate(BlockSize::Huge)
    }

    /// Single frames, as many as are wanted and fit the burst; says why they are fewer.
    fn single_frames<M: Memory<Block = L::Block>>(
        &mut self,
        wanted: FrameCount,
        batch: &mut Batch<L::Block>,
        memory: &mut M,
    ) -> Option<Hindrance> {
        let most = self.pace.blocks(Direction::Give, BlockSize::Frame, memory.now_ns()).min(to_usize(wanted.0));
        let mut room_ns = 0;
        while batch.len() < most {
            if let Some(block) = memory.allocate(BlockSize::Frame) {
                batch.push(block);
                continue;
            }
            // Room takes time to make, and the burst has to do for giving what was found, too.
            let began_ns = memory.now_ns();
            let needed_ns = room_ns + self.pace.batch_ns(Direction::Give, BlockSize::Frame, batch.len());
            if !batch.is_empty() && self.pace.left_ns(began_ns) < needed_ns {
                break;
            }
            if memory.is_short() {
                self.hold.extend(began_ns);
            }
            if self.hold.pending(began_ns).is_some() {
                return Some(Hindrance::GuestShort);
            }
            let why = match memory.make_room() {
                Room::Made => Hindrance::NoMemory, // somebody else may have been faster
                Room::Thrashing => Hindrance::Thrashing,
                Room::Nothing => Hindrance::NoMemory,
            };
            room_ns = memory.now_ns().saturating_sub(began_ns);
            let Some(block) = memory.allocate(BlockSize::Frame) else {
                self.figures.allocation_failures += 1;
                return Some(why);
            };
            batch.push(block);
        }
        None
    }

    /// Gives a batch, which is as long as it is because it ran `dry`, if it did.
    fn give(
        &mut self,
        batch: &mut Batch<L::Block>,
        dry: Option<Hindrance>,
        monitor: &mut impl Monitor,
        memory: &mut impl Memory<Block = L::Block>,
    ) -> Next {
        let before_ns = memory.now_ns();
        let (size, count) = (batch.size(), batch.len());
        let reply = if batch.is_empty() { None } else { monitor.give(batch.entries()) };
        let mut given = FrameCount::ZERO;
        batch.settle(reply, |block, status| {
            if status == EntryStatus::Done {
                given = given.saturating_add(FrameCount(size.frames()));
                self.ledger.put(block);
            } else {
                self.figures.refused(status);
                memory.free(block);
            }
        });
        let now_ns = memory.now_ns();
        self.pace.note(Direction::Give, size, count, now_ns.saturating_sub(before_ns));
        self.rate.moved(given);
        if count > 0 {
            self.hear(reply, now_ns);
        }
        if self.conversation != Conversation::Open {
            return Next::Continue;
        }
        let failure = if given == FrameCount::ZERO { dry.or(Some(refusal(reply))) } else { dry };
        let Some(hindrance) = failure else {
            self.rate.succeeded();
            self.giving.succeeded();
            self.talking.succeeded();
            return self.went_well(now_ns);
        };
        self.rate.failed();
        let until_ns = self.giving.failed(now_ns);
        self.wait(hindrance, until_ns)
    }

    /// Memory that comes back helps at once and costs nothing until it is touched: no rate applies.
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
        self.ledger_blocks(surplus, batch, before_ns);
        if batch.is_empty() {
            // The monitor has more to return than the ledger knows of.
            self.conversation = Conversation::BEGUN;
            return Next::Continue;
        }
        let (size, count) = (batch.size(), batch.len());
        let reply = monitor.take(batch.entries());
        let mut taken = 0;
        batch.settle(reply, |block, status| {
            if status == EntryStatus::Done {
                taken += 1;
                memory.free_unbacked(block);
            } else {
                self.figures.refused(status);
                self.ledger.put(block);
            }
        });
        let now_ns = memory.now_ns();
        self.pace.note(Direction::Take, size, count, now_ns.saturating_sub(before_ns));
        self.hear(reply, now_ns);
        if self.conversation != Conversation::Open {
            return Next::Continue;
        }
        if taken == 0 && self.size() >= self.target() {
            return Next::Continue; // it was refused because the host has changed its mind
        }
        if taken == 0 {
            let until_ns = self.taking.failed(now_ns);
            return self.wait(refusal(reply), until_ns);
        }
        self.taking.succeeded();
        self.talking.succeeded();
        self.went_well(now_ns)
    }

    /// Blocks of the ledger to ask back, of the size that fits first, as many as fit the burst.
    fn ledger_blocks(&mut self, surplus: FrameCount, batch: &mut Batch<L::Block>, now_ns: u64) {
        let mut most = 1;
        while batch.len() < most {
            let Some(block) = self.ledger.take(surplus.saturating_sub(batch.frames())) else { return };
            if batch.is_empty() {
                most = self.pace.blocks(Direction::Take, block.size(), now_ns);
            } else if block.size() != batch.size() {
                return self.ledger.put(block);
            }
            batch.push(block);
        }
    }

    fn went_well(&mut self, now_ns: u64) -> Next {
        self.hindrance = None;
        if self.pace.is_burst_over(now_ns) { Next::Rest } else { Next::Continue }
    }

    pub(crate) fn wait(&mut self, hindrance: Hindrance, until_ns: u64) -> Next {
        self.hindrance = Some(hindrance);
        Next::Wait { until_ns }
    }

    /// Takes note of a reply to whichever call, or of its absence.
    pub fn hear(&mut self, reply: Option<Reply>, now_ns: u64) {
        let Some(reply) = reply else {
            self.figures.last_failure = Some(Failure::Silence);
            return;
        };
        if reply.target != self.asked {
            self.asked = reply.target;
            self.giving.nudge();
            self.taking.nudge();
        }
        if reply.status != Status::Ok {
            self.figures.last_failure = Some(Failure::Call(reply.status));
        }
        if matches!(reply.status, Status::ResetOrdered | Status::NotGreeted) {
            self.conversation = Conversation::Ended;
            self.talking.failed(now_ns);
        }
    }
}

/// What a reply under which nothing was done tells of its monitor.
pub(crate) fn refusal(reply: Option<Reply>) -> Hindrance {
    if reply.is_some() { Hindrance::Refused } else { Hindrance::HostSilent }
}

#[cfg(test)]
mod tests;
