//! Measures the physical memory that a test or a bench and its guests take. Resident memory does
//! not show it: that falls when part of a huge page is unmapped, while the huge page stays
//! allocated.

use std::fs;
use std::io;

use aerostat::host::cgroup::MemoryGroup;

/// A meter of the memory of this process and of those that it starts after [`Self::enter`].
#[derive(Debug)]
pub enum PhysicalMeter {
    /// Reads the charge of a control group that this process is in.
    Group(MemoryGroup),
    /// Reads the host's free memory, if no group can be made. It is exact only on a quiet host.
    Host,
}

impl PhysicalMeter {
    /// Makes a control group and moves this process into it, if both are permitted.
    #[must_use]
    pub fn enter() -> Self {
        let group = MemoryGroup::create().and_then(|group| group.enter().map(|()| group));
        group.map_or(Self::Host, Self::Group)
    }

    /// Returns whether the meter leaves out all other processes of the host.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        matches!(self, Self::Group(_))
    }

    /// Returns the bytes in use now, the kernel's own memory included. Only differences between
    /// two calls have a meaning.
    ///
    /// # Errors
    /// When the kernel's files can't be read.
    pub fn bytes_with_kernel(&self) -> io::Result<u64> {
        match self {
            Self::Group(group) => group.usage().map(|usage| usage.charged.saturating_sub(usage.cache)),
            Self::Host => self.bytes(),
        }
    }

    /// Returns the bytes in use now. Only differences between two calls have a meaning.
    ///
    /// # Errors
    /// When the kernel's files can't be read.
    pub fn bytes(&self) -> io::Result<u64> {
        match self {
            Self::Group(group) => Ok(group.usage()?.anonymous()),
            Self::Host => {
                let text = fs::read_to_string("/proc/meminfo")?;
                used(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
            }
        }
    }
}

/// Returns the bytes that are not free, by `/proc/meminfo` (proc_meminfo(5)).
fn used(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((kib("MemTotal")?.saturating_sub(kib("MemFree")?)) << 10)
}

#[cfg(test)]
mod tests {
    use super::used;

    #[test]
    fn used_memory_is_all_that_is_not_free() {
        assert_eq!(used("MemTotal:  100 kB\nMemFree:    40 kB\nMemAvailable: 90 kB\n"), Some(60 << 10));
        assert_eq!(used("MemTotal:  100 kB\n"), None);
    }
}
