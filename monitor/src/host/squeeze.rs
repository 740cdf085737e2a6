//! Taking memory from a process that does not answer: the kernel is told to page its memory out.
//!
//! It goes to the host's own swap, so there has to be some. The process need not run, and finds its
//! pages again when it does. `process_madvise(2)` with `MADV_PAGEOUT` needs Linux 5.10 and the
//! right to trace the process.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aerostat_abi::units::FrameCount;

use crate::vmm;

/// The most that one call pages out; between two the amount that is left is checked.
const CHUNK: FrameCount = FrameCount::from_mib(16);

/// The squeezes of one process, of which one runs at a time.
#[derive(Debug, Default)]
pub(super) struct Squeezer {
    is_busy: Arc<AtomicBool>,
}

/// The process that is squeezed.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    /// The size of the guest's memory, by which its mapping is found.
    pub(super) memory: FrameCount,
}

/// A range of addresses of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
}

impl Squeezer {
    /// Begins to page `excess` out, on a thread of its own. Returns whether there is a way: the
    /// host has swap, and the process's memory can be found.
    pub(super) fn begin(&self, subject: Subject, excess: FrameCount) -> bool {
        if self.is_busy.load(Ordering::Acquire) {
            return true;
        }
        let maps = fs::read_to_string(format!("/proc/{}/maps", subject.pid)).unwrap_or_default();
        let Some(range) = guest_memory(&maps, subject.memory).filter(|_| has_swap()) else { return false };
        self.is_busy.store(true, Ordering::Release);
        let is_busy = Arc::clone(&self.is_busy);
        let work = move || {
            page_out(&subject, range, excess);
            is_busy.store(false, Ordering::Release);
        };
        let spawned = thread::Builder::new().name("squeezer".to_owned()).spawn(work);
        if spawned.is_err() {
            self.is_busy.store(false, Ordering::Release);
        }
        spawned.is_ok()
    }
}

fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|list| list.lines().count() > 1)
}

/// Pages out until `excess` is gone or the whole range was visited once.
fn page_out(subject: &Subject, range: Range, excess: FrameCount) {
    let Ok(statm) = File::open(format!("/proc/{}/statm", subject.pid)) else { return };
    let resident = || vmm::read_anonymous(&statm).unwrap_or_default();
    let enough = resident().saturating_sub(excess);
    let mut start = range.start;
    while start < range.end && resident() > enough {
        let end = range.end.min(start + CHUNK.bytes());
        if advise_pageout(&subject.pidfd, Range { start, end }).is_err() {
            return;
        }
        start = end;
    }
}

fn advise_pageout(pidfd: &OwnedFd, range: Range) -> io::Result<()> {
    let piece = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(usize::try_from(range.start).map_err(io::Error::other)?),
        iov_len: usize::try_from(range.end - range.start).map_err(io::Error::other)?,
    };
    // SAFETY: the advice changes where the other process's pages are, and not what they contain; of
    // this process the kernel reads one `iovec`.
    let done = unsafe {
        libc::syscall(libc::SYS_process_madvise, pidfd.as_raw_fd(), &raw const piece, 1_usize, libc::MADV_PAGEOUT, 0)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Finds the guest's memory in `/proc/PID/maps`: the smallest mapping that can be written and that
/// has room for it. The parts of a mapping with different advice are adjacent.
fn guest_memory(maps: &str, memory: FrameCount) -> Option<Range> {
    let mut found: Vec<Range> = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(addresses), Some(access)) = (fields.next(), fields.next()) else { continue };
        let Some((start, end)) = addresses.split_once('-') else { continue };
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (Some(start), Some(end)) = (number(start), number(end)) else { continue };
        let is_anonymous = fields.nth(2) == Some("0");
        if !access.starts_with("rw") || !is_anonymous {
            continue;
        }
        match found.last_mut().filter(|last| last.end == start) {
            Some(last) => last.end = end,
            None => found.push(Range { start, end }),
        }
    }
    let fits = found.into_iter().filter(|range| range.end - range.start >= memory.bytes());
    fits.min_by_key(|range| range.end - range.start)
}

#[cfg(test)]
mod tests {
    use super::{Range, guest_memory};
    use aerostat_abi::units::FrameCount;

    const MAPS: &str = "\
55d000000000-55d000010000 r-xp 00000000 fe:00 77 /usr/bin/program
55d000010000-55d000020000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0008000000 rw-p 00000000 00:00 0 
7f0008000000-7f0010000000 rw-p 00000000 00:00 0 
7f1000000000-7f1080000000 rw-p 00000000 00:00 0 
7f2000000000-7f2080000000 ---p 00000000 00:00 0 
";

    #[test]
    fn the_smallest_mapping_with_room_is_the_guests() {
        let of = |mib| guest_memory(MAPS, FrameCount::from_mib(mib));
        assert_eq!(of(256), Some(Range { start: 0x7f00_0000_0000, end: 0x7f00_1000_0000 }));
        assert_eq!(of(257), Some(Range { start: 0x7f10_0000_0000, end: 0x7f10_8000_0000 }));
        assert_eq!(of(4096), None);
        assert_eq!(guest_memory("nonsense\n-\n", FrameCount(1)), None);
    }
}
