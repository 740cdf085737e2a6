//! The application's progress: what it last reported about its work. It travels to the host with
//! the balloon driver's reports.

use aerostat_abi::text::Text;

use crate::sync::{LockRank, SpinLock};

/// An application's progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Bytes that the application has read back and found correct.
    pub(crate) verified_bytes: u64,
    /// Errors that it has found.
    pub(crate) errors: u64,
    /// What it is doing, in words.
    pub(crate) activity: Text,
}

static PROGRESS: SpinLock<Progress> =
    SpinLock::new(LockRank::Progress, Progress { verified_bytes: 0, errors: 0, activity: Text::EMPTY });

/// Replaces the latest report.
pub(crate) fn set(progress: Progress) {
    *PROGRESS.lock() = progress;
}

/// Returns the latest report.
pub(crate) fn latest() -> Progress {
    *PROGRESS.lock()
}
