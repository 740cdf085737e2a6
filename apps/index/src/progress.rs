//! Reports to the host while the application works.

use aerostat_guest::app;
use alloc::format;

/// Steps between two reports, as the host gets only some twenty in a second.
const STEPS: u64 = 64;

/// The progress of the application.
#[derive(Debug)]
pub(crate) struct Progress {
    rounds: u64,
    round: u64,
    verified_bytes: u64,
    errors: u64,
}

impl Progress {
    pub(crate) fn new(rounds: u64) -> Self {
        Self { rounds, round: 0, verified_bytes: 0, errors: 0 }
    }

    pub(crate) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Counts an index of so many bytes as verified if its digest is the expected one, and as an
    /// error otherwise.
    pub(crate) fn compare(&mut self, digest: u64, expected: u64, bytes: usize) {
        if digest == expected {
            self.verified_bytes += bytes as u64;
        } else {
            self.errors += 1;
            log::error!("the digest is {digest:016x} and should be {expected:016x}");
        }
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    /// Reports one step in [`STEPS`].
    pub(crate) fn tell_now_and_then(&self, what: &str, count: u64) {
        if count.is_multiple_of(STEPS) {
            self.tell(&format!("{count} {what}"));
        }
    }

    /// Reports what the application does.
    pub(crate) fn tell(&self, doing: &str) {
        app::report(self.verified_bytes, self.errors, &format!("{doing}, round {} of {}", self.round, self.rounds));
    }
}
