//! Samples the host's resources for the guests that are told of them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::requests::{DiskSpace, HostResources};
use crate::clock::Moment;

/// How often the host is sampled.
const INTERVAL: Duration = Duration::from_secs(1);
/// The processors that the kernel runs processes on.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// The meter of a run.
#[derive(Debug)]
pub(super) struct HostMeter {
    disk: Option<DiskSpace>,
    next: Moment,
}

impl HostMeter {
    /// Creates a meter, and measures what a later measurement could wait for: a file system may
    /// hang.
    pub(super) fn new(swap_folder: &Path) -> Self {
        let space = rustix::fs::statvfs(swap_folder).ok();
        let disk = space.map(|space| DiskSpace {
            total: space.f_blocks.saturating_mul(space.f_frsize),
            free: space.f_bavail.saturating_mul(space.f_frsize),
        });
        Self { disk, next: Moment::default() }
    }

    /// Returns the host's resources if it is time.
    pub(super) fn sample(&mut self, now: Moment) -> Option<HostResources> {
        if now < self.next {
            return None;
        }
        self.next = now.after(INTERVAL);
        let online = fs::read_to_string(ONLINE).unwrap_or_default();
        Some(HostResources { processors: count_processors(&online), disk: self.disk })
    }
}

/// Returns how many processors a list names, such as `0-3,8`; at least one, as this runs on it.
fn count_processors(list: &str) -> u64 {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)?.saturating_add(1))
    });
    ranges.fold(0, u64::saturating_add).max(1)
}

#[cfg(test)]
mod tests {
    use super::{HostMeter, count_processors};
    use crate::clock::Moment;
    use std::path::Path;

    #[test]
    fn processors_are_counted() {
        assert_eq!(count_processors("0-3,8\n"), 5);
        assert_eq!(count_processors("0\n"), 1);
        assert_eq!((count_processors(""), count_processors("3-1,x")), (1, 1));
    }

    #[test]
    fn the_host_is_sampled_once_a_second() {
        let mut meter = HostMeter::new(Path::new("/"));
        let sampled = [1, 999, 1001, 1500, 2100].map(|ms| meter.sample(Moment::from_ns(ms * 1_000_000)).is_some());
        assert_eq!(sampled, [true, false, true, false, true]);
        let host = meter.sample(Moment::from_ns(9_000_000_000)).unwrap();
        assert!(host.processors > 0 && host.disk.is_some_and(|disk| disk.total > disk.free));
    }
}
