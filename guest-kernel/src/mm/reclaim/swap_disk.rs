//! The disk tier of swap: what leaves memory is gathered into clusters and written, several at a time.
//!
//! A frame that leaves stays where it is until its cluster is written: a page that is touched meanwhile is simply mapped again
//! ([`SwapDisk::cancel`]), and one that could not be written has never been away. A cluster that fails is written again slot by slot;
//! slots that fail alone are taken out of use. So the way out of memory allocates nothing, copies nothing, and loses nothing.

use core::ops::Range;

use aerostat_abi::units::{FrameCount, FrameNumber};

use super::disk::{Direction, Disk, DiskError, Ticket};
use super::slot_map::{GROUP, Kept, SlotMap, SlotNumber};
use crate::mm::FRAMES;

/// Clusters being written at once: the disk always has the next one at hand.
const MAX_WRITES: usize = 4;

/// What a frame that leaves holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaver {
    /// The page at this address; its translation is revoked.
    Page(u64),
    /// A frame of the compressed tier.
    TierFrame,
    /// Nothing any more: it was needed again.
    Nobody,
}

/// A frame whose write has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) leaver: Leaver,
    pub(crate) frame: FrameNumber,
    /// Where it is now; `None` when it could not be written.
    pub(crate) slot: Option<SlotNumber>,
}

/// Frames that leave together.
#[derive(Debug)]
struct Cluster {
    leavers: [Leaver; GROUP],
    frames: [FrameNumber; GROUP],
    count: usize,
}

impl Cluster {
    const EMPTY: Self = Self { leavers: [Leaver::Nobody; GROUP], frames: [FrameNumber(0); GROUP], count: 0 };

    /// Takes the first `count` frames out.
    fn split_off(&mut self, count: usize) -> Self {
        let mut first = Self::EMPTY;
        first.leavers[..count].copy_from_slice(&self.leavers[..count]);
        first.frames[..count].copy_from_slice(&self.frames[..count]);
        first.count = count;
        self.leavers.copy_within(count..self.count, 0);
        self.frames.copy_within(count..self.count, 0);
        self.count -= count;
        first
    }

    fn cancel(&mut self, pages: &Range<u64>) {
        for leaver in &mut self.leavers[..self.count] {
            if matches!(leaver, Leaver::Page(page) if pages.contains(page)) {
                *leaver = Leaver::Nobody;
            }
        }
    }
}

/// A cluster on its way.
#[derive(Debug)]
struct Write {
    cluster: Cluster,
    first: SlotNumber,
    /// `None` when the disk was too busy: to be tried again.
    ticket: Option<Ticket>,
    /// Frames dealt with.
    done: usize,
    /// All of it is written at once, or, after that has failed, one slot after the other.
    is_whole: bool,
    /// The result of what the ticket was for, once known.
    result: Option<Result<(), DiskError>>,
}

/// What the disk tier has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskStatistics {
    /// Slots that there are, and that are taken.
    pub(crate) slots: u64,
    pub(crate) used_slots: u64,
    /// Slots written and read since boot.
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    /// Transfers that failed.
    pub(crate) errors: u64,
}

/// The disk tier.
pub(crate) struct SwapDisk {
    pub(crate) disk: &'static dyn Disk,
    pub(crate) slots: SlotMap,
    open: Cluster,
    writes: [Option<Write>; MAX_WRITES],
    written: u64,
    pub(crate) read: u64,
    pub(crate) errors: u64,
}

impl core::fmt::Debug for SwapDisk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SwapDisk").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

impl SwapDisk {
    pub(crate) fn new(disk: &'static dyn Disk, slots: SlotMap) -> Self {
        let writes = [const { None }; MAX_WRITES];
        Self { disk, slots, open: Cluster::EMPTY, writes, written: 0, read: 0, errors: 0 }
    }

    pub(crate) fn statistics(&self) -> DiskStatistics {
        DiskStatistics {
            slots: self.slots.capacity() as u64,
            used_slots: self.slots.used() as u64,
            writes: self.written,
            reads: self.read,
            errors: self.errors,
        }
    }

    /// Frames on their way to the disk.
    pub(crate) fn leaving(&self) -> usize {
        self.open.count + self.writes.iter().flatten().map(|write| write.cluster.count - write.done).sum::<usize>()
    }

    /// Whether another frame can be staged now.
    pub(crate) fn has_room(&self) -> bool {
        self.open.count < GROUP
    }

    /// The same, after the disk has been given what it can take.
    pub(crate) fn make_room(&mut self) -> bool {
        if !self.has_room() {
            self.submit();
        }
        self.has_room()
    }

    /// Adds a frame to the cluster that is written next, and starts with that when it is full. The caller has seen that there is
    /// room.
    pub(crate) fn stage(&mut self, leaver: Leaver, frame: FrameNumber) {
        let place = self.open.count;
        self.open.leavers[place] = leaver;
        self.open.frames[place] = frame;
        self.open.count += 1;
        if !self.has_room() {
            self.submit();
        }
    }

    /// Starts to write what is staged, as far as the disk has slots and can take it now.
    pub(crate) fn submit(&mut self) {
        while self.open.count > 0
            && let Some(write) = self.writes.iter_mut().find(|write| write.is_none())
        {
            let Some((first, length)) = self.slots.take_run(self.open.count) else { return };
            let cluster = self.open.split_off(length);
            let mut started = Write { cluster, first, ticket: None, done: 0, is_whole: true, result: None };
            started.start(self.disk);
            *write = Some(started);
        }
    }

    /// Staged frames that no slot could be found for, one at a time: they stay.
    pub(crate) fn unstage(&mut self) -> Option<Finished> {
        self.open.count = self.open.count.checked_sub(1)?;
        let (leaver, frame) = (self.open.leavers[self.open.count], self.open.frames[self.open.count]);
        Some(Finished { leaver, frame, slot: None })
    }

    /// Pages of `pages` that were to leave are to stay.
    pub(crate) fn cancel(&mut self, pages: &Range<u64>) {
        self.open.cancel(pages);
        for write in self.writes.iter_mut().flatten() {
            write.cluster.cancel(pages);
        }
    }

    /// The next frame whose write has ended, if there is one. The caller says of each whether it has really left
    /// ([`SlotMap::keep`]), or gives its slot back.
    pub(crate) fn next_finished(&mut self) -> Option<Finished> {
        for place in &mut self.writes {
            let Some(write) = place else { continue };
            if write.done == write.cluster.count {
                *place = None;
                continue;
            }
            match write.advance(self.disk) {
                Step::UnderWay => {}
                Step::Failed => self.errors += 1,
                Step::Finished(mut finished) => {
                    match finished.slot {
                        Some(_) => self.written += 1,
                        None => self.errors += 1,
                    }
                    if finished.slot.is_none() {
                        self.slots.lose(write.first.plus(write.done - 1));
                        FRAMES.remove_credit(FrameCount(1));
                    } else if finished.leaver == Leaver::Nobody {
                        self.slots.give_back(write.first.plus(write.done - 1));
                        finished.slot = None;
                    }
                    return Some(finished);
                }
            }
        }
        None
    }

    /// Whether something is being written: waiting makes sense.
    pub(crate) fn is_writing(&self) -> bool {
        self.writes.iter().any(Option::is_some)
    }

    /// Notes what a slot was written with.
    pub(crate) fn keep(&mut self, slot: SlotNumber, kept: Kept) {
        self.slots.keep(slot, kept);
    }
}

/// How far a write has come.
enum Step {
    UnderWay,
    /// A cluster failed, and is written again slot by slot.
    Failed,
    Finished(Finished),
}

impl Write {
    /// Hands the next part to the disk.
    fn start(&mut self, disk: &dyn Disk) {
        let end = if self.is_whole { self.cluster.count } else { self.done + 1 };
        let frames = &self.cluster.frames[self.done..end];
        self.ticket = disk.submit(Direction::Write, self.first.plus(self.done), frames);
    }

    fn advance(&mut self, disk: &dyn Disk) -> Step {
        if self.result.is_none() {
            match self.ticket {
                None => self.start(disk),
                Some(ticket) => self.result = disk.result(ticket),
            }
        }
        match self.result {
            None => Step::UnderWay,
            Some(Err(DiskError)) if self.is_whole && self.cluster.count > 1 => {
                (self.is_whole, self.ticket, self.result) = (false, None, None);
                self.start(disk);
                Step::Failed
            }
            Some(result) => {
                let place = self.done;
                self.done += 1;
                if !self.is_whole && self.done < self.cluster.count {
                    (self.ticket, self.result) = (None, None);
                    self.start(disk);
                }
                let slot = result.is_ok().then(|| self.first.plus(place));
                let (leaver, frame) = (self.cluster.leavers[place], self.cluster.frames[place]);
                Step::Finished(Finished { leaver, frame, slot })
            }
        }
    }
}
