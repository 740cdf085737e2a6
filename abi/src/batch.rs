//! The batch page: up to 512 entries of eight bytes, which an INFLATE or DEFLATE carries.
//!
//! | bits   | field                                                       |
//! |--------|-------------------------------------------------------------|
//! | 0..8   | [`EntryStatus`]; the driver writes [`EntryStatus::Pending`]   |
//! | 8..16  | order: the entry covers `2^order` frames, at most 1 GiB      |
//! | 16..64 | number of the first frame, aligned to the order             |
//!
//! The monitor writes the status and leaves the rest as it was; it ignores the status that a driver
//! wrote. It processes entries in order, each against the outcome of those before it. A block is
//! done as a whole or refused as a whole. The first test that fails decides the status: order,
//! alignment, range; then for INFLATE protection, already ballooned, release; for DEFLATE not
//! ballooned, target, preparation.

use crate::units::{FRAME_SIZE, FrameCount, FrameNumber};

/// The number of entries that fit the page.
pub const CAPACITY: usize = 512;

const _: () = assert!(CAPACITY * size_of::<u64>() == FRAME_SIZE);

/// The outcome of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryStatus {
    /// Not processed yet. After a call that ended with [`crate::port::Status::Ok`]: not answered.
    Pending,
    /// Inflated, or deflated.
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
    /// INFLATE refused: part of the block is ballooned already.
    AlreadyBallooned,
    /// DEFLATE refused: part of the block is not ballooned.
    NotBallooned,
    /// DEFLATE refused: the guest would grow beyond its target. A smaller block after it may still
    /// be done.
    NotGranted,
    /// INFLATE refused: the host could not release the memory. The block is the guest's, its
    /// contents may be lost. DEFLATE refused: the host could not prepare the memory. The block is
    /// still ballooned.
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

    /// Returns the name of the status for logs and reports: lower case, with underscores.
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

    /// Returns the status as it is encoded in an entry.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// One block of frames, and its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The block's first frame; 48 bits of it are encoded.
    pub frame: FrameNumber,
    /// `log2` of the block's frames.
    pub order: u8,
    /// The outcome.
    pub status: EntryStatus,
}

impl Entry {
    /// Returns an entry as the driver writes it.
    #[must_use]
    pub const fn pending(frame: FrameNumber, order: u8) -> Self {
        Self { frame, order, status: EntryStatus::Pending }
    }

    /// Returns the number of frames in the block. The order must have been checked.
    #[must_use]
    pub const fn count(self) -> FrameCount {
        FrameCount::of_order(self.order)
    }

    /// Returns the entry's eight bytes.
    #[must_use]
    pub const fn encode(self) -> u64 {
        self.frame.0 << 16 | (self.order as u64) << 8 | self.status.code() as u64
    }

    /// Returns the entry in eight bytes. An undefined status code reads as
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
    fn each_code_is_the_index_in_the_list() {
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
