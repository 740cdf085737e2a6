//! The batch page: up to 512 entries of eight bytes that a INFLATE or DEFLATE carries.
//!
//! | bits   | field                                                       |
//! |--------|-------------------------------------------------------------|
//! | 0..8   | [`EntryStatus`]; the driver writes [`EntryStatus::Pending`]   |
//! | 8..16  | order: the entry covers `2^order` frames, at most 1 GiB      |
//! | 16..64 | number of the first frame, aligned to the order             |
//!
//! The monitor writes the status and leaves the rest as it was; it looks at no status that a driver
//! wrote. Entries are judged one after the other, each against the outcome of those before it, and
//! a block stands or falls as a whole. The tests, of which the first that fails gives the status:
//! order, alignment, range; INFLATE then protection, given before, release; DEFLATE then given at
//! all, target, preparation.

use crate::units::{FRAME_SIZE, FrameCount, FrameNumber};

/// Entries that fit the page.
pub const CAPACITY: usize = 512;

const _: () = assert!(CAPACITY * size_of::<u64>() == FRAME_SIZE);

/// What became of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryStatus {
    /// Not looked at yet: no answer once the call has ended with [`crate::port::Status::Ok`].
    Pending,
    /// Given, or taken.
    Done,
    /// Refused: part of the block lies outside guest memory.
    OutOfRange,
    /// Refused: the block does not begin at a multiple of its size.
    Misaligned,
    /// Refused: the order is above [`crate::units::MAX_ORDER`].
    BadOrder,
    /// INFLATE refused: part of the block lies below 1 MiB (where boot information is), in the
    /// image as loaded, or is the batch page of this call. A guest has to keep its other vital
    /// frames out of a batch itself.
    Protected,
    /// INFLATE refused: part of the block is given already.
    AlreadyBallooned,
    /// DEFLATE refused: part of the block is the guest's.
    NotBallooned,
    /// DEFLATE refused: the guest would grow beyond its target. A smaller block behind it may still
    /// be done.
    NotGranted,
    /// INFLATE refused: the host could not release the memory. The block is the guest's, its
    /// contents may be lost. DEFLATE refused: the host could not prepare the memory. The block is
    /// still given.
    HostFailed,
}

impl EntryStatus {
    /// Every status, in the order of their codes.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Done,
        Self::OutOfRange,
        Self::Misaligned,
        Self::BadOrder,
        Self::Protected,
        Self::AlreadyBallooned,
        Self::NotBallooned,
        Self::NotGranted,
        Self::HostFailed,
    ];

    /// The status in words, for people: lower case, with underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "unanswered",
            Self::Done => "done",
            Self::OutOfRange => "out_of_range",
            Self::Misaligned => "misaligned",
            Self::BadOrder => "bad_order",
            Self::Protected => "protected",
            Self::AlreadyBallooned => "already_ballooned",
            Self::NotBallooned => "not_ballooned",
            Self::NotGranted => "not_granted",
            Self::HostFailed => "host_failed",
        }
    }

    /// The status as it travels.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// One block of frames, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The block's first frame; 48 bits of it travel.
    pub frame: FrameNumber,
    /// `log2` of the block's frames.
    pub order: u8,
    /// Outcome.
    pub status: EntryStatus,
}

impl Entry {
    /// An entry as the driver writes it.
    #[must_use]
    pub const fn pending(frame: FrameNumber, order: u8) -> Self {
        Self { frame, order, status: EntryStatus::Pending }
    }

    /// Frames in the block. The order must have been checked.
    #[must_use]
    pub const fn count(self) -> FrameCount {
        FrameCount::of_order(self.order)
    }

    /// The entry's eight bytes.
    #[must_use]
    pub const fn encode(self) -> u64 {
        self.frame.0 << 16 | (self.order as u64) << 8 | self.status.code() as u64
    }

    /// The entry in eight bytes. A status code that nobody defined reads as
    /// [`EntryStatus::Pending`]: no driver may take it for done.
    #[must_use]
    pub fn decode(word: u64) -> Self {
        let [code, order, ..] = word.to_le_bytes();
        let status = EntryStatus::ALL.get(usize::from(code)).copied().unwrap_or(EntryStatus::Pending);
        Self { frame: FrameNumber(word >> 16), order, status }
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, EntryStatus};
    use crate::units::FrameNumber;
    use proptest::{prop_assert_eq, proptest};

    #[test]
    fn codes_are_the_places_in_the_list() {
        for (place, status) in EntryStatus::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(status.code()), place);
        }
    }

    #[test]
    fn an_unknown_status_is_not_done() {
        assert_eq!(Entry::decode(0xff).status, EntryStatus::Pending);
    }

    proptest! {
        #[test]
        fn entries_survive_a_round_trip(frame in 0_u64..1 << 48, order: u8, status in 0..EntryStatus::ALL.len()) {
            let entry = Entry { frame: FrameNumber(frame), order, status: EntryStatus::ALL[status] };
            prop_assert_eq!(Entry::decode(entry.encode()), entry);
        }
    }
}
