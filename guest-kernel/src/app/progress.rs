//! The application's reports about its work.

use aerostat_abi::text::Text;

use crate::balloon;
use crate::progress::{self, Progress};

/// Reports how many bytes the application has verified, how many errors it has found, and in at
/// most 64 bytes what it is doing. The host receives it within a fraction of a second.
pub fn report(verified_bytes: u64, errors: u64, doing: &str) {
    // The words may have been evicted, so they are read here and not under a lock.
    progress::set(Progress { verified_bytes, errors, activity: Text::new(doing) });
    balloon::report_soon();
}
