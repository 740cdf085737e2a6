//! The outcome of a run, once it is over.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::balloon::BalloonTotals;
use super::enforcement::EnforcementTotals;
use super::loop_time::LoopTimes;
use super::requests::RequestTotals;
use super::swap::SwapTotals;
use crate::host::{EndReason, Ending};
use crate::report::Samples;
use crate::scheduler::Limits;

/// The outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How long the run took.
    pub elapsed: Duration,
    /// Host memory that the guests shared.
    pub pool: FrameCount,
    /// Memory that moved between guests.
    pub moved: FrameCount,
    /// The most memory that was resident in one sample.
    pub peak_resident: FrameCount,
    /// The most physical memory that the guests' processes used in one sample.
    pub peak_physical: FrameCount,
    /// Samples in which more memory was granted or used than the pool has.
    pub violations: u64,
    /// The rounds of the supervisor's loop.
    pub loop_times: LoopTimes,
    /// Every guest.
    pub guests: Vec<GuestOutcome>,
}

/// The outcome of one guest.
#[derive(Debug)]
pub struct GuestOutcome {
    /// Its name in the fleet file.
    pub name: String,
    /// The smallest and the largest size that the guest was allowed to have.
    pub limits: Limits,
    /// Time from before the process was started until the application's `main`, if it was reached.
    pub spawn_to_main: Option<Duration>,
    /// The guest's sizes over time; empty if samples were not kept.
    pub samples: Samples,
    /// What the application has reported; `None` where no report of it reaches the host, as under
    /// QEMU.
    pub app: Option<AppTotals>,
    /// Allocations in the guest that failed because no memory was available.
    pub allocation_failures: u64,
    /// What the guest's balloon did.
    pub balloon: BalloonTotals,
    /// What was done about the guest where it ignored its target.
    pub enforcement: EnforcementTotals,
    /// What became of the guest's requests.
    pub requests: RequestTotals,
    /// Lines of the guest that were left out of its log, because there were too many.
    pub dropped_log_lines: u64,
    /// What the guest swapped.
    pub swap: SwapTotals,
    /// How the guest ended.
    pub ending: Ending,
}

/// What an application has done, by its last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppTotals {
    /// Bytes that it read back and found correct.
    pub verified_bytes: u64,
    /// Errors that it found.
    pub errors: u64,
}

impl Outcome {
    /// Returns whether the run succeeded: no guest failed, no application found an error, and the
    /// pool was never overdrawn.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.violations == 0
            && self.guests.iter().all(|guest| guest.is_success() && guest.app.is_none_or(|app| app.errors == 0))
    }
}

impl GuestOutcome {
    /// Returns whether the guest ended by itself with success or because it was asked to, or runs
    /// on.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.ending.reason.is_success() || self.ending.reason == EndReason::Left
    }
}
