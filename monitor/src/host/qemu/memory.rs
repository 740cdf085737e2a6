//! The memory of a QEMU process: the guest's, and what QEMU has of its own.
//!
//! The kernel counts anonymous and shared memory of the process as a whole (`/proc/PID/status`),
//! which is cheap to read. What of it is the guest's is in `/proc/PID/smaps`, by the mapping that
//! has the machine's size. Reading that walks page tables, so it is done rarely, by the thread of
//! the guest; QEMU's own memory changes slowly. Where there is no such mapping, as with memory in
//! several NUMA nodes, or where the file may not be read, all counts as the guest's.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use aerostat_abi::units::FrameCount;
use rustix::process::Pid;

/// Alignment by which a mapping may be larger than the machine's memory.
const SLACK: FrameCount = FrameCount::from_mib(4);
/// Bytes of the longest `/proc/PID/status`.
const LONGEST_STATUS: usize = 4096;

/// Memory of a process, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessMemory {
    /// Memory that is not pages of files.
    pub(super) resident: FrameCount,
    /// Page tables.
    pub(super) page_tables: FrameCount,
}

/// The status of a process. It is opened while the process is known to be the right one.
#[derive(Debug)]
pub(super) struct StatusFile(File);

impl StatusFile {
    pub(super) fn open(process: Pid) -> Option<Self> {
        File::open(format!("/proc/{}/status", process.as_raw_nonzero())).ok().map(Self)
    }

    /// Reads what the process has now; `None` where it is gone.
    pub(super) fn read(&self) -> Option<ProcessMemory> {
        let mut text = [0; LONGEST_STATUS];
        let count = self.0.read_at(&mut text, 0).ok()?;
        parse_status(&String::from_utf8_lossy(&text[..count]))
    }
}

fn parse_status(text: &str) -> Option<ProcessMemory> {
    let value = |key: &str| text.lines().find_map(|line| kib(line.strip_prefix(key)?));
    Some(ProcessMemory {
        resident: value("RssAnon:")?.saturating_add(value("RssShmem:")?),
        page_tables: value("VmPTE:").unwrap_or_default(),
    })
}

/// Measures what a process has of its own, besides the memory of a guest whose machine has
/// `machine` frames.
pub(super) fn own_memory(process: Pid, machine: FrameCount) -> Option<FrameCount> {
    own_in(&fs::read_to_string(format!("/proc/{}/smaps", process.as_raw_nonzero())).ok()?, machine)
}

/// A mapping, as far as it matters.
#[derive(Clone, Copy, Debug, Default)]
struct Mapping {
    size: FrameCount,
    anonymous: FrameCount,
    is_executed: bool,
}

/// Adds up the anonymous memory of all mappings but the guest's. All comes from one reading, since
/// a guest may grow by much between two.
fn own_in(smaps: &str, machine: FrameCount) -> Option<FrameCount> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if is_head(line) {
            // Memory that is executed is QEMU's translation buffer.
            let is_executed = line.split(' ').nth(1).is_some_and(|access| access.contains('x'));
            mappings.push(Mapping { is_executed, ..Mapping::default() });
        } else if let Some(mapping) = mappings.last_mut() {
            let value = |key: &str| line.strip_prefix(key).and_then(kib);
            mapping.size = value("Size:").unwrap_or(mapping.size);
            mapping.anonymous = value("Anonymous:").unwrap_or(mapping.anonymous);
        }
    }
    let is_fit =
        |mapping: &&Mapping| (machine..=machine.saturating_add(SLACK)).contains(&mapping.size) && !mapping.is_executed;
    let guest = mappings.iter().filter(is_fit).min_by_key(|mapping| mapping.size)?;
    let all = mappings.iter().map(|mapping| mapping.anonymous).fold(FrameCount::ZERO, FrameCount::saturating_add);
    Some(all.saturating_sub(guest.anonymous))
}

/// Returns whether a line of smaps begins a mapping: `55d0-55f0 rw-p 00000000 00:00 0 [heap]`.
fn is_head(line: &str) -> bool {
    line.split(' ').next().is_some_and(|range| range.contains('-') && !range.contains(':'))
}

fn kib(text: &str) -> Option<FrameCount> {
    let number: u64 = text.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(FrameCount(number / 4))
}

#[cfg(test)]
mod tests {
    use super::{ProcessMemory, StatusFile, own_in, parse_status};
    use aerostat_abi::units::FrameCount;

    #[test]
    fn memory_without_files_is_resident() {
        let text = "Name:\tqemu\nVmPTE:\t     400 kB\nRssAnon:\t    8000 kB\nRssFile:\t 999 kB\nRssShmem:\t  4000 kB\n";
        let expected = ProcessMemory { resident: FrameCount(3000), page_tables: FrameCount(100) };
        assert_eq!(parse_status(text), Some(expected));
        assert_eq!(parse_status("Name:\tqemu\nState:\tZ (zombie)\n"), None);
        let own = StatusFile::open(rustix::process::getpid()).unwrap().read().unwrap();
        assert!(own.resident > FrameCount::ZERO && own.page_tables > FrameCount::ZERO);
    }

    #[test]
    fn the_guests_mapping_has_the_size_of_the_machine() {
        let mapping = |access: &str, size: u64, anonymous: u64| {
            let range = format!("7f00-7f01 {access} 00000000 00:00 0 \nSize: {size} kB\nKernelPageSize: 4 kB\n");
            format!("{range}Rss: {anonymous} kB\nAnonymous: {anonymous} kB\nAnonHugePages: 2048 kB\n")
        };
        let smaps = [
            mapping("rw-p", 132, 88),
            mapping("rw-p", 1_048_580, 4),
            mapping("rwxp", 1_048_576, 400),
            mapping("rw-p", 1_048_576, 4096),
            mapping("rw-p", 2_000_000, 8),
        ];
        let machine = FrameCount::from_mib(1024);
        assert_eq!(own_in(&smaps.concat(), machine), Some(FrameCount((88 + 4 + 400 + 8) / 4)));
        assert_eq!(own_in(&smaps[0], machine), None);
        assert_eq!(own_in("", machine), None);
    }
}
