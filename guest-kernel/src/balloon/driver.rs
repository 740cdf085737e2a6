//! The driver's loop, one step at a time: compare size and target, move a batch, say when to come back.
//!
//! It asks the kernel for blocks like any driver and gives them to the monitor; or it asks the monitor for blocks of its ledger and
//! frees them. It neither knows nor asks who needs the memory. What the monitor refuses to take stays the guest's; what it refuses
//! to return stays in the ledger. It trusts no reply: a target is bounded by the guest's own floor and its total.
//!
//! The step is pure but for the two traits: [`Monitor`] (the port, or a test) and [`Memory`] (the frame allocator, or a test).

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::units::FrameCount;

use super::ledger::Ledger;
use super::rate::Rate;
use crate::mm::{Block, BlockSize};
use crate::time::Instant;

/// Blocks in one batch: 512 huge frames would be a GiB, with the application waiting behind each of them.
const BATCH: usize = 256;

const _: () = assert!(BATCH <= CAPACITY);

/// The other side of the port.
pub(crate) trait Monitor {
    /// The current target; `None` when the monitor has stopped making sense.
    fn target(&mut self) -> Option<FrameCount>;
    /// Hands over the entries; their statuses say what became of them.
    fn give(&mut self, entries: &mut [Entry]) -> Option<Reply>;
    /// Asks for the entries back.
    fn take(&mut self, entries: &mut [Entry]) -> Option<Reply>;
}

/// What every reply carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: Status,
    pub(crate) target: FrameCount,
}

/// Where blocks come from and go to.
pub(crate) trait Memory {
    /// A block for the balloon, or `None` when the guest needs what is left.
    fn allocate(&mut self, size: BlockSize) -> Option<Block>;
    /// A block that the monitor has taken by itself: it is in the balloon already.
    fn collect_taken(&mut self) -> Option<Block>;
    /// A block that the balloon could not give.
    fn free(&mut self, block: Block);
    /// A block that comes back from the monitor, its memory fresh.
    fn free_unbacked(&mut self, block: Block);
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another step at once.
    Continue,
    /// Nothing to do before this moment, or before it is woken.
    Wait(Instant),
    /// The target is reached.
    Idle,
}

/// The balloon of one guest.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) ledger: Ledger,
    rate: Rate,
    total: FrameCount,
    floor: FrameCount,
    target: FrameCount,
    refused_entries: u64,
}

impl Driver {
    /// A driver for a guest of `total` frames that is never to be smaller than `floor`.
    pub(crate) fn new(ledger: Ledger, rate: Rate, total: FrameCount, floor: FrameCount) -> Self {
        Self { ledger, rate, total, floor, target: total, refused_entries: 0 }
    }

    /// Guest size: what is not in the balloon.
    pub(crate) fn size(&self) -> FrameCount {
        self.total.saturating_sub(self.ledger.len())
    }

    /// Entries that the monitor refused since boot.
    pub(crate) fn refused_entries(&self) -> u64 {
        self.refused_entries
    }

    /// Frames per second that the driver allows itself.
    pub(crate) fn frames_per_s(&self) -> u64 {
        self.rate.frames_per_s()
    }

    /// Looks at the target again.
    pub(crate) fn refresh(&mut self, monitor: &mut impl Monitor) {
        if let Some(target) = monitor.target() {
            self.set_target(target);
        }
    }

    /// Moves at most one batch towards the target.
    pub(crate) fn step(&mut self, monitor: &mut impl Monitor, memory: &mut impl Memory, now: Instant) -> Next {
        while let Some(block) = memory.collect_taken() {
            self.ledger.put(block);
        }
        let size = self.size();
        if size > self.target {
            self.inflate(size.saturating_sub(self.target), monitor, memory, now)
        } else if size < self.target {
            self.deflate(self.target.saturating_sub(size), monitor, memory)
        } else {
            Next::Idle
        }
    }

    fn inflate(
        &mut self,
        missing: FrameCount,
        monitor: &mut impl Monitor,
        memory: &mut impl Memory,
        now: Instant,
    ) -> Next {
        let allowed = self.rate.allowance(now);
        let wanted = FrameCount(missing.0.min(allowed.0));
        if wanted == FrameCount::ZERO || (wanted < missing && wanted.0 < BlockSize::Huge.frames()) {
            return Next::Wait(self.rate.next_allowance());
        }
        let mut batch = Batch::new();
        let mut ran_dry = false;
        while batch.frames < wanted && !batch.is_full() {
            let left = wanted.saturating_sub(batch.frames);
            let huge = (left.0 >= BlockSize::Huge.frames()).then(|| memory.allocate(BlockSize::Huge)).flatten();
            let Some(block) = huge.or_else(|| memory.allocate(BlockSize::Frame)) else {
                ran_dry = true;
                break;
            };
            batch.push(block);
        }
        let reply = if batch.is_empty() { None } else { monitor.give(batch.entries()) };
        let mut given = FrameCount::ZERO;
        let mut refused = 0;
        batch.settle(reply.map(|reply| reply.status), |block, is_done| {
            if is_done {
                given = given.saturating_add(FrameCount(block.size().frames()));
                self.ledger.put(block);
            } else {
                refused += 1;
                memory.free(block);
            }
        });
        self.refused_entries += refused;
        if let Some(reply) = reply {
            self.set_target(reply.target);
        }
        if ran_dry || given == FrameCount::ZERO {
            self.rate.failed();
            return Next::Wait(self.rate.next_allowance());
        }
        self.rate.succeeded(given);
        Next::Continue
    }

    /// Memory that comes back helps at once and costs nothing until it is touched: no rate applies.
    fn deflate(&mut self, surplus: FrameCount, monitor: &mut impl Monitor, memory: &mut impl Memory) -> Next {
        let mut batch = Batch::new();
        while batch.frames < surplus && !batch.is_full() {
            let Some(block) = self.ledger.take(surplus.saturating_sub(batch.frames)) else { break };
            batch.push(block);
        }
        if batch.is_empty() {
            return Next::Idle;
        }
        let reply = monitor.take(batch.entries());
        let (mut taken, mut refused) = (0, 0);
        batch.settle(reply.map(|reply| reply.status), |block, is_done| {
            if is_done {
                taken += 1;
                memory.free_unbacked(block);
            } else {
                refused += 1;
                self.ledger.put(block);
            }
        });
        self.refused_entries += refused;
        if let Some(reply) = reply {
            self.set_target(reply.target);
        }
        // A monitor that returns nothing is asked again when it says something new.
        if taken == 0 { Next::Idle } else { Next::Continue }
    }

    fn set_target(&mut self, target: FrameCount) {
        self.target = target.clamp(self.floor.min(self.total), self.total);
    }
}

/// Blocks on their way, and the entries that speak of them.
struct Batch {
    blocks: [Option<Block>; BATCH],
    entries: [Entry; BATCH],
    count: usize,
    frames: FrameCount,
}

impl Batch {
    fn new() -> Self {
        Self {
            blocks: [const { None }; BATCH],
            entries: [Entry::pending(aerostat_abi::units::FrameNumber(0), 0); BATCH],
            count: 0,
            frames: FrameCount::ZERO,
        }
    }

    fn is_full(&self) -> bool {
        self.count == BATCH
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, block: Block) {
        self.frames = self.frames.saturating_add(FrameCount(block.size().frames()));
        self.entries[self.count] = Entry::pending(block.first(), block.size().order());
        self.blocks[self.count] = Some(block);
        self.count += 1;
    }

    fn entries(&mut self) -> &mut [Entry] {
        &mut self.entries[..self.count]
    }

    /// Hands every block to `place`, with whether the monitor carried it out. Without a reply that says so, nothing was.
    fn settle(&mut self, status: Option<Status>, mut place: impl FnMut(Block, bool)) {
        let is_valid = status == Some(Status::Ok);
        for (block, entry) in self.blocks[..self.count].iter_mut().zip(&self.entries) {
            if let Some(block) = block.take() {
                place(block, is_valid && entry.status == EntryStatus::Done);
            }
        }
    }
}

#[cfg(test)]
mod tests;
