//! What a guest is subscribed to: its part of a pool that is too small for all.

use std::num::NonZeroU32;
use std::str::FromStr;

use aerostat_abi::units::FrameCount;
use serde::{Deserialize, Serialize};

use crate::size::frames;

/// A guest's shares. Of a pool that is too small, guests get memory in proportion to their shares,
/// as far as they can use it. Source: C. Waldspurger, OSDI 2002, section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shares(NonZeroU32);

/// A text that says no number of shares.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no number of shares; write low, normal, high or a number from 1 to {most}", most = Shares::MOST)]
pub struct BadShares(String);

/// What a guest gets for certain, and its part of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its part of what the pool has beyond the reservations in use.
    pub shares: Shares,
    /// What the guest gets whenever it can use it, whatever others want. While it does not use it,
    /// others may. The guest's minimum where that is larger.
    #[serde(with = "frames")]
    pub reservation: FrameCount,
}

impl Shares {
    /// The most shares of a guest.
    pub const MOST: u32 = 1_000_000;
    /// The level `low`.
    pub const LOW: Self = Self::level(500);
    /// The level `normal`: what a guest has that says nothing.
    pub const NORMAL: Self = Self::level(1000);
    /// The level `high`.
    pub const HIGH: Self = Self::level(2000);

    const fn level(count: u32) -> Self {
        match NonZeroU32::new(count) {
            Some(count) => Self(count),
            None => panic!("a level has shares"),
        }
    }

    /// Returns the number of shares.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.get()
    }
}

impl FromStr for Shares {
    type Err = BadShares;

    fn from_str(text: &str) -> Result<Self, BadShares> {
        match text {
            "low" => return Ok(Self::LOW),
            "normal" => return Ok(Self::NORMAL),
            "high" => return Ok(Self::HIGH),
            _ => {}
        }
        let count: Option<NonZeroU32> = text.parse().ok();
        count.filter(|count| count.get() <= Self::MOST).map(Self).ok_or_else(|| BadShares(text.into()))
    }
}

impl Default for Subscription {
    fn default() -> Self {
        Self { shares: Shares::NORMAL, reservation: FrameCount::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::Shares;
    use proptest::proptest;

    #[test]
    fn shares_are_a_level_or_a_number() {
        assert_eq!("high".parse(), Ok(Shares::HIGH));
        assert_eq!("1000".parse(), Ok(Shares::NORMAL));
        for text in ["", "0", "-1", "1000001", "High", "1.5", "99999999999"] {
            assert!(text.parse::<Shares>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Shares>();
        }
    }
}
