//! What a guest lacks, by the evicted pages that it brings back.
//!
//! A guest that works on more memory than it has waits for none: it evicts its own pages and
//! restores others. What it uses is what it has, so it seems content. The pages that it restored
//! lately tell how much more it works on: had it had that much more memory, they would have stayed.
//! Linux draws the same conclusion from refaults (mm/workingset.c).
//!
//! The guest's word is bounded. It can't lack more than it has evicted, nor in one step more than a
//! part of the memory that the host sees behind it. So a guest that claims to restore pages grows
//! only as far as it touches what it gets. While the load is constant so is what is lacking: it is
//! at one of the bounds, or the guest has got it and restores nothing any more.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use crate::clock::Moment;

/// How long a restored page counts: a sum over time in which older ones fade.
const MEMORY: Duration = Duration::from_secs(4);
/// What a guest lacks at most: one frame for so many that are resident, and for every guest.
const STEP_DIVISOR: u64 = 4;
const STEP: FrameCount = FrameCount::from_mib(8);
/// Less than this is the price of a policy that guesses.
const NOISE: FrameCount = FrameCount::from_mib(1);

/// The pages that one guest brought back lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Returns {
    /// The latest count since boot, and when it was noted.
    last: Option<(u64, Moment)>,
    recent: f64,
}

impl Returns {
    /// Notes how many pages the guest has restored since boot.
    pub(super) fn observe(&mut self, restored: u64, now: Moment) {
        let Some((before, at)) = self.last.replace((restored, now)) else { return };
        let faded = self.recent * (-now.since(at).as_secs_f64() / MEMORY.as_secs_f64()).exp();
        // A count that falls is that of a guest that was reset.
        self.recent = faded + restored.saturating_sub(before) as f64;
    }

    /// Returns what a guest lacks that has evicted `evicted` pages, while the host sees `resident`
    /// frames behind it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from a float saturates")]
    pub(super) fn lacking(&self, evicted: FrameCount, resident: FrameCount) -> FrameCount {
        let step = STEP.saturating_add(FrameCount(resident.0 / STEP_DIVISOR));
        let lacking = FrameCount(self.recent as u64).min(evicted).min(step);
        if lacking < NOISE { FrameCount::ZERO } else { lacking }
    }
}

#[cfg(test)]
mod tests {
    use super::Returns;
    use crate::clock::Moment;
    use aerostat_abi::units::FrameCount;

    const MUCH: FrameCount = FrameCount::from_mib(1 << 20);

    fn at(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    /// Lets a guest restore `per_s` pages a second for `seconds`, after `before` in `began` ms.
    fn restored(per_s: u64, seconds: u64) -> Returns {
        let mut returns = Returns::default();
        (0..=seconds * 20).for_each(|tick| returns.observe(per_s * tick / 20, at(tick * 50)));
        returns
    }

    #[test]
    fn a_guest_lacks_what_it_brought_back_lately() {
        assert_eq!(Returns::default().lacking(MUCH, MUCH), FrameCount::ZERO);
        let lacking = restored(1000, 60).lacking(MUCH, MUCH).0;
        assert!((3900..4100).contains(&lacking), "1000 a second, for four seconds: {lacking}");
        assert!(restored(1000, 1).lacking(MUCH, MUCH).0 < 1000);
        assert_eq!(restored(30, 60).lacking(MUCH, MUCH), FrameCount::ZERO, "a few");
    }

    #[test]
    fn what_it_lacks_fades_when_it_restores_nothing() {
        let mut returns = restored(10_000, 60);
        returns.observe(600_000, at(68_000));
        let lacking = returns.lacking(MUCH, MUCH).0;
        assert!((4000..7000).contains(&lacking), "{lacking}");
        returns.observe(600_000, at(100_000));
        assert_eq!(returns.lacking(MUCH, MUCH), FrameCount::ZERO);
    }

    #[test]
    fn the_guests_word_is_bounded() {
        let returns = restored(u64::MAX / 1000, 1);
        let mib = FrameCount::from_mib;
        assert_eq!(returns.lacking(mib(96), MUCH), mib(96), "it has evicted no more");
        assert_eq!(returns.lacking(MUCH, mib(256)), mib(64 + 8), "a quarter of what is resident");
        assert_eq!(returns.lacking(MUCH, FrameCount::ZERO), mib(8));
    }

    #[test]
    fn a_count_that_falls_is_no_restore() {
        let mut returns = restored(1000, 60);
        returns.observe(0, at(200_000));
        returns.observe(10, at(200_050));
        assert_eq!(returns.lacking(MUCH, MUCH), FrameCount::ZERO);
    }
}
