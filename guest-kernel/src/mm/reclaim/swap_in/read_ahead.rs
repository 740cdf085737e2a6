//! Reading ahead: while a thread uses what it has read, the disk reads what follows.
//!
//! Where reads follow each other, the next one is begun before anybody asks for it
//! ([`Reclaimer::read_on`]), [`MOST_AHEAD`] at a time, and only into frames that can be spared.
//! What it brings is put into place when the first of its pages is touched, and at that moment the
//! next one begins: so a thread that goes on and on pays for one fault a read, and waits for the
//! disk no longer than the disk is slower than it. (Linux marks a page in the middle of what it has
//! read ahead, `PG_readahead`; here the fault is the mark.)
//!
//! Nobody may ever come. Then what was read is dropped: when reclaim comes by the second time, when
//! the pages' region ends, or when nothing else is left to make free. Nothing is lost: the slots
//! keep what they hold until it is put into place, each slot is looked at again before that, and a
//! read that fails is repeated by whoever really wants the page.

use core::ops::Range;

#[cfg(test)]
use aerostat_abi::units::FrameCount;

use crate::mm::block::BlockSize;
use crate::mm::fault;
#[cfg(test)]
use crate::mm::frame_allocator::Purpose;
use crate::mm::reclaim::swap::disk::{Disk, DiskError, Ticket};
use crate::mm::reclaim::swap::slot_map::SlotNumber;
use crate::mm::reclaim::swap_in::frames::{Caller, Frames};
use crate::mm::reclaim::swap_in::plan::Plan;
use crate::mm::reclaim::{RECLAIMER, Reclaimer};

/// Reads under way, or not come for yet, at most: pages that leave in order do so in two passes of
/// the hand, most of them in the first, so whoever touches them in order follows two streams.
pub(crate) const MOST_AHEAD: usize = 2;

/// A read that nobody waits for so far.
pub(crate) struct Ahead {
    plan: Plan,
    frames: Frames,
    ticket: Ticket,
    /// How it has ended, once it has.
    result: Option<Result<(), DiskError>>,
    /// It was there when reclaim came by the last time.
    is_old: bool,
}

impl core::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ahead")
            .field("first", &self.plan.first)
            .field("count", &self.frames.count)
            .finish_non_exhaustive()
    }
}

impl Ahead {
    /// What to wait for; `None` when the disk has done its part.
    pub(crate) fn under_way(&mut self) -> Option<Ticket> {
        if self.result.is_none() {
            self.result = self.plan.disk.result(self.ticket);
        }
        self.result.is_none().then_some(self.ticket)
    }

    #[cfg(test)]
    pub(crate) fn committed(&self) -> FrameCount {
        let is_committed = self.plan.purpose == Purpose::Committed;
        FrameCount(if is_committed { self.frames.count as u64 } else { 0 })
    }
}

/// Waits for what is read ahead from `slot`, for the page at `at`, and has it put into place;
/// `false` when it is not read ahead.
pub(crate) fn take_in_ahead_for(at: u64, slot: SlotNumber, caller: Caller) -> bool {
    let mut stall = None;
    let mut has_waited = false;
    loop {
        let progress = RECLAIMER.lock().come_for_ahead(at, slot, caller);
        match progress {
            Progress::None => return has_waited,
            Progress::TakenIn => return true,
            Progress::UnderWay(disk, ticket) => {
                stall = stall.or_else(|| caller.stall());
                disk.wait(ticket);
                has_waited = true;
            }
        }
    }
}

/// How far the read of a slot has come.
enum Progress {
    /// It is not read ahead.
    None,
    UnderWay(&'static dyn Disk, Ticket),
    /// It was put into place, unless it could not be read.
    TakenIn,
}

impl Reclaimer {
    /// Begins to read what follows `plan`, if that is likely to be wanted and frames are to spare.
    pub(crate) fn read_on(&mut self, plan: &Plan) {
        if !plan.is_sequential() {
            return;
        }
        if self.aheads.iter().all(Option::is_some) {
            self.pass_aheads();
        }
        if self.aheads.iter().all(Option::is_some) {
            return;
        }
        let Some(plan) = self.plan_behind(plan) else { return };
        let Some(first) = fault::spare_block(BlockSize::Frame, plan.purpose) else { return };
        let Ok(frames) = Frames::with(first, plan.least, plan.count, plan.purpose, Caller::Prefetch) else { return };
        let Some(ticket) = frames.submit_read(plan.disk, plan.first) else { return }; // the disk has enough to do
        if let Some(place) = self.aheads.iter_mut().find(|place| place.is_none()) {
            *place = Some(Ahead { plan, frames, ticket, result: None, is_old: false });
        }
    }

    fn come_for_ahead(&mut self, at: u64, slot: SlotNumber, caller: Caller) -> Progress {
        let Some(place) = self.ahead_of(slot) else { return Progress::None };
        if let Some(ahead) = &mut self.aheads[place]
            && let Some(ticket) = ahead.under_way()
        {
            return Progress::UnderWay(ahead.plan.disk, ticket);
        }
        let Some(mut ahead) = self.aheads[place].take() else { return Progress::None };
        if ahead.result == Some(Ok(())) {
            self.read_on(&ahead.plan); // the disk is to have work meanwhile
            // A group that is not what was written is found out by whoever reads it for himself.
            let _ = self.take_in(&ahead.plan, &mut ahead.frames, (caller == Caller::Fault).then_some(at));
        }
        Progress::TakenIn
    }

    /// Whether what begins in a slot is being read already.
    pub(crate) fn is_read_ahead(&self, slot: SlotNumber) -> bool {
        self.ahead_of(slot).is_some()
    }

    fn ahead_of(&self, slot: SlotNumber) -> Option<usize> {
        let (_, version) = self.swap_disk.as_ref()?.slots.kept(slot)?;
        self.aheads.iter().position(|ahead| ahead.as_ref().is_some_and(|ahead| ahead.plan.includes(slot, version)))
    }

    /// Looks which reads have ended: their places in the disk's queue are free for others then.
    pub(crate) fn settle_aheads(&mut self) {
        self.aheads.iter_mut().flatten().for_each(|ahead| _ = ahead.under_way());
    }

    /// Somebody needs the room: nobody has come for what was there the last time already.
    pub(crate) fn pass_aheads(&mut self) {
        self.drop_aheads(|ahead| ahead.is_old);
        self.aheads.iter_mut().flatten().for_each(|ahead| ahead.is_old = true);
    }

    /// What is read ahead for pages in `pages` is not wanted any more.
    pub(crate) fn cancel_aheads(&mut self, pages: &Range<u64>) {
        self.drop_aheads(|ahead| {
            let is_vain = ahead.plan.concerns(pages);
            ahead.is_old |= is_vain;
            is_vain
        });
    }

    /// Gives up what is read ahead. Where the disk still works on some of it: what to wait for.
    pub(crate) fn give_up_aheads(&mut self) -> Option<Ticket> {
        let under_way = self.aheads.iter_mut().flatten().find_map(Ahead::under_way);
        self.drop_aheads(|_| true);
        under_way
    }

    /// Gives the frames back that were read into ahead in vain, unless the disk still has them.
    fn drop_aheads(&mut self, mut is_vain: impl FnMut(&mut Ahead) -> bool) {
        for place in &mut self.aheads {
            if let Some(ahead) = place.take_if(|ahead| is_vain(ahead) && ahead.under_way().is_none()) {
                self.dropped_ahead += ahead.frames.count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests;
