//! Sizes as users write them: a number and a unit, `512M`.

use std::fmt;
use std::str::FromStr;

use aerostat_abi::units::{FrameCount, HUGE_BYTES};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A number of bytes that was written with a unit: K, M or G, 1024-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not digits followed by a unit.
    #[error("{0:?} is not a size; write a whole number and K, M or G, such as \"512M\"")]
    Malformed(String),
    /// Too many bytes to count.
    #[error("{0:?} is too large a size")]
    TooLarge(String),
}

impl Size {
    /// Returns the size of so many frames.
    #[must_use]
    pub const fn of(frames: FrameCount) -> Self {
        Self(frames.bytes())
    }

    /// Returns the size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Returns the size in frames if it is a multiple of a huge frame.
    #[must_use]
    pub const fn whole_huge_frames(self) -> Option<FrameCount> {
        if self.0.is_multiple_of(HUGE_BYTES) { Some(FrameCount::from_bytes_floor(self.0)) } else { None }
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let malformed = || SizeError::Malformed(text.into());
        let too_large = || SizeError::TooLarge(text.into());
        let (digits, unit) = if let Some(digits) = text.strip_suffix('K') {
            (digits, 1_u64 << 10)
        } else if let Some(digits) = text.strip_suffix('M') {
            (digits, 1 << 20)
        } else if let Some(digits) = text.strip_suffix('G') {
            (digits, 1 << 30)
        } else {
            return Err(malformed());
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        let number: u64 = digits.parse().map_err(|_| too_large())?;
        number.checked_mul(unit).map(Self).ok_or_else(too_large)
    }
}

impl fmt::Display for Size {
    /// Formats the size as a user would write it, in the largest unit that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, 'G'), (20, 'M')] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}K", self.0 >> 10)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SizeVisitor)
    }
}

/// Numbers of frames in files that only programs write: as bytes. For `#[serde(with = "frames")]`.
pub(crate) mod frames {
    use aerostat_abi::units::FrameCount;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(frames: &FrameCount, serializer: S) -> Result<S::Ok, S::Error> {
        frames.bytes().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FrameCount, D::Error> {
        u64::deserialize(deserializer).map(FrameCount::from_bytes_floor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size in quotes such as \"512M\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Size, SizeError};
    use aerostat_abi::units::FrameCount;
    use proptest::{prop_assert_eq, proptest};

    fn parse(text: &str) -> Result<u64, SizeError> {
        text.parse().map(Size::bytes)
    }

    #[test]
    fn units_are_1024_based() {
        assert_eq!(parse("64K"), Ok(65536));
        assert_eq!(parse("512M"), Ok(512 << 20));
        assert_eq!(parse("2G"), Ok(2 << 30));
    }

    #[test]
    fn malformed_sizes_are_refused() {
        for text in ["", "M", "512", "512m", "1.5G", "-1M", "+1M", " 1M", "1 M", "1MiB", "0x10M", "١M"] {
            assert_eq!(parse(text), Err(SizeError::Malformed(text.into())), "{text}");
        }
        for text in ["99999999999999999999M", "17179869184G"] {
            assert_eq!(parse(text), Err(SizeError::TooLarge(text.into())), "{text}");
        }
    }

    #[test]
    fn only_whole_huge_frames_are_guest_memory() {
        assert_eq!("2048K".parse::<Size>().unwrap().whole_huge_frames(), Some(FrameCount(512)));
        assert_eq!("3M".parse::<Size>().unwrap().whole_huge_frames(), None);
    }

    proptest! {
        #[test]
        fn sizes_survive_a_round_trip(kibibytes in 0_u64..1 << 40) {
            let size = Size(kibibytes << 10);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Size>();
        }
    }
}
