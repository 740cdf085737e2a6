//! The disk compressed pool of swap: what leaves memory is gathered into clusters and written,
//! several at a time.
//!
//! A frame that leaves stays where it is until its cluster is written: a page that is touched
//! meanwhile is simply mapped again ([`SwapDisk::cancel`]), and one that could not be written has
//! never been away. A cluster that fails is written again page by page, a group of the compressed
//! pool counting as one; slots that fail then are taken out of use. When as many in a row fail as a
//! cluster has, the disk is full or broken, and all its free slots are taken out of use: nobody is
//! to be committed what it can't take. So the way out of memory allocates nothing, copies nothing,
//! and loses nothing.

use core::ops::Range;

use allocator_api2::boxed::Box;

use aerostat_abi::units::{FrameCount, FrameNumber};

use crate::mm::reclaim::swap::disk::{Direction, Disk, DiskError, Ticket};
use crate::mm::reclaim::swap::slot_map::{CLUSTER, SlotMap, SlotNumber};
use crate::mm::{FRAMES, KernelHeap};

/// Clusters being written at once: the disk always has the next one at hand.
const MAX_WRITES: usize = 4;

/// What a frame that leaves holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaver {
    /// The page at this address; its translation is revoked.
    Page(u64),
    /// The first frame of a group of the compressed pool.
    Zspage,
    /// Another frame of the group before it.
    RestOfZspage,
    /// Nothing any more: it was needed again.
    Nobody,
}

/// A page or group whose write has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) leaver: Leaver,
    /// Its first frame, and how many there are.
    pub(crate) frame: FrameNumber,
    pub(crate) count: usize,
    /// Where it is now; `None` when it could not be written.
    pub(crate) slot: Option<SlotNumber>,
}

/// Frames that leave together.
#[derive(Debug)]
struct Cluster {
    leavers: [Leaver; CLUSTER],
    frames: [FrameNumber; CLUSTER],
    count: usize,
}

impl Cluster {
    const EMPTY: Self = Self { leavers: [Leaver::Nobody; CLUSTER], frames: [FrameNumber(0); CLUSTER], count: 0 };

    /// Moves the first `count` frames to `other`, in place of what is there.
    fn move_to(&mut self, other: &mut Self, count: usize) {
        other.leavers[..count].copy_from_slice(&self.leavers[..count]);
        other.frames[..count].copy_from_slice(&self.frames[..count]);
        other.count = count;
        self.leavers.copy_within(count..self.count, 0);
        self.frames.copy_within(count..self.count, 0);
        self.count -= count;
    }

    /// How many frames from `place` on belong together.
    fn unit(&self, place: usize) -> usize {
        let rest = self.leavers[place + 1..self.count].iter().take_while(|leaver| **leaver == Leaver::RestOfZspage);
        1 + rest.count()
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
    /// Empty while nothing is being written.
    cluster: Cluster,
    first: SlotNumber,
    /// `None` when the disk was too busy: to be tried again.
    ticket: Option<Ticket>,
    /// Frames dealt with.
    done: usize,
    /// All of it is written at once, or, after that has failed, one page or group after the other.
    is_whole: bool,
    /// The result of what the ticket was for, once known.
    result: Option<Result<(), DiskError>>,
}

/// What is on its way: the cluster that is being gathered, and those that are being written.
#[derive(Debug)]
struct Queue {
    open: Cluster,
    writes: [Write; MAX_WRITES],
}

/// What the disk compressed pool has done and holds.
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

/// The disk compressed pool.
pub(crate) struct SwapDisk {
    pub(crate) disk: &'static dyn Disk,
    pub(crate) slots: SlotMap,
    /// Too large to be moved about on stacks.
    queue: Box<Queue, KernelHeap>,
    written: u64,
    pub(crate) read: u64,
    pub(crate) errors: u64,
    /// Slots whose writes failed since the last that did not.
    failed_in_a_row: usize,
}

impl core::fmt::Debug for SwapDisk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SwapDisk").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

impl SwapDisk {
    /// The compressed pool on `disk`; `None` when the kernel heap has no room for it.
    pub(crate) fn new(disk: &'static dyn Disk, slots: SlotMap) -> Option<Self> {
        let queue = Queue { open: Cluster::EMPTY, writes: [const { Write::NONE }; MAX_WRITES] };
        let queue = Box::try_new_in(queue, KernelHeap).ok()?;
        Some(Self { disk, slots, queue, written: 0, read: 0, errors: 0, failed_in_a_row: 0 })
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
        self.queue.open.count + self.queue.writes.iter().map(|write| write.cluster.count - write.done).sum::<usize>()
    }

    /// Whether `count` more frames can be staged now: there is a free slot for each of those that
    /// are.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        self.queue.open.count + count <= CLUSTER.min(self.slots.free())
    }

    /// The same, after the disk has been given what it can take.
    pub(crate) fn make_room(&mut self, count: usize) -> bool {
        if !self.has_room(count) {
            self.submit();
        }
        self.has_room(count)
    }

    /// Adds frames that belong together to the cluster that is written next, and starts with that
    /// when it is full. The caller has seen that there is room.
    pub(crate) fn stage(&mut self, leaver: Leaver, frames: &[FrameNumber]) {
        let open = &mut self.queue.open;
        for (place, frame) in frames.iter().enumerate() {
            open.leavers[open.count] = if place == 0 { leaver } else { Leaver::RestOfZspage };
            open.frames[open.count] = *frame;
            open.count += 1;
        }
        if self.queue.open.count == CLUSTER {
            self.submit();
        }
    }

    /// Starts to write what is staged, as far as the disk has slots and can take it now.
    pub(crate) fn submit(&mut self) {
        let Queue { open, writes } = &mut *self.queue;
        while open.count > 0
            && let Some(write) = writes.iter_mut().find(|write| write.cluster.count == 0)
        {
            let Some((first, length)) = self.slots.take_run(open.count) else { return };
            let mut used = length;
            while used < open.count && used > 0 && open.leavers[used] == Leaver::RestOfZspage {
                used -= 1; // a group is not torn apart
            }
            (used..length).for_each(|place| self.slots.free_slot(first.plus(place)));
            if used == 0 {
                return;
            }
            open.move_to(&mut write.cluster, used);
            (write.first, write.done, write.is_whole, write.result) = (first, 0, true, None);
            write.start(self.disk);
        }
    }

    /// What is staged and no slot could be found for, one page or group at a time: it stays.
    pub(crate) fn unstage(&mut self) -> Option<Finished> {
        let mut count = 0;
        loop {
            self.queue.open.count = self.queue.open.count.checked_sub(1)?;
            count += 1;
            let (leaver, frame) =
                (self.queue.open.leavers[self.queue.open.count], self.queue.open.frames[self.queue.open.count]);
            if leaver != Leaver::RestOfZspage {
                return Some(Finished { leaver, frame, count, slot: None });
            }
        }
    }

    /// Pages of `pages` that were to leave are to stay.
    pub(crate) fn cancel(&mut self, pages: &Range<u64>) {
        self.queue.open.cancel(pages);
        for write in &mut self.queue.writes {
            write.cluster.cancel(pages);
        }
    }

    /// The next page or group whose write has ended, if there is one. The caller says of each what
    /// its slot holds now ([`SlotMap::keep`]), or gives that back.
    pub(crate) fn next_finished(&mut self) -> Option<Finished> {
        for write in &mut self.queue.writes {
            if write.done == write.cluster.count {
                (write.cluster.count, write.done) = (0, 0);
                continue;
            }
            match write.advance(self.disk) {
                Step::UnderWay => {}
                Step::Failed => self.errors += 1,
                Step::Finished(mut finished, slots) => {
                    let slots = (0..finished.count).map(|place| slots.plus(place));
                    if finished.slot.is_none() {
                        self.errors += 1;
                        slots.for_each(|slot| self.slots.lose(slot));
                        let mut lost = finished.count;
                        self.failed_in_a_row += finished.count;
                        if self.failed_in_a_row >= CLUSTER {
                            lost += self.slots.lose_free();
                        }
                        FRAMES.remove_headroom(FrameCount(lost as u64));
                    } else {
                        self.failed_in_a_row = 0;
                        self.written += finished.count as u64;
                        if finished.leaver == Leaver::Nobody {
                            slots.for_each(|slot| self.slots.free_slot(slot));
                            finished.slot = None;
                        }
                    }
                    return Some(finished);
                }
            }
        }
        None
    }

    /// Whether something is being written.
    pub(crate) fn is_writing(&self) -> bool {
        self.queue.writes.iter().any(|write| write.cluster.count > 0)
    }

    /// Something that is being written, to be waited for.
    pub(crate) fn a_write(&self) -> Option<Ticket> {
        self.queue.writes.iter().filter(|write| write.cluster.count > 0).find_map(|write| write.ticket)
    }
}

/// How far a write has come.
enum Step {
    UnderWay,
    /// A cluster failed, and is written again page by page.
    Failed,
    /// A page or group is done with, and these are its slots.
    Finished(Finished, SlotNumber),
}

impl Write {
    const NONE: Self =
        Self { cluster: Cluster::EMPTY, first: SlotNumber(0), ticket: None, done: 0, is_whole: true, result: None };

    /// Hands the next part to the disk.
    fn start(&mut self, disk: &dyn Disk) {
        let end = if self.is_whole { self.cluster.count } else { self.done + self.cluster.unit(self.done) };
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
            Some(Err(DiskError)) if self.is_whole && self.cluster.count > self.cluster.unit(0) => {
                (self.is_whole, self.ticket, self.result) = (false, None, None);
                self.start(disk);
                Step::Failed
            }
            Some(result) => {
                let place = self.done;
                let count = self.cluster.unit(place);
                self.done += count;
                if !self.is_whole && self.done < self.cluster.count {
                    (self.ticket, self.result) = (None, None);
                    self.start(disk);
                }
                let slots = self.first.plus(place);
                let (leaver, frame) = (self.cluster.leavers[place], self.cluster.frames[place]);
                Step::Finished(Finished { leaver, frame, count, slot: result.is_ok().then_some(slots) }, slots)
            }
        }
    }
}
