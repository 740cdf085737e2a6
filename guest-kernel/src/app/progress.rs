//! What the application tells the world about its work: it travels with the balloon driver's
//! reports.

use aerostat_abi::text::Text;

use crate::balloon;
use crate::sync::SpinLock;

/// An application's progress.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes read back and found right.
    pub verified_bytes: u64,
    /// Errors found.
    pub errors: u64,
    /// What it does, in words.
    pub(crate) activity: Text,
}

static PROGRESS: SpinLock<Progress> = SpinLock::new(Progress { verified_bytes: 0, errors: 0, activity: Text::EMPTY });

/// Tells how far the application is, and in at most 64 bytes what it does. The host hears of it
/// within a fraction of a second.
pub fn report(verified_bytes: u64, errors: u64, doing: &str) {
    // The words may have been evicted: they are read before the lock is taken.
    let progress = Progress { verified_bytes, errors, activity: Text::new(doing) };
    *PROGRESS.lock() = progress;
    balloon::report_soon();
}

/// The latest report.
pub(crate) fn progress() -> Progress {
    *PROGRESS.lock()
}
