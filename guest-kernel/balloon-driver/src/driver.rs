//! The driver's loop, one step at a time: compare size and target, move a batch, say when to come back.
//!
//! It asks the kernel for blocks like any driver and gives them to the monitor; or it asks the monitor for blocks of its ledger and
//! frees them. It neither knows nor asks who needs the memory. What the monitor refuses to take stays the guest's; what it refuses
//! to return stays in the ledger. It trusts no reply: a target is bounded by the guest's own floor and its total.
//!
//! The step is pure but for the two traits: [`Monitor`] (the port, or a test) and [`Memory`] (the frame allocator, or a test).

use aerostat_abi::units::{BlockSize, FrameCount};

use crate::batch::Batch;
use crate::rate::Rate;
use crate::sides::{Block as _, Ledger, Memory, Monitor};

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another step at once.
    Continue,
    /// Nothing to do before this moment, or before it is woken.
    Wait {
        /// That moment.
        until_ns: u64,
    },
    /// The target is reached.
    Idle,
}

/// The balloon of one guest.
#[derive(Debug)]
pub struct Driver<L> {
    ledger: L,
    rate: Rate,
    total: FrameCount,
    floor: FrameCount,
    target: FrameCount,
    refused_entries: u64,
}

impl<L: Ledger> Driver<L> {
    /// A driver for a guest of `total` frames that is never to be smaller than `floor`.
    #[must_use]
    pub fn new(ledger: L, rate: Rate, total: FrameCount, floor: FrameCount) -> Self {
        Self { ledger, rate, total, floor, target: total, refused_entries: 0 }
    }

    /// Guest size: what is not in the balloon.
    #[must_use]
    pub fn size(&self) -> FrameCount {
        self.total.saturating_sub(self.balloon())
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

    /// Entries that the monitor refused since boot.
    #[must_use]
    pub fn refused_entries(&self) -> u64 {
        self.refused_entries
    }

    /// Frames per second that the driver allows itself.
    #[must_use]
    pub fn frames_per_s(&self) -> u64 {
        self.rate.frames_per_s()
    }

    /// Looks at the target again.
    pub fn refresh(&mut self, monitor: &mut impl Monitor) {
        if let Some(reply) = monitor.target() {
            self.set_target(reply.target);
        }
    }

    /// Moves at most one batch towards the target.
    pub fn step(
        &mut self,
        monitor: &mut impl Monitor,
        memory: &mut impl Memory<Block = L::Block>,
        now_ns: u64,
    ) -> Next {
        let size = self.size();
        if size > self.target {
            self.inflate(size.saturating_sub(self.target), monitor, memory, now_ns)
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
        memory: &mut impl Memory<Block = L::Block>,
        now_ns: u64,
    ) -> Next {
        let allowed = self.rate.allowance(now_ns);
        let wanted = FrameCount(missing.0.min(allowed.0));
        if wanted == FrameCount::ZERO || (wanted < missing && wanted.0 < BlockSize::Huge.frames()) {
            return Next::Wait { until_ns: self.rate.next_allowance() };
        }
        let mut batch = Batch::new();
        let mut ran_dry = false;
        while batch.frames() < wanted && !batch.is_full() {
            let left = wanted.saturating_sub(batch.frames());
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
            return Next::Wait { until_ns: self.rate.next_allowance() };
        }
        self.rate.succeeded(given);
        Next::Continue
    }

    /// Memory that comes back helps at once and costs nothing until it is touched: no rate applies.
    fn deflate(
        &mut self,
        surplus: FrameCount,
        monitor: &mut impl Monitor,
        memory: &mut impl Memory<Block = L::Block>,
    ) -> Next {
        let mut batch = Batch::new();
        while batch.frames() < surplus && !batch.is_full() {
            let Some(block) = self.ledger.take(surplus.saturating_sub(batch.frames())) else { break };
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

#[cfg(test)]
mod tests;
