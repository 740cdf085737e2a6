//! The host's own control of how fast a balloon inflates, for guests whose driver has none (the
//! alternative that US 7,433,951 names). Pure.
//!
//! The balloon register is lowered in steps, as far as the rate allows, and each step only when the
//! guest has followed the last one. The guest is therefore never asked for more than one step at
//! once. The rate is the one that drivers use ([`Rate`]): it rises after each step that was
//! followed, and falls to a part of itself when a step was not followed in time. A target that
//! rises is passed on at once. So is any target while the pool is nearly empty ([`Pace`]).

use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
use aerostat_balloon_driver::{Rate, RateLimits};

use crate::clock::Moment;

/// How long a guest may take for a step.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the rate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Pace {
    /// It does.
    Limited,
    /// It does not: all memory that can be released is needed now.
    Emergency,
}

/// The balloon register of one guest, which moves to the target in steps.
#[derive(Debug)]
pub(super) struct Pacing {
    rate: Rate,
    register: FrameCount,
    /// When the guest was asked for a step that it has not followed yet.
    asked: Option<Moment>,
}

impl Pacing {
    /// Creates the pacing of a guest whose register holds `register`.
    pub(super) fn new(limits: RateLimits, register: FrameCount, now: Moment) -> Self {
        Self { rate: Rate::new(limits, now.ns()), register, asked: None }
    }

    /// Returns the register's value.
    pub(super) const fn register(&self) -> FrameCount {
        self.register
    }

    /// Returns the frames per second that the guest may be asked for.
    pub(super) fn frames_per_s(&self) -> u64 {
        self.rate.frames_per_s()
    }

    /// Moves the register of a guest of this size towards `target`.
    pub(super) fn follow(&mut self, target: FrameCount, size: FrameCount, pace: Pace, now: Moment) {
        if target >= self.register || pace == Pace::Emergency {
            self.register = target;
            self.asked = None;
            return;
        }
        if let Some(asked) = self.asked {
            if size <= self.register {
                self.rate.succeeded();
                self.asked = None;
            } else if now.since(asked) >= PATIENCE {
                self.rate.failed();
                self.asked = Some(now);
            }
        }
        if self.asked.is_some() {
            return;
        }
        // A guest that is smaller than it was asked to be must not grow again.
        self.register = self.register.min(size.max(target));
        let allowed = self.rate.budget(now.ns()).0 / HUGE_FRAMES * HUGE_FRAMES;
        let step = self.register.saturating_sub(target).min(FrameCount(allowed));
        if step > FrameCount::ZERO {
            self.rate.spend(step);
            self.register = self.register.saturating_sub(step);
            self.asked = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pace, Pacing};
    use crate::clock::Moment;
    use aerostat_abi::units::FrameCount;
    use aerostat_balloon_driver::RateLimits;
    use proptest::{collection::vec, prop_assert, proptest};

    const fn mib(mib: u64) -> FrameCount {
        FrameCount::from_mib(mib)
    }

    const fn ms(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    fn pacing() -> Pacing {
        Pacing::new(RateLimits::parse("10-100").unwrap(), mib(1000), ms(0))
    }

    #[test]
    fn a_guest_that_follows_is_asked_for_a_rates_worth_at_a_time() {
        let mut pacing = pacing();
        pacing.follow(mib(500), mib(1000), Pace::Limited, ms(0));
        assert_eq!(pacing.register(), mib(990), "a tenth of a second's worth");
        pacing.follow(mib(500), mib(995), Pace::Limited, ms(50));
        assert_eq!(pacing.register(), mib(990), "not yet followed");
        let mut now = 50;
        while pacing.register() > mib(500) {
            now += 50;
            let size = pacing.register();
            pacing.follow(mib(500), size, Pace::Limited, ms(now));
        }
        assert!((4900..5200).contains(&now), "500 MiB at 100 MiB/s took {now} ms");
    }

    #[test]
    fn a_guest_that_does_not_follow_is_asked_for_less_and_less() {
        let mut pacing = pacing();
        pacing.follow(mib(500), mib(1000), Pace::Limited, ms(0));
        let before = pacing.frames_per_s();
        pacing.follow(mib(500), mib(1000), Pace::Limited, ms(999));
        assert_eq!(pacing.frames_per_s(), before);
        for second in 1..10 {
            pacing.follow(mib(500), mib(1000), Pace::Limited, ms(second * 1000));
        }
        assert_eq!((pacing.frames_per_s(), pacing.register()), (mib(10).0, mib(990)));
    }

    #[test]
    fn a_target_that_rises_is_passed_on_at_once() {
        let mut pacing = pacing();
        pacing.follow(mib(500), mib(1000), Pace::Limited, ms(0));
        pacing.follow(mib(2000), mib(995), Pace::Limited, ms(1));
        assert_eq!(pacing.register(), mib(2000));
    }

    #[test]
    fn a_guest_that_is_smaller_already_does_not_grow_again() {
        let mut pacing = pacing();
        pacing.follow(mib(100), mib(400), Pace::Limited, ms(0));
        assert_eq!(pacing.register(), mib(390));
    }

    #[test]
    fn an_emergency_knows_no_rate() {
        let mut pacing = pacing();
        pacing.follow(mib(500), mib(1000), Pace::Limited, ms(0));
        assert_eq!(pacing.register(), mib(990));
        pacing.follow(mib(500), mib(1000), Pace::Emergency, ms(1));
        assert_eq!(pacing.register(), mib(500));
        pacing.follow(mib(300), mib(600), Pace::Limited, ms(2));
        assert!(pacing.register() > mib(400), "the rate holds again");
    }

    proptest! {
        #[test]
        fn the_register_comes_to_the_target_and_never_past_it(
            steps in vec((0_u64..2000, 0_u64..2000, 0_u64..1500), 1..60),
            last in 0_u64..1000,
        ) {
            let (mut pacing, mut now) = (pacing(), 0);
            for (target, size, pause) in steps {
                now += pause;
                let before = pacing.register();
                pacing.follow(mib(target), mib(size), Pace::Limited, ms(now));
                prop_assert!(pacing.register() >= mib(target));
                prop_assert!(pacing.register() <= before.max(mib(target)));
            }
            for _ in 0..2000 {
                now += 1000;
                let size = pacing.register();
                pacing.follow(mib(last), size, Pace::Limited, ms(now));
            }
            prop_assert!(pacing.register() == mib(last));
        }
    }
}
