//! What a guest needs, split by how hard it is to do without.
//!
//! *Firm* need is what the guest uses and can't get back from a file, what it can't give up, what
//! its threads wait for, and the evicted pages that it brings back. *Demand* is all it would like
//! to have: firm need, file pages, and headroom to grow into. Memory that is committed and was
//! never touched is in neither, unless the guest has no swap to stand for it: then it can't be
//! given up.

use aerostat_abi::units::FrameCount;

use super::limits::Limits;
use super::policy::{Policy, huge_ceil};
use super::usage::Usage;
use super::working_set::Activity;

/// A guest's need. The counts are whole huge frames, `firm` and `demand` within the guest's limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Need {
    pub(super) firm: FrameCount,
    /// At least `firm`.
    pub(super) demand: FrameCount,
    /// The active part of what the guest uses.
    pub(super) activity: Activity,
    /// The size below which the guest can't shrink.
    pub(super) unshrinkable: FrameCount,
}

impl Need {
    /// Returns the need of a guest that keeps what it has: one that has said nothing yet.
    pub(super) const fn just(size: FrameCount) -> Self {
        Self { firm: size, demand: size, activity: Activity::FULL, unshrinkable: size }
    }

    /// Returns the need of a guest with this usage and activity.
    pub(super) fn of(usage: &Usage, activity: Activity, limits: Limits, policy: &Policy) -> Self {
        let within = |count: FrameCount| huge_ceil(count).max(limits.min).min(limits.max);
        let used = usage.used.max(usage.unshrinkable).saturating_add(usage.wanted);
        let headroom = policy.headroom_of(used);
        // Pages of files that the guest can't drop are not droppable.
        let firm = usage.used.saturating_sub(usage.droppable).max(usage.unshrinkable).saturating_add(usage.wanted);
        Self {
            firm: within(firm),
            demand: within(used.saturating_add(headroom)),
            activity,
            unshrinkable: huge_ceil(usage.unshrinkable).min(limits.max),
        }
    }

    /// Returns the need of a guest that also lacks `lacking` frames of its evicted pages.
    pub(super) fn with_returns(self, lacking: FrameCount, limits: Limits) -> Self {
        let more = |count: FrameCount| huge_ceil(count.saturating_add(lacking)).min(limits.max);
        Self { firm: more(self.firm), demand: more(self.demand), ..self }
    }

    /// Returns the need of a guest that has evicted pages and has this target. What it has free is
    /// no surplus: its own reclaim keeps some frames free, and evicts more pages whenever it is
    /// shrunk to what it uses.
    pub(super) fn with_free_frames(self, target: FrameCount, policy: &Policy) -> Self {
        let kept = target.min(self.firm.saturating_add(policy.headroom_of(self.firm)));
        let firm = self.firm.max(huge_ceil(kept));
        Self { firm, demand: self.demand.max(firm), ..self }
    }

    /// Returns the need with no count above `size`.
    pub(super) fn within(self, size: FrameCount) -> Self {
        let [firm, demand, unshrinkable] = [self.firm, self.demand, self.unshrinkable].map(|count| count.min(size));
        Self { firm, demand, unshrinkable, ..self }
    }

    /// Takes over what has changed by at least `dead_band`, so that noise in one guest moves no
    /// other guest's share. What a waiting thread adds counts at once.
    pub(super) fn follow(&mut self, latest: Self, dead_band: FrameCount, is_waiting: bool) {
        let follow = |noted: &mut FrameCount, latest: FrameCount| {
            if noted.0.abs_diff(latest.0) >= dead_band.0 || (is_waiting && latest > *noted) {
                *noted = latest;
            }
        };
        follow(&mut self.firm, latest.firm);
        follow(&mut self.demand, latest.demand);
        follow(&mut self.unshrinkable, latest.unshrinkable);
        self.demand = self.demand.max(self.firm);
        self.activity.follow(latest.activity);
    }
}

#[cfg(test)]
mod tests {
    use super::{Activity, Limits, Need, Policy, Usage};
    use aerostat_abi::units::FrameCount;

    const LIMITS: Limits = Limits { min: FrameCount::from_mib(64), max: FrameCount::from_mib(512) };

    /// Usage and need in MiB: firm and demand.
    fn need(used: u64, droppable: u64, unshrinkable: u64, wanted: u64) -> (u64, u64) {
        let [used, droppable, unshrinkable, wanted] = [used, droppable, unshrinkable, wanted].map(FrameCount::from_mib);
        let usage = Usage { used, droppable, unshrinkable, wanted, ..Usage::default() };
        let need = Need::of(&usage, Activity::FULL, LIMITS, &Policy::default());
        (need.firm.mib(), need.demand.mib())
    }

    #[test]
    fn demand_has_headroom_and_firm_need_has_none() {
        assert_eq!(need(128, 0, 0, 0), (128, 128 + 4 + 8));
    }

    #[test]
    fn file_pages_are_demand_and_no_firm_need() {
        assert_eq!(need(320, 192, 0, 0), (128, 320 + 10 + 8));
    }

    #[test]
    fn what_cannot_be_given_up_is_firm() {
        assert_eq!(need(20, 0, 320, 0), (320, 320 + 10 + 8));
        assert_eq!(need(320, 200, 240, 0), (240, 320 + 10 + 8));
    }

    #[test]
    fn threads_wait_for_more_than_there_is() {
        assert_eq!(need(120, 0, 320, 96), (416, 320 + 96 + 14 + 8));
        assert_eq!(need(300, 0, 0, 100), (400, 400 + 14 + 8));
    }

    #[test]
    fn evicted_pages_that_return_are_firm() {
        let need = Need::just(FrameCount::from_mib(128));
        let grown = need.with_returns(FrameCount::from_mib(31), LIMITS);
        assert_eq!((grown.firm.mib(), grown.demand.mib(), grown.unshrinkable.mib()), (160, 160, 128));
        assert_eq!(need.with_returns(FrameCount::from_mib(1000), LIMITS).firm, LIMITS.max);
    }

    #[test]
    fn a_guest_that_has_evicted_pages_keeps_some_free_frames() {
        let need = Need::just(FrameCount::from_mib(128));
        let firm_with = |target| need.with_free_frames(FrameCount::from_mib(target), &Policy::default()).firm.mib();
        assert_eq!([100, 134, 300].map(firm_with), [128, 134, 140]);
    }

    #[test]
    fn the_limits_bound_both() {
        assert_eq!(need(0, 0, 0, 0), (64, 64));
        assert_eq!(need(500, 0, 512, 512), (512, 512));
    }

    #[test]
    fn small_changes_are_noise() {
        let mib = FrameCount::from_mib;
        let mut noted = Need::just(mib(100));
        noted.follow(Need::just(mib(102)), mib(4), false);
        assert_eq!((noted.firm, noted.demand), (mib(100), mib(100)));
        noted.follow(Need::just(mib(102)), mib(4), true);
        assert_eq!((noted.firm, noted.demand), (mib(102), mib(102)));
        noted.follow(Need::just(mib(90)), mib(4), true);
        assert_eq!((noted.firm, noted.demand), (mib(90), mib(90)));
    }
}
