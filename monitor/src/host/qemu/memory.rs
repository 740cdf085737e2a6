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

/// Measures what of the memory of a process is that of a guest whose machine has `machine` frames.
pub(super) fn guest_memory(process: Pid, machine: FrameCount) -> Option<FrameCount> {
    find_mapping(&fs::read_to_string(format!("/proc/{}/smaps", process.as_raw_nonzero())).ok()?, machine)
}

fn find_mapping(smaps: &str, machine: FrameCount) -> Option<FrameCount> {
    let mut best: Option<(FrameCount, FrameCount)> = None;
    let mut size = None;
    for line in smaps.lines() {
        if is_head(line) {
            // Memory that is executed is QEMU's translation buffer.
            size = None;
        } else if let Some(found) = line.strip_prefix("Size:").and_then(kib) {
            size = Some(found).filter(|&found| found >= machine && found <= machine.saturating_add(SLACK));
        } else if let (Some(resident), Some(of)) = (line.strip_prefix("Rss:").and_then(kib), size)
            && best.is_none_or(|(smallest, _)| of < smallest)
        {
            best = Some((of, resident));
        }
    }
    best.map(|(_, resident)| resident)
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
    use super::{ProcessMemory, StatusFile, find_mapping, parse_status};
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
        let mapping = |size: u64, resident: u64| {
            format!(
                "7f00-7f01 rw-p 00000000 00:00 0 \nSize: {size} kB\nKernelPageSize: 4 kB\nRss: {resident} kB\nPss: 1 kB\n"
            )
        };
        let smaps =
            [(132, 88), (1_048_580, 4), (1_048_576, 4096), (2_000_000, 8)].map(|(size, rss)| mapping(size, rss));
        let machine = FrameCount::from_mib(1024);
        assert_eq!(find_mapping(&smaps.concat(), machine), Some(FrameCount(1024)));
        assert_eq!(find_mapping(&smaps[0], machine), None);
        assert_eq!(find_mapping("", machine), None);
    }
}
