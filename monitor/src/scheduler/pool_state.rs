//! How full the pool is, in four states as ESX has them.
//!
//! The states and their thresholds are those of the OSDI paper (section 6.3): high, soft, hard and
//! low, at 6, 4, 2 and 1 % of free memory. A state is left downwards when free memory falls below
//! the threshold of the state that follows, and upwards only when it has risen to the threshold of
//! the state that it goes to. So a pool at a threshold does not change its state all the time.
//!
//! | state | memory beyond entitlements | dead band, and the host's `balloon_rate` | raises |
//! |---|---|---|---|
//! | high | when the guest's patience ends | hold | all |
//! | soft | at once | hold | all |
//! | hard | at once, every huge frame | are ignored | all |
//! | low | as in hard | are ignored | of guests that wait, or are below their minimum |
//! | low, set by the host | as in hard | are ignored | the same, within what is guaranteed |
//!
//! The last two rows differ since a pool's last frame may be granted safely: it was set aside for
//! guests. The host's last frame was not, and to grant it may have a process killed.

use std::fmt;

use aerostat_abi::units::FrameCount;

/// How much of the pool is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PoolState {
    /// Enough: a guest keeps idle memory until its patience ends.
    #[default]
    High,
    /// Little: what guests do not need is reclaimed at once.
    Soft,
    /// Very little.
    Hard,
    /// Next to nothing: memory moves only from guest to guest.
    Low,
}

/// What set the state of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateCause {
    /// The pool's own free memory.
    #[default]
    Pool,
    /// The host has less memory than the pool still has to grant.
    HostMemory,
    /// Tasks on the host wait for memory.
    HostStalls,
}

impl PoolState {
    /// All states, from the most free memory to the least.
    pub const ALL: [Self; 4] = [Self::High, Self::Soft, Self::Hard, Self::Low];

    /// Returns the free part of the pool that goes with the state, in per cent.
    #[must_use]
    pub const fn threshold_percent(self) -> u64 {
        match self {
            Self::High => 6,
            Self::Soft => 4,
            Self::Hard => 2,
            Self::Low => 1,
        }
    }

    /// Returns whether all memory that can be released is needed now, however expensive that is.
    #[must_use]
    pub const fn is_emergency(self) -> bool {
        matches!(self, Self::Hard | Self::Low)
    }

    /// Returns the state after `self` with `free` of `pool`.
    #[must_use]
    pub fn next(self, free: FrameCount, pool: FrameCount) -> Self {
        let has = |percent: u64| free.0.saturating_mul(100) >= pool.0.saturating_mul(percent);
        let best = [Self::Low, Self::Hard, Self::Soft]
            .into_iter()
            .find(|state| !has(state.threshold_percent()))
            .unwrap_or(Self::High);
        let worst = Self::ALL.into_iter().find(|state| has(state.threshold_percent())).unwrap_or(Self::Low);
        self.clamp(best, worst)
    }
}

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::High => "high",
            Self::Soft => "soft",
            Self::Hard => "hard",
            Self::Low => "low",
        })
    }
}

impl fmt::Display for StateCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pool => "by its own free memory",
            Self::HostMemory => "as the host has little memory left",
            Self::HostStalls => "as tasks on the host wait for memory",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::PoolState::{self, Hard, High, Low, Soft};
    use aerostat_abi::units::FrameCount;

    /// The states that each state goes to with this part of a pool free, in tenths of a per cent.
    fn next(per_mille: u64) -> [PoolState; 4] {
        PoolState::ALL.map(|state| state.next(FrameCount(per_mille), FrameCount(1000)))
    }

    #[test]
    fn a_state_is_kept_between_its_thresholds() {
        assert_eq!(next(60), [High; 4]);
        assert_eq!(next(50), [High, Soft, Soft, Soft]);
        assert_eq!(next(30), [Soft, Soft, Hard, Hard]);
        assert_eq!(next(15), [Hard, Hard, Hard, Low]);
        assert_eq!(next(9), [Low; 4]);
    }

    #[test]
    fn no_size_overflows() {
        assert_eq!(High.next(FrameCount(u64::MAX), FrameCount(u64::MAX)), High);
        assert_eq!(High.next(FrameCount::ZERO, FrameCount::ZERO), High, "an empty pool has all that it can have");
    }
}
