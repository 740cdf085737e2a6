//! How much is read at once: more, the longer reads follow each other. Pure.

use aerostat_abi::units::FRAME_BYTES;

use crate::config::{MAX_READ_AHEAD, READ_AHEAD};

/// The largest gap between the end of a read and the beginning of one that continues it. The pages
/// in between are in memory already.
pub(crate) const GAP_BYTES: u64 = 16 * FRAME_BYTES;

/// How many slots a read may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window(usize);

impl Window {
    /// The window of a read that continues no other.
    const FIRST: Self = Self(READ_AHEAD);

    pub(crate) fn slots(self) -> usize {
        self.0
    }

    /// Returns the window of the read that continues this one.
    pub(crate) fn next(self) -> Self {
        Self((2 * self.0).min(MAX_READ_AHEAD))
    }

    /// Returns whether the read continues another.
    pub(crate) fn is_sequential(self) -> bool {
        self.0 > READ_AHEAD
    }
}

/// Recognizes reads that follow each other. Positions are bytes of what is read in order: memory,
/// or a disk.
#[derive(Debug)]
pub(crate) struct ReadSequence {
    next: u64,
    window: Window,
}

impl ReadSequence {
    pub(crate) const fn new() -> Self {
        Self { next: u64::MAX, window: Window::FIRST }
    }

    /// Returns the window of a read at `position`.
    pub(crate) fn window_at(&mut self, position: u64) -> Window {
        let continues = position.checked_sub(self.next).is_some_and(|gap| gap <= GAP_BYTES);
        self.window = if continues { self.window.next() } else { Window::FIRST };
        self.window
    }

    /// Notes that everything before `position` has been read or is about to be.
    pub(crate) fn has_read_to(&mut self, position: u64) {
        self.next = position;
    }
}

#[cfg(test)]
mod tests {
    use super::{FRAME_BYTES, GAP_BYTES, MAX_READ_AHEAD, READ_AHEAD, ReadSequence};

    #[test]
    fn the_window_grows_while_reads_follow_each_other() {
        let mut sequence = ReadSequence::new();
        let mut position = 1 << 20;
        let mut slots = Vec::new();
        for _ in 0..5 {
            slots.push(sequence.window_at(position).slots());
            position += 8 * FRAME_BYTES;
            sequence.has_read_to(position);
        }
        assert_eq!(slots, [READ_AHEAD, 16, 32, 64, MAX_READ_AHEAD]);
    }

    #[test]
    fn a_read_behind_a_large_gap_or_before_the_last_one_begins_again() {
        for (position, is_sequential) in [(4096, true), (4096 + GAP_BYTES, true), (8192 + GAP_BYTES, false), (0, false)]
        {
            let mut sequence = ReadSequence::new();
            sequence.has_read_to(4096);
            assert_eq!(sequence.window_at(position).is_sequential(), is_sequential, "{position}");
        }
    }
}
