//! What the application in a simulated guest needs, as a function of time.

use std::str::FromStr;
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::size::Size;
use crate::span::{BadSpan, Span};

/// The memory that an application needs at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    /// What the application has allocated.
    pub(super) allocated: FrameCount,
    /// The part of it that is in use; the rest is idle and may be on a swap disk.
    pub(super) active: FrameCount,
}

/// Phases that repeat: `SIZE[/ACTIVE]:TIME,...`, such as `100M/20M:4s,24M:500ms`. Without `/ACTIVE`
/// all of `SIZE` is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    phases: Vec<Phase>,
    period: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase {
    /// When the phase ends, from the beginning of the period.
    end: Duration,
    need: Need,
}

/// Why a text describes no demand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DemandError {
    /// A length of time is malformed.
    #[error(transparent)]
    BadSpan(#[from] BadSpan),
    /// A phase is malformed.
    #[error("phase {0:?} is not SIZE[/ACTIVE]:TIME; write for example 100M/20M:4s")]
    BadPhase(String),
    /// More is active than allocated.
    #[error("phase {0:?} uses more than it allocates; let ACTIVE be at most SIZE")]
    ActiveAboveSize(String),
    /// A phase of no length.
    #[error("phase {0:?} takes no time; give it some")]
    EmptyPhase(String),
}

impl Demand {
    /// Returns the need at `elapsed` from the beginning of the first phase.
    #[must_use]
    pub(super) fn at(&self, elapsed: Duration) -> Need {
        let position = elapsed.as_nanos() % self.period.as_nanos();
        let current = self.phases.iter().find(|phase| position < phase.end.as_nanos());
        current.map_or_else(Need::default, |phase| phase.need)
    }
}

impl FromStr for Demand {
    type Err = DemandError;

    fn from_str(text: &str) -> Result<Self, DemandError> {
        let mut phases = Vec::new();
        let mut end = Duration::ZERO;
        for phase in text.split(',') {
            let (need, length) = parse_phase(phase)?;
            end += length;
            phases.push(Phase { end, need });
        }
        Ok(Self { phases, period: end })
    }
}

fn parse_phase(text: &str) -> Result<(Need, Duration), DemandError> {
    let bad = || DemandError::BadPhase(text.into());
    let frames = |size: &str| -> Result<FrameCount, DemandError> {
        let size: Size = size.parse().map_err(|_| bad())?;
        Ok(FrameCount::from_bytes_ceil(size.bytes()))
    };
    let (sizes, length) = text.split_once(':').ok_or_else(bad)?;
    let (allocated, active) = sizes.split_once('/').unwrap_or((sizes, sizes));
    let need = Need { allocated: frames(allocated)?, active: frames(active)? };
    if need.active > need.allocated {
        return Err(DemandError::ActiveAboveSize(text.into()));
    }
    let Span(length) = length.parse()?;
    if length.is_zero() {
        return Err(DemandError::EmptyPhase(text.into()));
    }
    Ok((need, length))
}

impl<'de> Deserialize<'de> for Demand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Demand, DemandError, Need};
    use aerostat_abi::units::FrameCount;
    use proptest::proptest;
    use std::time::Duration;

    fn need(allocated: u64, active: u64) -> Need {
        Need { allocated: FrameCount::from_mib(allocated), active: FrameCount::from_mib(active) }
    }

    #[test]
    fn phases_follow_each_other_and_repeat() {
        let demand: Demand = "100M/20M:4s,24M:500ms".parse().unwrap();
        let at = |ms| demand.at(Duration::from_millis(ms));
        assert_eq!(at(0), need(100, 20));
        assert_eq!(at(3999), need(100, 20));
        assert_eq!(at(4000), need(24, 24));
        assert_eq!(at(4500), need(100, 20));
    }

    #[test]
    fn malformed_demands_are_refused() {
        let error = |text: &str| text.parse::<Demand>().unwrap_err();
        assert_eq!(error("100M"), DemandError::BadPhase("100M".into()));
        assert_eq!(error("100M:4s,"), DemandError::BadPhase(String::new()));
        assert_eq!(error("20M/100M:4s"), DemandError::ActiveAboveSize("20M/100M:4s".into()));
        assert_eq!(error("20M:0s"), DemandError::EmptyPhase("20M:0s".into()));
        assert!(matches!(error("20M:4"), DemandError::BadSpan(_)));
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Demand>();
        }
    }
}
