//! Inflating: the cheapest memory goes first.
//!
//! Whole huge frames come first, then huge frames that become whole by moving pages where that is
//! cheaper, then those that become whole by evicting pages, then single frames, for which the guest
//! may have to evict pages, too. The driver stops at
//! once while a thread of the guest waits for memory, and for some time after that.

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::units::{BlockSize, FrameCount, HUGE_FRAMES, to_usize};

use super::{Driver, Next, Step, refusal};
use crate::gate::Permit;
use crate::pace::Direction;
use crate::sides::{Memory, Monitor, PageList, Room};
use crate::state::StallReason;

/// The most huge frames that one compaction makes whole.
const COMPACTED_AT_ONCE: usize = 32;

impl<L: PageList> Driver<L> {
    /// Inflates one batch of the `missing` frames.
    pub(super) fn inflate(
        &mut self,
        missing: FrameCount,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) -> Next {
        let now_ns = step.memory.now_ns();
        if step.memory.has_waiters() {
            self.gate.hold(now_ns);
        }
        let wanted = match self.gate.permit(missing, now_ns) {
            Permit::Inflate(wanted) => wanted,
            Permit::Wait { until_ns, reason: None } => return Next::Wait { until_ns },
            Permit::Wait { until_ns, reason: Some(reason) } => return self.wait(reason, until_ns),
        };
        self.add_huge_frames(wanted, step);
        if step.batch.is_empty()
            && wanted.0 >= HUGE_FRAMES
            && let Some(next) = self.assemble(wanted, step)
        {
            return next;
        }
        let shortfall = if step.batch.is_empty() { self.add_single_frames(wanted, step) } else { None };
        self.inflate_batch(shortfall, step)
    }

    /// Adds whole huge frames to the batch: at most `wanted` frames, what fits the burst, and what
    /// is free.
    fn add_huge_frames(
        &mut self,
        wanted: FrameCount,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) {
        let most = self.most_huge_frames(wanted, step.memory.now_ns());
        while step.batch.len() < most {
            let mut block = step.memory.allocate(BlockSize::Huge);
            if block.is_none() && step.batch.is_empty() {
                block = self.compact(most, step.memory);
            }
            let Some(block) = block else { return };
            step.batch.push(block);
        }
    }

    /// Returns how many huge frames a batch may have: at most `wanted` frames, and what fits the
    /// burst.
    fn most_huge_frames(&self, wanted: FrameCount, now_ns: u64) -> usize {
        let most = to_usize(wanted.0 / HUGE_FRAMES);
        most.min(self.pace.max_blocks(Direction::Inflate, BlockSize::Huge, now_ns))
    }

    /// Makes up to `wanted` huge frames whole by moving pages, where that is cheaper than single
    /// frames, and returns one of them.
    fn compact<G: Memory<Block = L::Block>>(&mut self, wanted: usize, memory: &mut G) -> Option<L::Block> {
        let now_ns = memory.now_ns();
        if !self.compaction.is_due(now_ns) {
            return None;
        }
        let estimate = memory.compactable(wanted.min(COMPACTED_AT_ONCE));
        if !self.compaction.is_worth_it(estimate, &self.pace) {
            return None;
        }
        let gained = memory.compact(estimate.huge_frames);
        let after_ns = memory.now_ns();
        self.compaction.note(estimate, gained, after_ns.saturating_sub(now_ns), after_ns);
        self.metrics.compacted += gained as u64;
        memory.allocate(BlockSize::Huge)
    }

    /// Evicts pages until huge frames are whole, and adds these to the batch: at most `wanted`
    /// frames, and what fits the burst. Returns the end of the step if it ends before the first is
    /// whole.
    fn assemble(
        &mut self,
        wanted: FrameCount,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) -> Option<Next> {
        let most = self.most_huge_frames(wanted, step.memory.now_ns());
        while step.batch.len() < most {
            let began_ns = step.memory.now_ns();
            if !self.assembly.is_due(began_ns) {
                return None;
            }
            if step.memory.has_waiters() {
                self.gate.hold(began_ns);
            }
            if let Some(until_ns) = self.gate.held_until(began_ns) {
                return step.batch.is_empty().then(|| self.wait(StallReason::GuestWaiting, until_ns));
            }
            if step.memory.make_room(BlockSize::Huge) != Room::Made {
                return None;
            }
            let block = step.memory.allocate(BlockSize::Huge);
            let now_ns = step.memory.now_ns();
            match block {
                Some(block) => {
                    self.assembly.note_whole();
                    self.metrics.assembled += 1;
                    step.batch.push(block);
                }
                None => self.assembly.note_attempt(now_ns),
            }
            // Another attempt takes time, and so does the batch.
            let batch_ns = self.pace.batch_ns(Direction::Inflate, BlockSize::Huge, step.batch.len() + 1);
            let needed_ns = now_ns.saturating_sub(began_ns).saturating_add(batch_ns);
            if self.pace.left_ns(now_ns) < needed_ns {
                self.stall_reason = None;
                return step.batch.is_empty().then_some(Next::Rest);
            }
        }
        None
    }

    /// Adds single frames to the batch: at most `wanted`, and what fits the burst. Returns the
    /// reason if it found too few.
    fn add_single_frames(
        &mut self,
        wanted: FrameCount,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) -> Option<StallReason> {
        let most = self.pace.max_blocks(Direction::Inflate, BlockSize::Frame, step.memory.now_ns());
        let most = most.min(to_usize(wanted.0));
        let mut room_ns = 0;
        while step.batch.len() < most {
            if let Some(block) = step.memory.allocate(BlockSize::Frame) {
                step.batch.push(block);
                continue;
            }
            // Making room takes time, and the burst must have time left to inflate the batch.
            let began_ns = step.memory.now_ns();
            let needed_ns = room_ns + self.pace.batch_ns(Direction::Inflate, BlockSize::Frame, step.batch.len());
            if !step.batch.is_empty() && self.pace.left_ns(began_ns) < needed_ns {
                break;
            }
            if step.memory.has_waiters() {
                self.gate.hold(began_ns);
            }
            if self.gate.held_until(began_ns).is_some() {
                return Some(StallReason::GuestWaiting);
            }
            let shortfall = match step.memory.make_room(BlockSize::Frame) {
                Room::Made => StallReason::NoMemory, // another thread may have been faster
                Room::Thrashing => StallReason::Thrashing,
                Room::Nothing => StallReason::NoMemory,
            };
            room_ns = step.memory.now_ns().saturating_sub(began_ns);
            let Some(block) = step.memory.allocate(BlockSize::Frame) else {
                self.metrics.allocation_failures += 1;
                return Some(shortfall);
            };
            step.batch.push(block);
        }
        None
    }

    /// Inflates the batch. `shortfall` is the reason why it is shorter than permitted, if it is.
    fn inflate_batch(
        &mut self,
        shortfall: Option<StallReason>,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) -> Next {
        let before_ns = step.memory.now_ns();
        let (size, count) = (step.batch.size(), step.batch.len());
        let reply = if step.batch.is_empty() { None } else { step.monitor.inflate(step.batch.entries()) };
        let mut inflated = FrameCount::ZERO;
        step.batch.settle(reply, |block, status| {
            if status == EntryStatus::Done {
                inflated = inflated.saturating_add(FrameCount(size.frames()));
                self.page_list.insert(block);
            } else {
                self.metrics.note_refusal(status);
                step.memory.free(block);
            }
        });
        let now_ns = step.memory.now_ns();
        self.pace.note(Direction::Inflate, size, count, now_ns.saturating_sub(before_ns));
        self.gate.spend(inflated);
        if count > 0 {
            self.note_reply(reply, now_ns);
        }
        if !self.session.is_open() {
            return Next::Continue;
        }
        let failure = if inflated == FrameCount::ZERO { shortfall.or(Some(refusal(reply))) } else { shortfall };
        if let Some(stall_reason) = failure {
            let until_ns = self.gate.failed(now_ns);
            return self.wait(stall_reason, until_ns);
        }
        self.gate.succeeded();
        self.session.succeeded();
        self.progress(now_ns)
    }
}
