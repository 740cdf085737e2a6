//! How a guest releases what it holds beyond its target: promptly, slowly or not at all.

use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::accounted_usage::AccountedUsage;
use crate::clock::Moment;

/// How long a guest may hold more than its target without releasing a huge frame.
const STUCK_AFTER: Duration = Duration::from_secs(2);
/// The same before it does not count any more as being about to release something.
const PROMPT: Duration = Duration::from_millis(250);

/// The progress of one guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Release {
    /// While the guest holds more than its target: what it held when it last made progress, and
    /// when that was.
    progress: Option<(FrameCount, Moment)>,
    /// When its target was last lowered.
    asked: Option<Moment>,
}

impl Release {
    /// Notes that the target was lowered.
    pub(super) fn asked(&mut self, now: Moment) {
        self.asked = Some(now);
    }

    /// Notes what the guest holds. To release less than a huge frame in all the time that it has is
    /// no progress.
    pub(super) fn observe(&mut self, account: &AccountedUsage, now: Moment) {
        let held = account.observed();
        self.progress = match self.progress {
            _ if !account.exceeds_target() => None,
            Some((before, at)) if held.saturating_add(FrameCount(HUGE_FRAMES)) > before => Some((before, at)),
            _ => Some((held, now)),
        };
    }

    /// Returns whether the guest was asked just now, or has just released something.
    pub(super) fn is_prompt(&self, now: Moment) -> bool {
        let progressed = self.progress.map(|(_, at)| at);
        let is_recent = [progressed, self.asked].into_iter().flatten().any(|at| now.since(at) < PROMPT);
        is_recent && !self.is_stuck(now)
    }

    /// Returns whether the target was lowered in the last so much time.
    pub(super) fn was_asked_within(&self, time: Duration, now: Moment) -> bool {
        self.asked.is_some_and(|at| now.since(at) < time)
    }

    /// Returns whether the guest does not follow its target.
    pub(super) fn is_stuck(&self, now: Moment) -> bool {
        self.progress.is_some_and(|(_, at)| now.since(at) >= STUCK_AFTER)
    }
}
