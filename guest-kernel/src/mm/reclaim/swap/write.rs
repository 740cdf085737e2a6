//! Writes to the swap disk: clusters of frames, and how far their writes have come.

use core::ops::Range;

use aerostat_abi::units::FrameNumber;

use super::compressed_pool::Writeback;
use super::disk::{Direction, Disk, DiskError, Ticket};
use super::slot_map::{CLUSTER, SlotNumber};

/// What a frame on its way to the disk holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// The page at this address, whose translation is revoked.
    Page(u64),
    /// The first frame of a zspage.
    Zspage(Writeback),
    /// Another frame of the zspage before it.
    RestOfZspage,
    /// A page that is needed again, or whose region has ended.
    Cancelled,
}

/// A page or zspage whose write has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) outgoing: Outgoing,
    /// How many frames it has.
    pub(crate) frames: usize,
    /// Its first slot; `None` when it could not be written.
    pub(crate) slot: Option<SlotNumber>,
}

/// Frames that are written together.
#[derive(Debug)]
pub(super) struct Cluster {
    outgoing: [Outgoing; CLUSTER],
    frames: [FrameNumber; CLUSTER],
    count: usize,
}

impl Cluster {
    pub(super) const EMPTY: Self =
        Self { outgoing: [const { Outgoing::Cancelled }; CLUSTER], frames: [FrameNumber(0); CLUSTER], count: 0 };

    /// Returns how many frames the cluster has.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds a page or a zspage.
    pub(super) fn push(&mut self, outgoing: Outgoing, frames: &[FrameNumber]) {
        self.outgoing[self.count] = outgoing;
        for (place, frame) in (self.count..).zip(frames) {
            self.frames[place] = *frame;
            if place > self.count {
                self.outgoing[place] = Outgoing::RestOfZspage;
            }
        }
        self.count += frames.len();
    }

    /// Removes the last page or zspage. Returns it with the number of its frames.
    pub(super) fn pop(&mut self) -> Option<(Outgoing, usize)> {
        let is_rest = |outgoing: &&Outgoing| **outgoing == Outgoing::RestOfZspage;
        let frames = 1 + self.outgoing[..self.count].iter().rev().take_while(is_rest).count();
        self.count = self.count.checked_sub(frames)?;
        Some((self.take(self.count), frames))
    }

    /// Moves the first `count` frames to `other`, in place of what is there.
    pub(super) fn move_to(&mut self, other: &mut Self, count: usize) {
        other.outgoing[..count].swap_with_slice(&mut self.outgoing[..count]);
        other.frames[..count].copy_from_slice(&self.frames[..count]);
        other.count = count;
        self.outgoing[..self.count].rotate_left(count);
        self.frames.copy_within(count..self.count, 0);
        self.count -= count;
    }

    /// Returns how many of the first `most` frames can be written without the others: a zspage is
    /// not divided.
    pub(super) fn undivided(&self, most: usize) -> usize {
        let is_start = |place: &usize| *place == self.count || self.outgoing[*place] != Outgoing::RestOfZspage;
        (0..=most.min(self.count)).rev().find(is_start).unwrap_or(0)
    }

    /// Returns how many frames the page or zspage at `place` has.
    pub(super) fn unit(&self, place: usize) -> usize {
        let is_rest = |outgoing: &&Outgoing| **outgoing == Outgoing::RestOfZspage;
        1 + self.outgoing[place + 1..self.count].iter().take_while(is_rest).count()
    }

    /// Moves the first page or zspage behind the others.
    pub(super) fn rotate(&mut self) {
        let unit = self.unit(0);
        self.outgoing[..self.count].rotate_left(unit);
        self.frames[..self.count].rotate_left(unit);
    }

    pub(super) fn cancel(&mut self, pages: &Range<u64>) {
        for outgoing in &mut self.outgoing[..self.count] {
            if matches!(outgoing, Outgoing::Page(page) if pages.contains(page)) {
                *outgoing = Outgoing::Cancelled;
            }
        }
    }

    fn take(&mut self, place: usize) -> Outgoing {
        core::mem::replace(&mut self.outgoing[place], Outgoing::Cancelled)
    }
}

/// A cluster that is being written, or room for one.
#[derive(Debug)]
pub(super) struct Write {
    /// Empty while nothing is being written.
    cluster: Cluster,
    first: SlotNumber,
    /// `None` when the disk's queue was full: to be submitted again.
    ticket: Option<Ticket>,
    /// Frames whose write has ended.
    done: usize,
    mode: Mode,
    /// The result of the transfer that the ticket names, once it is known.
    result: Option<Result<(), DiskError>>,
}

/// How much of a cluster one transfer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Whole,
    /// One page or zspage after the other, after the whole cluster has failed.
    Single,
}

/// How far a write has come.
pub(super) enum Step {
    UnderWay,
    /// The cluster has failed, and is written again page by page.
    Failed,
    /// The write of a page or zspage has ended. With it come its slots.
    Finished(Finished, SlotNumber),
}

impl Write {
    pub(super) const NONE: Self =
        Self { cluster: Cluster::EMPTY, first: SlotNumber(0), ticket: None, done: 0, mode: Mode::Whole, result: None };

    /// Returns whether nothing is being written.
    pub(super) fn is_empty(&self) -> bool {
        self.cluster.count == 0
    }

    /// Returns how many frames are left to write.
    pub(super) fn left(&self) -> usize {
        self.cluster.count - self.done
    }

    /// Returns the transfer to wait for.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.ticket.filter(|_| !self.is_empty())
    }

    /// Begins to write the first `count` frames of `cluster` to the slots from `first` on.
    pub(super) fn begin(&mut self, disk: &dyn Disk, cluster: &mut Cluster, count: usize, first: SlotNumber) {
        cluster.move_to(&mut self.cluster, count);
        (self.first, self.done, self.mode, self.result) = (first, 0, Mode::Whole, None);
        self.submit(disk);
    }

    pub(super) fn cancel(&mut self, pages: &Range<u64>) {
        self.cluster.cancel(pages);
    }

    /// Submits the next transfer.
    fn submit(&mut self, disk: &dyn Disk) {
        let end = match self.mode {
            Mode::Whole => self.cluster.count,
            Mode::Single => self.done + self.cluster.unit(self.done),
        };
        let frames = &self.cluster.frames[self.done..end];
        self.ticket = disk.submit(Direction::Write, self.first.plus(self.done), frames);
    }

    /// Asks the disk how far the write has come. Returns `None` when there is none.
    pub(super) fn advance(&mut self, disk: &dyn Disk) -> Option<Step> {
        if self.left() == 0 {
            (self.cluster.count, self.done) = (0, 0);
            return None;
        }
        if self.result.is_none() {
            match self.ticket {
                None => self.submit(disk),
                Some(ticket) => self.result = disk.result(ticket),
            }
        }
        let Some(result) = self.result else { return Some(Step::UnderWay) };
        let is_divisible = self.mode == Mode::Whole && self.cluster.count > self.cluster.unit(0);
        if result.is_err() && is_divisible {
            (self.mode, self.ticket, self.result) = (Mode::Single, None, None);
            self.submit(disk);
            return Some(Step::Failed);
        }
        let slot = self.first.plus(self.done);
        let frames = self.cluster.unit(self.done);
        let outgoing = self.cluster.take(self.done);
        self.done += frames;
        if self.mode == Mode::Single && self.left() > 0 {
            (self.ticket, self.result) = (None, None);
            self.submit(disk);
        }
        Some(Step::Finished(Finished { outgoing, frames, slot: result.is_ok().then_some(slot) }, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::{Cluster, FrameNumber, Outgoing};

    fn frames(numbers: core::ops::Range<u64>) -> Vec<FrameNumber> {
        numbers.map(FrameNumber).collect()
    }

    /// A page, a zspage of two frames and another page. The first frame of the zspage is a page,
    /// too: the pool makes no zspages without memory.
    fn cluster() -> Cluster {
        let mut cluster = Cluster::EMPTY;
        cluster.push(Outgoing::Page(0x1000), &frames(1..2));
        cluster.push(Outgoing::Page(0x2000), &frames(2..4));
        cluster.push(Outgoing::Page(0x3000), &frames(4..5));
        cluster
    }

    #[test]
    fn a_zspage_is_not_divided() {
        let cluster = cluster();
        assert_eq!([0, 1, 2, 3, 4, 9].map(|most| cluster.undivided(most)), [0, 1, 1, 3, 4, 4]);
        assert_eq!([0, 1, 3].map(|place| cluster.unit(place)), [1, 2, 1]);
    }

    #[test]
    fn what_is_moved_leaves_the_rest_in_order() {
        let (mut cluster, mut other) = (cluster(), Cluster::EMPTY);
        cluster.move_to(&mut other, 3);
        assert_eq!((other.len(), cluster.len()), (3, 1));
        assert_eq!((other.pop(), other.pop()), (Some((Outgoing::Page(0x2000), 2)), Some((Outgoing::Page(0x1000), 1))));
        assert_eq!((cluster.pop(), cluster.pop()), (Some((Outgoing::Page(0x3000), 1)), None));
    }

    #[test]
    fn what_is_rotated_stays_in_one_piece() {
        let mut cluster = cluster();
        cluster.rotate();
        assert_eq!([0, 2, 3].map(|place| cluster.unit(place)), [2, 1, 1]);
        cluster.rotate();
        assert_eq!(cluster.pop(), Some((Outgoing::Page(0x2000), 2)));
        assert_eq!(cluster.pop(), Some((Outgoing::Page(0x1000), 1)));
    }

    #[test]
    fn cancelled_pages_keep_their_frames() {
        let mut cluster = cluster();
        cluster.cancel(&(0x2000..0x4000));
        assert_eq!(cluster.pop(), Some((Outgoing::Cancelled, 1)));
        assert_eq!(cluster.pop(), Some((Outgoing::Cancelled, 2)));
        assert_eq!(cluster.pop(), Some((Outgoing::Page(0x1000), 1)));
    }
}
