//! Frames, and their kinds of numbers: which frame ([`FrameNumber`]), which huge frame
//! ([`HugeFrameNumber`]) and how many frames ([`FrameCount`]).
//!
//! A *frame* is 4 KiB of guest-physical memory; a *huge frame* is 512 of them, aligned (2 MiB).
//! Arithmetic is checked or saturating by name: the newtypes have no operators, so an overflow
//! can't go unnoticed.

use core::fmt;

/// Bytes in a frame.
pub const FRAME_BYTES: u64 = 4096;
/// Frames in a huge frame.
pub const HUGE_FRAMES: u64 = 512;
/// Bytes in a huge frame.
pub const HUGE_BYTES: u64 = FRAME_BYTES * HUGE_FRAMES;
/// Frames in a mebibyte.
pub const FRAMES_PER_MIB: u64 = (1 << 20) / FRAME_BYTES;
/// `log2` of the frames in a huge frame: the order of a 2 MiB block.
pub const HUGE_ORDER: u8 = 9;
/// The largest order an entry may have: 2^18 frames, 1 GiB.
pub const MAX_ORDER: u8 = 18;

/// [`FRAME_BYTES`] for slices and layouts.
pub const FRAME_SIZE: usize = to_usize(FRAME_BYTES);
/// [`HUGE_BYTES`] for slices and layouts.
pub const HUGE_SIZE: usize = to_usize(HUGE_BYTES);

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "Aerostat's guests and hosts are 64-bit machines");

/// Returns `value` as an index or a length.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits, asserted above")]
pub const fn to_usize(value: u64) -> usize {
    value as usize
}

/// The number of a frame: its guest-physical address divided by [`FRAME_BYTES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNumber(pub u64);

impl FrameNumber {
    /// Returns the frame that holds the byte at guest-physical `address`.
    #[must_use]
    pub const fn containing(address: u64) -> Self {
        Self(address / FRAME_BYTES)
    }

    /// Returns the guest-physical address of the frame's first byte; saturates for numbers that no
    /// machine has.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0.saturating_mul(FRAME_BYTES)
    }

    /// Returns the frame that is `count` frames later, or `None` beyond the range of numbers.
    #[must_use]
    pub const fn checked_add(self, count: FrameCount) -> Option<Self> {
        match self.0.checked_add(count.0) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Returns whether a block of `2^order` frames may begin here.
    #[must_use]
    pub const fn is_aligned(self, order: u8) -> bool {
        self.0.trailing_zeros() >= order as u32
    }
}

/// The number of a huge frame: its guest-physical address divided by [`HUGE_BYTES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HugeFrameNumber(pub u64);

impl HugeFrameNumber {
    /// Returns the huge frame that holds `frame`.
    #[must_use]
    pub const fn containing(frame: FrameNumber) -> Self {
        Self(frame.0 / HUGE_FRAMES)
    }

    /// Returns its first frame; saturates for numbers that no machine has.
    #[must_use]
    pub const fn first(self) -> FrameNumber {
        FrameNumber(self.0.saturating_mul(HUGE_FRAMES))
    }

    /// Returns the number as an index into what is kept for each huge frame.
    #[must_use]
    pub const fn index(self) -> usize {
        to_usize(self.0)
    }
}

/// The size of a block that guests handle as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockSize {
    /// 4 KiB.
    Frame,
    /// 2 MiB.
    Huge,
}

impl BlockSize {
    /// Returns the number of frames in the block.
    #[must_use]
    pub const fn frames(self) -> u64 {
        match self {
            Self::Frame => 1,
            Self::Huge => HUGE_FRAMES,
        }
    }

    /// Returns the number of bytes in the block.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Frame => FRAME_BYTES,
            Self::Huge => HUGE_BYTES,
        }
    }

    /// Returns `log2` of the block's frames.
    #[must_use]
    pub const fn order(self) -> u8 {
        match self {
            Self::Frame => 0,
            Self::Huge => HUGE_ORDER,
        }
    }
}

/// A number of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameCount(pub u64);

impl FrameCount {
    /// No frames.
    pub const ZERO: Self = Self(0);

    /// Returns the number of frames in `mib` mebibytes; saturates.
    #[must_use]
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(FRAMES_PER_MIB))
    }

    /// Returns the number of whole frames in `bytes`, rounded down.
    #[must_use]
    pub const fn from_bytes_floor(bytes: u64) -> Self {
        Self(bytes / FRAME_BYTES)
    }

    /// Returns the number of frames that `bytes` need, rounded up.
    #[must_use]
    pub const fn from_bytes_ceil(bytes: u64) -> Self {
        Self(bytes.div_ceil(FRAME_BYTES))
    }

    /// Returns a count of `2^order` frames.
    #[must_use]
    pub const fn of_order(order: u8) -> Self {
        Self(1 << order)
    }

    /// Returns the number of bytes; saturates.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0.saturating_mul(FRAME_BYTES)
    }

    /// Returns the number of whole mebibytes, rounded down.
    #[must_use]
    pub const fn mib(self) -> u64 {
        self.0 / FRAMES_PER_MIB
    }

    /// Returns the sum, at most the largest count.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Returns the difference, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Returns the difference, or `None` where it would be negative.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(count) => Some(Self(count)),
            None => None,
        }
    }
}

impl fmt::Display for FrameCount {
    /// Shows mebibytes with one decimal: `12.5 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.saturating_mul(10) / FRAMES_PER_MIB;
        write!(f, "{}.{} MiB", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{FrameCount, FrameNumber, HugeFrameNumber};
    use std::string::ToString;

    #[test]
    fn alignment_follows_the_order() {
        assert!(FrameNumber(0).is_aligned(18));
        assert!(FrameNumber(512).is_aligned(9));
        assert!(!FrameNumber(256).is_aligned(9));
    }

    #[test]
    fn a_huge_frame_holds_512_frames_from_its_first_on() {
        let huge = HugeFrameNumber(3);
        assert_eq!(huge.first(), FrameNumber(1536));
        assert_eq!(HugeFrameNumber::containing(FrameNumber(1535)), HugeFrameNumber(2));
        assert_eq!([1536, 2047].map(|frame| HugeFrameNumber::containing(FrameNumber(frame))), [huge, huge]);
        assert_eq!(huge.index(), 3);
    }

    #[test]
    fn counts_saturate_instead_of_wrapping() {
        assert_eq!(FrameCount::from_mib(u64::MAX), FrameCount(u64::MAX));
        assert_eq!(FrameCount(3).saturating_sub(FrameCount(5)), FrameCount::ZERO);
        assert_eq!(FrameNumber(u64::MAX).checked_add(FrameCount(1)), None);
    }

    #[test]
    fn display_shows_mebibytes() {
        assert_eq!(FrameCount(384).to_string(), "1.5 MiB");
    }
}
