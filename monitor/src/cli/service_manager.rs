//! What a service manager (systemd) is told: that the fleet is ready, that it stops, and that the
//! supervisor's loop still turns.

use std::time::Duration;

use sd_notify::{NotifyState, notify};

/// The service manager that started this process, if one did. Where it can't be told, the fleet
/// runs on.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// How often the watchdog wants to hear of the loop, if it does.
    watchdog: Option<Duration>,
    /// When it is told next, from the begin of the run.
    due: Duration,
}

impl ServiceManager {
    /// Reads from the environment what the service manager wants.
    pub(super) fn from_environment() -> Self {
        // Twice as often as it must be.
        Self { watchdog: sd_notify::watchdog_enabled().map(|period| period / 2), due: Duration::ZERO }
    }

    /// Says that all guests have started.
    pub(super) fn ready(&self) {
        let _ = notify(&[NotifyState::Ready]);
    }

    /// Says that the run ends.
    pub(super) fn stopping(&self) {
        let _ = notify(&[NotifyState::Stopping]);
    }

    /// Says that the loop turns, if it is time.
    pub(super) fn turned(&mut self, elapsed: Duration) {
        let Some(period) = self.watchdog else { return };
        if elapsed >= self.due {
            self.due = elapsed.saturating_add(period);
            let _ = notify(&[NotifyState::Watchdog]);
        }
    }
}
