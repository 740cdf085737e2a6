//! Deflating: no rate applies, as the memory helps at once and costs nothing until it is touched.

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::units::FrameCount;

use super::{Driver, Next, Step, refusal};
use crate::pace::Direction;
use crate::sides::{Block as _, Memory, Monitor, PageList};

impl<L: PageList> Driver<L> {
    /// Deflates one batch of the `surplus` frames that the guest is below its target.
    pub(super) fn deflate(
        &mut self,
        surplus: FrameCount,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) -> Next {
        let before_ns = step.memory.now_ns();
        if let Some(until_ns) = self.deflate_backoff.pending(before_ns) {
            return Next::Wait { until_ns };
        }
        self.add_ballooned_blocks(surplus, before_ns, step);
        if step.batch.is_empty() {
            // The monitor counts more frames as ballooned than the page list has.
            self.session.list_again();
            return Next::Continue;
        }
        self.deflate_batch(before_ns, step)
    }

    /// Fills the batch with blocks of the page list. All have the size of the first one that fits,
    /// and there are as many as fit the burst.
    fn add_ballooned_blocks(
        &mut self,
        surplus: FrameCount,
        now_ns: u64,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) {
        let mut most = 1;
        while step.batch.len() < most {
            let Some(block) = self.page_list.remove(surplus.saturating_sub(step.batch.frames())) else { return };
            if step.batch.is_empty() {
                most = self.pace.max_blocks(Direction::Deflate, block.size(), now_ns);
            } else if block.size() != step.batch.size() {
                return self.page_list.insert(block);
            }
            step.batch.push(block);
        }
    }

    /// Deflates the batch.
    fn deflate_batch(
        &mut self,
        before_ns: u64,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) -> Next {
        let (size, count) = (step.batch.size(), step.batch.len());
        let reply = step.monitor.deflate(step.batch.entries());
        let mut deflated = 0;
        step.batch.settle(reply, |block, status| {
            if status == EntryStatus::Done {
                deflated += 1;
                step.memory.free_unbacked(block);
            } else {
                self.metrics.note_refusal(status);
                self.page_list.insert(block);
            }
        });
        let now_ns = step.memory.now_ns();
        self.pace.note(Direction::Deflate, size, count, now_ns.saturating_sub(before_ns));
        self.note_reply(reply, now_ns);
        if !self.session.is_open() {
            return Next::Continue;
        }
        if deflated == 0 && self.size() >= self.target() {
            return Next::Continue; // refused because the host lowered the target
        }
        if deflated == 0 {
            let until_ns = self.deflate_backoff.failed(now_ns);
            return self.wait(refusal(reply), until_ns);
        }
        self.deflate_backoff.succeeded();
        self.session.succeeded();
        self.progress(now_ns)
    }
}
