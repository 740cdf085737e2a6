//! Which huge frames are not in the guest's memory, and where their contents are. Pure.
//!
//! | place | contents | an access by the guest |
//! |---|---|---|
//! | guest memory (no record) | there | goes on |
//! | swap cache | in a slot of this process | moves it back, without I/O |
//! | being written | in the slot, until the write is done | waits for the write, then as above |
//! | out | in the file, and in notes of filled frames | reads it |
//! | being read | in the file | waits for the read |
//!
//! A huge frame is registered with the userfaultfd as long as it has a record. Frames that the
//! guest inflates are forgotten wherever they are. Frames that have no contents anywhere read as
//! zeros when the guest touches them after the huge frame has come back.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use aerostat_abi::registers::PagingFacts;
use aerostat_abi::units::FrameCount;

use super::area::Slot;
use super::contents::{Filled, Kept};
use super::frame_mask::FrameMask;
use super::victims::Recent;
use crate::page_sizes::HugeIndex;

/// All records.
#[derive(Debug)]
pub(super) struct Table {
    records: BTreeMap<HugeIndex, Record>,
    /// What is in the swap cache, oldest first. It may also name what is not any more.
    queue: VecDeque<HugeIndex>,
    slots: usize,
    free_slots: Vec<Slot>,
    recent: Recent,
    facts: PagingFacts,
}

#[derive(Debug)]
struct Record {
    place: Place,
    /// The frames that have contents in `place`.
    frames: FrameMask,
    /// Of these, the frames that are noted instead of stored.
    filled: Vec<Filled>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Cached(Slot),
    Writing { slot: Slot, is_wanted: bool },
    Out,
    Reading,
}

/// A huge frame in the swap cache, and its frames that have contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cached {
    pub(super) huge: HugeIndex,
    pub(super) slot: Slot,
    pub(super) frames: FrameMask,
}

/// A huge frame that is to be read from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToRead {
    pub(super) huge: HugeIndex,
    pub(super) stored: FrameMask,
}

/// What an access to a registered huge frame requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is in guest memory again: wake the thread.
    Wake,
    /// Move it back.
    Return(Cached),
    /// Read it.
    Read(ToRead),
    /// Another thread is at it, and will wake the thread.
    Wait,
}

/// What becomes of a huge frame that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is out; the slot is free once it is released.
    Out,
    /// Nothing of it is left anywhere: end its registration.
    Gone,
    /// The guest wants it: move it back.
    Wanted(Cached),
}

/// A huge frame of which nothing is left, and where it was in the swap cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) huge: HugeIndex,
    pub(super) slot: Option<Slot>,
}

impl Table {
    /// Creates a table with these slots in the swap cache.
    pub(super) fn new(slots: impl Iterator<Item = Slot>) -> Self {
        let free_slots: Vec<_> = slots.collect();
        Self {
            records: BTreeMap::new(),
            queue: VecDeque::new(),
            slots: free_slots.len(),
            free_slots,
            recent: Recent::default(),
            facts: PagingFacts::default(),
        }
    }

    /// Returns whether all of the guest is in its memory.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) const fn facts(&self) -> PagingFacts {
        self.facts
    }

    /// Returns how many huge frames are in the swap cache.
    pub(super) fn cached(&self) -> usize {
        self.slots - self.free_slots.len()
    }

    /// Returns whether a huge frame may be moved out.
    pub(super) fn may_leave(&self, huge: HugeIndex) -> bool {
        !self.records.contains_key(&huge) && !self.recent.contains(huge) && !self.free_slots.is_empty()
    }

    /// Moves a huge frame into the swap cache, if there is room; returns where.
    pub(super) fn admit(&mut self, huge: HugeIndex, frames: FrameMask) -> Option<Slot> {
        if self.records.contains_key(&huge) {
            return None;
        }
        let slot = self.free_slots.pop()?;
        self.records.insert(huge, Record { place: Place::Cached(slot), frames, filled: Vec::new() });
        self.queue.push_back(huge);
        Some(slot)
    }

    /// Returns what is longest in the swap cache, which is being written from now on.
    pub(super) fn begin_write(&mut self) -> Option<Cached> {
        loop {
            let huge = self.queue.pop_front()?;
            if let Some(record) = self.records.get_mut(&huge)
                && let Place::Cached(slot) = record.place
            {
                record.place = Place::Writing { slot, is_wanted: false };
                return Some(Cached { huge, slot, frames: record.frames });
            }
        }
    }

    /// Records that a huge frame was written, of which this was kept. After [`Written::Wanted`] it
    /// is in the swap cache again.
    pub(super) fn end_write(&mut self, huge: HugeIndex, kept: Kept) -> Written {
        let Some(record) = self.records.get_mut(&huge) else { return Written::Gone };
        let Place::Writing { slot, is_wanted } = record.place else { return Written::Gone };
        if is_wanted {
            return self.cancel_write(huge).map_or(Written::Gone, Written::Wanted);
        }
        record.frames = record.frames.and(&kept.frames());
        record.filled = kept.filled;
        record.place = Place::Out;
        let frames = FrameCount(record.frames.count());
        self.free_slots.push(slot);
        if frames == FrameCount::ZERO {
            self.records.remove(&huge);
            return Written::Gone;
        }
        self.facts.out = self.facts.out.saturating_add(frames);
        self.facts.all_out = self.facts.all_out.saturating_add(frames);
        Written::Out
    }

    /// Records that a huge frame was not written; it is in the swap cache again.
    pub(super) fn cancel_write(&mut self, huge: HugeIndex) -> Option<Cached> {
        let record = self.records.get_mut(&huge)?;
        let Place::Writing { slot, .. } = record.place else { return None };
        record.place = Place::Cached(slot);
        Some(Cached { huge, slot, frames: record.frames })
    }

    /// Decides what an access by the guest to this huge frame requires.
    pub(super) fn fault(&mut self, huge: HugeIndex) -> Fault {
        let Some(record) = self.records.get_mut(&huge) else { return Fault::Wake };
        match &mut record.place {
            Place::Cached(slot) => Fault::Return(Cached { huge, slot: *slot, frames: record.frames }),
            Place::Writing { is_wanted, .. } => {
                *is_wanted = true;
                Fault::Wait
            }
            Place::Out => self.begin_read(huge).map_or(Fault::Wake, Fault::Read),
            Place::Reading => Fault::Wait,
        }
    }

    /// Returns any huge frame in the swap cache.
    pub(super) fn any_cached(&self) -> Option<Cached> {
        self.records.iter().find_map(|(&huge, record)| match record.place {
            Place::Cached(slot) => Some(Cached { huge, slot, frames: record.frames }),
            _ => None,
        })
    }

    /// Returns the first huge frame that is out, from `from` on, or else from the begin.
    pub(super) fn next_out(&self, from: HugeIndex) -> Option<HugeIndex> {
        let is_out = |(&huge, record): (&HugeIndex, &Record)| (record.place == Place::Out).then_some(huge);
        self.records.range(from..).find_map(is_out).or_else(|| self.records.range(..from).find_map(is_out))
    }

    /// Begins to read a huge frame that is out.
    pub(super) fn begin_read(&mut self, huge: HugeIndex) -> Option<ToRead> {
        let record = self.records.get_mut(&huge).filter(|record| record.place == Place::Out)?;
        record.place = Place::Reading;
        Some(ToRead { huge, stored: record.stored() })
    }

    /// Records that a read has failed: the huge frame is still out.
    pub(super) fn cancel_read(&mut self, huge: HugeIndex) {
        if let Some(record) = self.records.get_mut(&huge) {
            record.place = Place::Out;
        }
    }

    /// Records that a huge frame was read, and is moved back now. Returns the frames that have
    /// contents, and those of them that are noted.
    pub(super) fn end_read(&mut self, huge: HugeIndex) -> (FrameMask, Vec<Filled>) {
        let Some(Record { frames, filled, .. }) = self.records.remove(&huge) else { return Default::default() };
        let count = FrameCount(frames.count());
        self.facts.out = self.facts.out.saturating_sub(count);
        self.facts.all_in = self.facts.all_in.saturating_add(count);
        (frames, filled)
    }

    /// Records that a huge frame was moved back from the swap cache.
    pub(super) fn returned(&mut self, cached: &Cached) {
        self.records.remove(&cached.huge);
        self.free_slots.push(cached.slot);
    }

    /// Leaves a huge frame alone for a while, as the guest has touched it.
    pub(super) fn protect(&mut self, huge: HugeIndex) {
        self.recent.note(huge);
    }

    /// Forgets the contents of the frames of these indexes. Returns the huge frames of which
    /// nothing is left.
    pub(super) fn forget(&mut self, frames: &Range<usize>) -> Vec<Gone> {
        let huge_frames = HugeIndex::holding(frames.start)..HugeIndex(frames.end.div_ceil(HugeIndex(0).frames().len()));
        let mut gone = Vec::new();
        for (&huge, record) in self.records.range_mut(huge_frames) {
            let all = huge.frames();
            let before = record.frames.count();
            record.frames.remove(frames.start.max(all.start) - all.start..frames.end.min(all.end) - all.start);
            if matches!(record.place, Place::Out | Place::Reading) {
                let forgotten = FrameCount(before - record.frames.count());
                self.facts.out = self.facts.out.saturating_sub(forgotten);
            }
            // A thread that reads or writes it finds out when it is done.
            match record.place {
                Place::Cached(slot) if record.frames.is_empty() => gone.push(Gone { huge, slot: Some(slot) }),
                Place::Out if record.frames.is_empty() => gone.push(Gone { huge, slot: None }),
                _ => {}
            }
        }
        for Gone { huge, slot } in &gone {
            self.records.remove(huge);
            self.free_slots.extend(slot);
        }
        gone
    }
}

impl Record {
    /// Returns the frames that are in the file.
    fn stored(&self) -> FrameMask {
        let filled: FrameMask = self.filled.iter().map(|filled| filled.frames.clone()).collect();
        self.frames.minus(&filled)
    }
}
