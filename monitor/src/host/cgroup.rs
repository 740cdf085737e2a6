//! Memory control groups: how much host memory the kernel itself counts as used, and how it limits
//! that.
//!
//! ```text
//! the group of the supervisor
//! └── aerostat-PID-NUMBER    the pool: its charge is the physical memory of the fleet (PoolGroup)
//!     ├── NAME-NUMBER        a guest's process and its limit (GuestGroup)
//!     └── NAME-NUMBER
//! ```
//!
//! Resident memory is what page tables map. It falls as soon as part of a huge page is unmapped,
//! while the huge page is still allocated. A control group is charged for a page until the page is
//! free, so its charge is physical memory. `Usage::anonymous` leaves out the page cache and the
//! kernel's own memory; both are charged to the same group. Version 1's `rss` and version 2's
//! `anon` count mapped pages and are therefore no substitute.
//!
//! Charges are batched by processor: a value is exact to about 256 KiB for each processor.

use std::io;

mod group;
mod guest;
mod location;
mod pool;

pub use self::group::MemoryGroup;
pub use self::guest::GuestGroup;
pub use self::location::{Location, Version};
pub use self::pool::PoolGroup;

/// Bytes that are charged to a group and to the groups below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Everything.
    pub charged: u64,
    /// Pages of files, `tmpfs` included.
    pub cache: u64,
    /// The kernel's own memory: page tables, those of KVM included, and what it allocates for
    /// processes.
    pub kernel: u64,
}

impl Usage {
    /// Physical memory behind anonymous mappings. Version 1 charges the kernel's memory too, so all
    /// three are from one group.
    #[must_use]
    pub const fn anonymous(&self) -> u64 {
        self.charged.saturating_sub(self.cache).saturating_sub(self.kernel)
    }
}

/// Reads the files of a group.
fn usage(version: Version, read: impl Fn(&str) -> io::Result<String>) -> io::Result<Usage> {
    let number = |name: &str| {
        let text = read(name)?;
        text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    };
    match version {
        Version::V1 => Ok(Usage {
            charged: number(version.charge_file())?,
            cache: entry(&read("memory.stat")?, "total_cache").ok_or(io::ErrorKind::InvalidData)?,
            // Missing where the kernel was told not to account for its own memory.
            kernel: number("memory.kmem.usage_in_bytes").unwrap_or(0),
        }),
        Version::V2 => {
            let stat = read("memory.stat")?;
            let sum = |names: &[&str]| names.iter().filter_map(|name| entry(&stat, name)).sum();
            Ok(Usage {
                charged: number(version.charge_file())?,
                cache: entry(&stat, "file").ok_or(io::ErrorKind::InvalidData)?,
                // One number since Linux 5.18; its parts before.
                kernel: entry(&stat, "kernel")
                    .unwrap_or_else(|| sum(&["slab", "kernel_stack", "pagetables", "percpu"])),
            })
        }
    }
}

/// Returns the number in the line of `memory.stat` that begins with `name`.
fn entry(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{Usage, Version, usage};
    use std::io;

    fn read<'a>(files: &'a [(&str, &str)]) -> impl Fn(&str) -> io::Result<String> + 'a {
        |wanted| {
            let found = files.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    #[test]
    fn version_1_counts_the_groups_below() {
        let files = [
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.stat", "cache 1\nrss 7\ntotal_cache 100\ntotal_cached 5\n"),
            ("memory.kmem.usage_in_bytes", "30\n"),
        ];
        let expected = Usage { charged: 1000, cache: 100, kernel: 30 };
        assert_eq!(usage(Version::V1, read(&files)).unwrap(), expected);
        assert_eq!(expected.anonymous(), 870);
        assert_eq!(usage(Version::V1, read(&files[..2])).unwrap().kernel, 0, "not every kernel counts its own");
        assert!(usage(Version::V1, read(&files[..1])).is_err());
    }

    #[test]
    fn version_2_has_one_number_for_the_kernel_or_its_parts() {
        let new = [("memory.current", "1000\n"), ("memory.stat", "anon 5\nfile 100\nkernel 40\nkernel_stack 8\n")];
        assert_eq!(usage(Version::V2, read(&new)).unwrap(), Usage { charged: 1000, cache: 100, kernel: 40 });
        let old = [("memory.current", "1000\n"), ("memory.stat", "file 100\nslab 20\nkernel_stack 8\npagetables 3\n")];
        assert_eq!(usage(Version::V2, read(&old)).unwrap().kernel, 31);
        assert!(usage(Version::V2, read(&[("memory.current", "lots"), ("memory.stat", "file 1\n")])).is_err());
    }

    #[test]
    fn inconsistent_values_do_not_panic() {
        assert_eq!(Usage { charged: 10, cache: 100, kernel: 3 }.anonymous(), 0);
    }
}
