//! How a run went, once it is over.

use std::time::Duration;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;

use super::balloon::BalloonTotals;
use super::guest::Guest;
use super::swap::SwapTotals;
use crate::host::{EndReason, Ending, GuestHandle};
use crate::report::Samples;
use crate::scheduler::Limits;

/// A run.
#[derive(Debug)]
pub struct Outcome {
    /// How long it took.
    pub elapsed: Duration,
    /// Host memory that the guests shared.
    pub pool: FrameCount,
    /// Memory that moved between guests.
    pub moved: FrameCount,
    /// The most that was resident at one look.
    pub peak_resident: FrameCount,
    /// The most physical memory that the guests' processes took at one look.
    pub peak_physical: FrameCount,
    /// Looks at which more than the pool was granted or taken.
    pub violations: u64,
    /// Every guest.
    pub guests: Vec<GuestOutcome>,
}

/// One guest of a run.
#[derive(Debug)]
pub struct GuestOutcome {
    /// Its name in the fleet file.
    pub name: String,
    /// How small and how large it was allowed to be.
    pub limits: Limits,
    /// From before its process was started until its application's `main`, where it came so far.
    pub spawn_to_main: Option<Duration>,
    /// Its sizes over time; empty where they were not to be kept.
    pub samples: Samples,
    /// Bytes that its application read back and found right.
    pub verified_bytes: u64,
    /// Errors that its application found.
    pub app_errors: u64,
    /// Allocations in it that failed for want of memory.
    pub allocation_failures: u64,
    /// What its balloon did.
    pub balloon: BalloonTotals,
    /// Lines that it wrote and its log did not get, because there were too many.
    pub dropped_log_lines: u64,
    /// What it swapped.
    pub swap: SwapTotals,
    /// How it ended.
    pub ending: Ending,
}

impl Outcome {
    /// Whether all went as it should: no guest failed, no application found an error, the pool was
    /// never overdrawn.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.violations == 0 && self.guests.iter().all(|guest| guest.is_success() && guest.app_errors == 0)
    }
}

impl GuestOutcome {
    pub(super) fn new<G: GuestHandle>(guest: Guest<G>) -> Self {
        let still_running = || Ending { reason: EndReason::Stopped, details: Vec::new() };
        Self {
            name: guest.name.clone(),
            limits: guest.limits,
            spawn_to_main: guest.spawn_to_main(),
            verified_bytes: guest.statistics().verified_bytes,
            app_errors: guest.statistics().app_errors,
            allocation_failures: guest.statistics().alloc_failures,
            balloon: guest.balloon_totals(),
            dropped_log_lines: guest.dropped_lines(),
            swap: guest.swap_totals(),
            ending: guest.ending.clone().unwrap_or_else(still_running),
            samples: guest.into_samples(),
        }
    }

    /// Whether the guest ended by itself with success, or because it was asked to.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.ending.reason, EndReason::Exited(GuestExit::Success) | EndReason::Stopped)
    }
}
