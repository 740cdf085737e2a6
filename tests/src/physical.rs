//! Physical memory that a test or a bench and its guests take. Resident memory would not do: it
//! falls when part of a huge page is unmapped, and the huge page stays allocated.

use std::fs;
use std::io;

use aerostat::host::cgroup::MemoryGroup;

/// A meter of what this process and those that it starts from now on take.
#[derive(Debug)]
pub enum PhysicalMeter {
    /// By the charge of a control group that this process is in.
    Zspage(MemoryGroup),
    /// By the host's free memory, where no group can be made: exact on a quiet host only.
    Host,
}

impl PhysicalMeter {
    /// Begins to measure.
    #[must_use]
    pub fn enter() -> Self {
        let group = MemoryGroup::create().and_then(|group| group.enter().map(|()| group));
        group.map_or(Self::Host, Self::Zspage)
    }

    /// Whether metrics are about this process and its children alone.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        matches!(self, Self::Zspage(_))
    }

    /// Bytes taken now. Only differences mean something.
    ///
    /// # Errors
    /// Where the kernel's metrics can't be read.
    pub fn bytes(&self) -> io::Result<u64> {
        match self {
            Self::Zspage(group) => Ok(group.usage()?.anonymous()),
            Self::Host => {
                let text = fs::read_to_string("/proc/meminfo")?;
                taken(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
            }
        }
    }
}

/// Bytes that are not free, by `/proc/meminfo` (proc_meminfo(5)).
fn taken(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((kib("MemTotal")?.saturating_sub(kib("MemFree")?)) << 10)
}

#[cfg(test)]
mod tests {
    use super::taken;

    #[test]
    fn what_is_not_free_is_taken() {
        assert_eq!(taken("MemTotal:  100 kB\nMemFree:    40 kB\nMemAvailable: 90 kB\n"), Some(60 << 10));
        assert_eq!(taken("MemTotal:  100 kB\n"), None);
    }
}
