//! How much host memory is really behind the guest.
//!
//! Measured as the process's anonymous memory (`/proc/self/statm`, resident less shared) less its
//! value before the guest's memory was touched. `smaps` of the guest's mapping would be exact
//! without a baseline, but walks every page table of the process: milliseconds for a large guest,
//! against about 2 us here, for any size. What the VMM process itself allocates later counts as the
//! guest's: stacks and a few log lines, below 200 KiB. Memory that the guest only read is the
//! host's zero page and rightly not counted.
//!
//! The page tables that map guest memory are measured separately (`VmPTE` in `/proc/self/status`):
//! 4 KiB for each huge frame with any memory behind it. They are host memory that the guest has
//! caused, but not memory that it uses beyond its size. The file takes 16 us to read, so it is read
//! where resident memory has changed, and otherwise now and then.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::registers::RegisterPage;
use aerostat_abi::units::{FRAME_BYTES, FrameCount};

use super::host_files::MemoryFiles;

/// Samples after which page tables are measured although resident memory has not changed.
const STALE_LOOKS: u64 = 16;

/// Measures this process.
#[derive(Debug)]
pub(super) struct ResidentMeter {
    files: MemoryFiles,
    baseline: FrameCount,
    /// Resident memory when page tables were last measured, and the samples since then.
    tables_measured_at: AtomicU64,
    looks_since: AtomicU64,
}

impl ResidentMeter {
    /// Creates a meter that reads zero now. To be called when the process has all that it needs and
    /// guest memory is still untouched.
    pub(super) fn new(files: MemoryFiles) -> io::Result<Self> {
        let mut meter = Self {
            files,
            baseline: FrameCount::ZERO,
            tables_measured_at: AtomicU64::new(u64::MAX),
            looks_since: AtomicU64::new(0),
        };
        meter.baseline = meter.measure()?;
        Ok(meter)
    }

    /// Measures and publishes the result.
    pub(super) fn publish(&self, registers: &RegisterPage) -> io::Result<FrameCount> {
        let resident = self.measure()?;
        registers.set_resident(resident);
        Ok(resident)
    }

    /// Measures page tables and publishes them, unless nothing has changed since the last time. For
    /// the main thread's samples.
    pub(super) fn publish_page_tables(&self, registers: &RegisterPage, resident: FrameCount) -> io::Result<()> {
        let is_old = self.looks_since.fetch_add(1, Ordering::Relaxed) >= STALE_LOOKS;
        if self.tables_measured_at.swap(resident.0, Ordering::Relaxed) != resident.0 || is_old {
            self.looks_since.store(0, Ordering::Relaxed);
            let mut text = [0; 4096];
            let bytes = self.files.status.read_at(&mut text, 0)?;
            registers.set_page_tables(page_tables(&text[..bytes]).ok_or(io::ErrorKind::InvalidData)?);
        }
        Ok(())
    }

    /// Returns the host memory behind the guest now.
    pub(super) fn measure(&self) -> io::Result<FrameCount> {
        Ok(read_anonymous(&self.files.statm)?.saturating_sub(self.baseline))
    }
}

/// Returns the anonymous memory of the process whose `statm` this is.
pub fn read_anonymous(statm: &File) -> io::Result<FrameCount> {
    let mut text = [0; 128];
    let bytes = statm.read_at(&mut text, 0)?;
    Ok(anonymous(&text[..bytes]).ok_or(io::ErrorKind::InvalidData)?)
}

/// Returns resident less shared pages in a line of `statm` (proc_pid_statm(5)): size, resident,
/// shared, ... Pages have 4 KiB on x86-64.
fn anonymous(statm: &[u8]) -> Option<FrameCount> {
    const _: () = assert!(FRAME_BYTES == 4096, "a frame of the guest is a page of the host");
    let mut fields = std::str::from_utf8(statm).ok()?.split_ascii_whitespace().skip(1).map(str::parse);
    let resident = FrameCount(fields.next()?.ok()?);
    let shared = FrameCount(fields.next()?.ok()?);
    Some(resident.saturating_sub(shared))
}

/// Returns the page tables by `status` (proc_pid_status(5)). Those from before the guest are some
/// 50 KiB.
fn page_tables(status: &[u8]) -> Option<FrameCount> {
    // The process's name comes first, and may have any bytes.
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"VmPTE:"))?;
    let kib: u64 = std::str::from_utf8(line).ok()?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(FrameCount::from_bytes_ceil(kib << 10))
}

#[cfg(test)]
mod tests {
    use super::{ResidentMeter, anonymous, page_tables};
    use crate::host_files::MemoryFiles;
    use crate::layout::{GuestAddress, MemoryLayout};
    use crate::memory::GuestMemory;
    use aerostat_abi::units::FrameCount;

    #[test]
    fn the_statm_line_is_parsed() {
        assert_eq!(anonymous(b"4711 300 200 1 0 50 0\n"), Some(FrameCount(100)));
        assert_eq!(anonymous(b"4711 300"), None);
        assert_eq!(anonymous(b"\xff"), None);
    }

    #[test]
    fn page_tables_are_found() {
        assert_eq!(page_tables(b"Name:\t\xff\nVmPTE:\t      44 kB\nVmSwap:\t 0 kB\n"), Some(FrameCount(11)));
        assert_eq!(page_tables(b"VmPTE:\t44"), None);
        assert_eq!(page_tables(b""), None);
    }

    #[test]
    fn touched_memory_is_counted() {
        let memory = GuestMemory::new(MemoryLayout::new(FrameCount::from_mib(128)).unwrap()).unwrap();
        let meter = ResidentMeter::new(MemoryFiles::open().unwrap()).unwrap();
        for mib in 0..64 {
            memory.write_words(GuestAddress(mib << 20), &[1]).unwrap();
        }
        // Other tests run in this process: the tolerance is wide, and without huge pages only one
        // page per MiB is there.
        assert!(meter.measure().unwrap() >= FrameCount(64));
    }
}
