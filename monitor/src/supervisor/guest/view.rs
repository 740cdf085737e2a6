//! What observers see of a guest while it runs, and what is known of it at its end.

use aerostat_abi::units::FrameCount;

use super::Guest;
use crate::clock::Moment;
use crate::host::{EndReason, Ending, GuestHandle, Reports};
use crate::scheduler::{Decision, GuestId};
use crate::supervisor::balloon::BalloonTotals;
use crate::supervisor::enforcement::EnforcementStatus;
use crate::supervisor::outcome::{AppTotals, GuestOutcome};
use crate::supervisor::status::{DecisionStatus, GuestStatus, ServiceStatus};

impl<G: GuestHandle> Guest<G> {
    /// Returns the guest's status as of the last poll; `name_of` names the guests that decisions
    /// mention. What a user has set is left open.
    pub(in crate::supervisor) fn status(
        &self,
        began: Moment,
        name_of: impl Fn(GuestId) -> Option<String>,
    ) -> GuestStatus {
        let accounts = &self.accounts;
        let named = |decision: &Decision| DecisionStatus {
            from: decision.from,
            to: decision.target,
            reason: decision.reason,
            inputs: decision.inputs,
            in_need: decision.other_in_need().and_then(&name_of),
        };
        GuestStatus {
            name: self.name.clone(),
            state: self.state,
            limits: self.limits,
            subscription: self.subscription,
            machine: self.machine,
            size: accounts.size(),
            balloon: accounts.balloon,
            target: self.target,
            resident: accounts.resident,
            paged_out: self.enforcer.paged_out,
            enforcement: self.enforced.map(|enforced| EnforcementStatus::new(enforced, began)),
            wanted: self.wanted(),
            rate_per_s: self.rate_per_s(),
            balloon_state: accounts.statistics.balloon_state.as_str().to_owned(),
            swap: if self.is_running() { accounts.swap.status() } else { None },
            activity: match accounts.reports {
                Reports::Never => "fixed size: reports nothing".to_owned(),
                _ => accounts.statistics.activity.as_str().to_owned(),
            },
            usage: self.usage(),
            decision: self.decision.as_ref().map(named),
            last_change: self.last_change.as_ref().map(|(at, decision)| (*at, named(decision))),
            ending: self.life.ending().map(|ending| ending.reason.to_string()),
            service: ServiceStatus::default(),
        }
    }

    /// Returns the outcome; a guest that still runs counts as stopped.
    pub(in crate::supervisor) fn into_outcome(mut self, now: Moment) -> GuestOutcome {
        self.enforcer.close(now);
        let still_running = || Ending { reason: EndReason::Stopped, details: Vec::new() };
        let balloon = self.balloon_totals();
        let accounts = self.accounts;
        GuestOutcome {
            name: self.name,
            limits: self.limits,
            spawn_to_main: accounts.spawn_to_main,
            app: (accounts.reports == Reports::OfGuest).then_some(AppTotals {
                verified_bytes: accounts.statistics.verified_bytes,
                errors: accounts.statistics.app_errors,
            }),
            allocation_failures: accounts.statistics.alloc_failures,
            balloon,
            enforcement: self.enforcer.totals(),
            requests: self.exchange.totals(),
            dropped_log_lines: accounts.dropped_lines,
            swap: accounts.swap.totals(),
            ending: self.life.into_ending().unwrap_or_else(still_running),
            samples: accounts.into_samples(),
        }
    }

    fn balloon_totals(&self) -> BalloonTotals {
        BalloonTotals {
            overuse_episodes: self.verdict.overuse.episodes(),
            peak_overuse: self.verdict.overuse.peak(),
            disagreements: self.verdict.disagreements.count(),
            ..BalloonTotals::new(&self.accounts.counters, &self.accounts.statistics)
        }
    }

    /// Returns the frames per second that the balloon may inflate by: the host's rate, or the
    /// driver's own.
    fn rate_per_s(&self) -> FrameCount {
        let drivers = FrameCount::from_bytes_floor(self.accounts.statistics.rate_bytes_per_s);
        self.register.frames_per_s().unwrap_or(drivers)
    }
}
