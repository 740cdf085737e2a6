//! Whether the driver may inflate now, and how much at most.
//!
//! Three policies decide, in this order: the [hold](Hold) while a thread of the guest waits for
//! memory, the [pause](Backoff) after a failure, and the [rate](Rate).

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use crate::backoff::Backoff;
use crate::hold::Hold;
use crate::rate::{Rate, RateLimits};
use crate::state::StallReason;

/// The gate's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// The driver may inflate so many frames.
    Inflate(FrameCount),
    /// The driver waits for this reason; `None` for the reason of the failure before.
    Wait {
        /// When to ask again.
        until_ns: u64,
        /// Why.
        reason: Option<StallReason>,
    },
}

/// The policies that inflating is subject to.
#[derive(Debug)]
pub(crate) struct Gate {
    hold: Hold,
    backoff: Backoff,
    pub(crate) rate: Rate,
}

impl Gate {
    pub(crate) fn new(limits: RateLimits, now_ns: u64) -> Self {
        Self { hold: Hold::default(), backoff: Backoff::default(), rate: Rate::new(limits, now_ns) }
    }

    /// Decides how many of the `missing` frames may be inflated. Less than a huge frame is
    /// permitted only where no more is missing.
    pub(crate) fn permit(&mut self, missing: FrameCount, now_ns: u64) -> Permit {
        if let Some(until_ns) = self.hold.pending(now_ns) {
            return Permit::Wait { until_ns, reason: Some(StallReason::GuestWaiting) };
        }
        if let Some(until_ns) = self.backoff.pending(now_ns) {
            return Permit::Wait { until_ns, reason: None };
        }
        let permitted = missing.min(self.rate.budget(now_ns));
        if permitted < missing && permitted.0 < HUGE_FRAMES {
            return Permit::Wait { until_ns: self.rate.next_budget_ns(), reason: Some(StallReason::Rate) };
        }
        Permit::Inflate(permitted)
    }

    /// Notes that a thread of the guest waits for memory.
    pub(crate) fn hold(&mut self, now_ns: u64) {
        self.hold.extend(now_ns);
    }

    /// Returns until when nothing is inflated because a thread of the guest waits for memory, or
    /// did so recently.
    pub(crate) fn held_until(&self, now_ns: u64) -> Option<u64> {
        self.hold.pending(now_ns)
    }

    /// Notes that `frames` frames were inflated.
    pub(crate) fn spend(&mut self, frames: FrameCount) {
        self.rate.spend(frames);
    }

    /// Notes that a batch was inflated in full.
    pub(crate) fn succeeded(&mut self) {
        self.rate.succeeded();
        self.backoff.succeeded();
    }

    /// Notes that too few frames were found, or that none could be inflated. Returns when to try
    /// again.
    pub(crate) fn failed(&mut self, now_ns: u64) -> u64 {
        self.rate.failed();
        self.backoff.failed(now_ns)
    }

    /// Brings the next attempt forward, as something changed that may help.
    pub(crate) fn nudge(&mut self) {
        self.backoff.nudge();
    }
}

#[cfg(test)]
mod tests {
    use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

    use super::{Gate, Permit};
    use crate::rate::RateLimits;
    use crate::state::StallReason;

    const HUGE: FrameCount = FrameCount(HUGE_FRAMES);
    const SECOND_NS: u64 = 1_000_000_000;

    /// One huge frame a second.
    fn slow_gate() -> Gate {
        Gate::new(RateLimits::parse("2-2").expect("it is a range"), 0)
    }

    fn reason(permit: Permit) -> Option<StallReason> {
        let Permit::Wait { reason, .. } = permit else { panic!("{permit:?} is no wait") };
        reason
    }

    #[test]
    fn the_hold_comes_before_the_backoff_and_the_backoff_before_the_rate() {
        let mut gate = slow_gate();
        gate.spend(HUGE);
        assert_eq!(reason(gate.permit(HUGE, 0)), Some(StallReason::Rate));
        let until_ns = gate.failed(0);
        assert_eq!(gate.permit(HUGE, 0), Permit::Wait { until_ns, reason: None });
        gate.hold(0);
        assert_eq!(reason(gate.permit(HUGE, 0)), Some(StallReason::GuestWaiting));
        assert!(gate.held_until(0).is_some() && gate.held_until(SECOND_NS).is_none());
        assert_eq!(gate.permit(HUGE, SECOND_NS), Permit::Inflate(HUGE));
    }

    #[test]
    fn less_than_a_huge_frame_is_permitted_only_at_the_end() {
        let mut gate = slow_gate();
        gate.spend(FrameCount(1));
        assert_eq!(gate.permit(FrameCount(HUGE_FRAMES - 1), 0), Permit::Inflate(FrameCount(HUGE_FRAMES - 1)));
        assert_eq!(reason(gate.permit(HUGE, 0)), Some(StallReason::Rate));
    }
}
