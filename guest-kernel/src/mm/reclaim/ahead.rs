//! Reading ahead: while a thread uses what it has read, the disk reads what follows.
//!
//! Where reads follow each other, the next one is begun before anybody asks for it ([`Reclaimer::read_on`]), at most one at a time,
//! and only into frames that can be spared. What it brings is put into place when the first of its pages is touched, and at that
//! moment the next one begins: so a thread that goes on and on pays for one fault a read, and waits for the disk no longer than the disk
//! is slower than it. (Linux marks a page in the middle of what it has read ahead, `PG_readahead`; here the fault is the mark.)
//!
//! Nobody may ever come. Then what was read is dropped: when reclaim comes by the second time, when the pages' region ends, or when
//! nothing else is left to make free. Nothing is lost: the slots keep what they hold until it is put into place, each slot is
//! looked at again before that, and a read that fails is repeated by whoever really wants the page.

use core::ops::Range;

#[cfg(test)]
use aerostat_abi::units::FrameCount;

use super::disk::{Disk, DiskError, Ticket};
use super::incoming::{Caller, Frames};
use super::plan::Plan;
use super::slot_map::SlotNumber;
use super::{RECLAIMER, Reclaimer};
use crate::mm::block::BlockSize;
use crate::mm::fault;
#[cfg(test)]
use crate::mm::frame_allocator::Purpose;

/// A read that nobody waits for so far.
pub(super) struct Ahead {
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
        f.debug_struct("Ahead").field("first", &self.plan.first).field("count", &self.frames.count).finish_non_exhaustive()
    }
}

impl Ahead {
    /// What to wait for; `None` when the disk has done its part.
    pub(super) fn under_way(&mut self) -> Option<Ticket> {
        if self.result.is_none() {
            self.result = self.plan.disk.result(self.ticket);
        }
        self.result.is_none().then_some(self.ticket)
    }

    #[cfg(test)]
    pub(super) fn promised(&self) -> FrameCount {
        let is_promised = self.plan.purpose == Purpose::Promised;
        FrameCount(if is_promised { self.frames.count as u64 } else { 0 })
    }
}

/// Waits for what is read ahead from `slot`, for the page at `at`, and has it put into place; `false` when it is not read ahead.
pub(super) fn take_in_ahead_for(at: u64, slot: SlotNumber, caller: Caller) -> bool {
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
    pub(super) fn read_on(&mut self, plan: &Plan) {
        if let Some(other) = &mut self.ahead {
            if other.under_way().is_some() {
                return;
            }
            self.drop_ahead(); // whoever wanted it reads elsewhere now
        }
        let Some(plan) = self.plan_behind(plan) else { return };
        let Some(first) = fault::spare_block(BlockSize::Frame, plan.purpose) else { return };
        let Ok(frames) = Frames::with(first, plan.least, plan.count, plan.purpose, Caller::Prefetch) else { return };
        let Some(ticket) = frames.submit_read(plan.disk, plan.first) else { return }; // the disk has enough to do
        self.ahead = Some(Ahead { plan, frames, ticket, result: None, is_old: false });
    }

    fn come_for_ahead(&mut self, at: u64, slot: SlotNumber, caller: Caller) -> Progress {
        let Some(swap) = &self.swap_disk else { return Progress::None };
        let Some((_, version)) = swap.slots.kept(slot) else { return Progress::None };
        let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.plan.includes(slot, version)) else {
            return Progress::None;
        };
        if let Some(ticket) = ahead.under_way() {
            return Progress::UnderWay(ahead.plan.disk, ticket);
        }
        if let Some(Ahead { plan, mut frames, result: Some(Ok(())), .. }) = self.ahead.take() {
            self.read_on(&plan); // the disk is to have work meanwhile
            // A group that is not what was written is found out by whoever reads it for himself.
            let _ = self.take_in(&plan, &mut frames, (caller == Caller::Fault).then_some(at));
        }
        Progress::TakenIn
    }

    /// Reclaim comes by: nobody has come for what was there the last time already.
    pub(super) fn pass_ahead(&mut self) {
        if let Some(ahead) = &mut self.ahead
            && !core::mem::replace(&mut ahead.is_old, true)
        {
            return;
        }
        self.drop_ahead();
    }

    /// What is read ahead for pages in `pages` is not wanted any more.
    pub(super) fn cancel_ahead(&mut self, pages: &Range<u64>) {
        if let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.plan.concerns(pages)) {
            ahead.is_old = true;
            self.drop_ahead();
        }
    }

    /// Gives the frames back that were read into ahead, unless the disk still has them.
    pub(super) fn drop_ahead(&mut self) {
        if self.ahead.as_mut().is_some_and(|ahead| ahead.under_way().is_none())
            && let Some(Ahead { frames, .. }) = self.ahead.take()
        {
            self.dropped_ahead += frames.count as u64;
        }
    }
}
