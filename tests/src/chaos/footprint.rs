//! What a process holds, to find what it never gives back.

use std::fs;

/// How much more a process may hold than at first, since not all moments are alike.
const DESCRIPTORS: u64 = 24;
const THREADS: u64 = 6;
const MEMORY_KIB: u64 = 24 << 10;

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footprint {
    descriptors: u64,
    threads: u64,
    /// Anonymous memory; `None` where it is not compared.
    anonymous_kib: Option<u64>,
}

impl Footprint {
    /// Measures a process.
    #[track_caller]
    pub(super) fn of(pid: u32) -> Self {
        let count = |folder: &str| fs::read_dir(format!("/proc/{pid}/{folder}")).map_or(0, Iterator::count) as u64;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|error| panic!("{pid}: {error}"));
        Self { descriptors: count("fd"), threads: count("task"), anonymous_kib: kib(&status, "RssAnon:") }
    }

    /// Returns the same without memory: a guest's memory grows and shrinks.
    pub(super) fn without_memory(self) -> Self {
        Self { anonymous_kib: None, ..self }
    }

    /// Asserts that `now` is hardly more.
    #[track_caller]
    pub(super) fn expect_no_growth(&self, now: &Self, what: &str) {
        let is_bounded = now.descriptors <= self.descriptors + DESCRIPTORS
            && now.threads <= self.threads + THREADS
            && self.anonymous_kib.zip(now.anonymous_kib).is_none_or(|(before, now)| now <= before + MEMORY_KIB);
        assert!(is_bounded, "{what}: {self:?} became {now:?}");
    }
}

/// Returns a value of `/proc/PID/status`.
fn kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{DESCRIPTORS, Footprint, kib};

    #[test]
    fn growth_is_found() {
        let before = Footprint { descriptors: 9, threads: 3, anonymous_kib: Some(1000) };
        before.expect_no_growth(&Footprint { descriptors: 9 + DESCRIPTORS, ..before }, "it");
        let more = Footprint { descriptors: 10 + DESCRIPTORS, ..before };
        assert!(std::panic::catch_unwind(|| before.expect_no_growth(&more, "it")).is_err());
        let larger = Footprint { anonymous_kib: Some(1 << 30), ..before };
        assert!(std::panic::catch_unwind(|| before.expect_no_growth(&larger, "it")).is_err());
        before.without_memory().expect_no_growth(&larger, "it");
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(kib("Name:\tx\nRssAnon:\t    1234 kB\n", "RssAnon:"), Some(1234));
        assert!(Footprint::of(std::process::id()).descriptors > 0);
    }
}
