//! Releasing guest memory to the host.
//!
//! `MADV_DONTNEED` is applied by range, not by frame: a call costs about a microsecond, and
//! releasing a 2 MiB page costs hardly more. Many ranges are released by one `process_madvise` on
//! the own process where the kernel allows that (Linux 6.13 and later), which nearly doubles the
//! rate for scattered frames; elsewhere each range is a call.
//!
//! Releasing part of a huge page unmaps that part and frees nothing: the huge page stays allocated
//! as a whole until memory runs short. [`Releaser::split`] has the kernel split it at once;
//! `huge_pages` says when that is needed.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use aerostat_abi::units::FRAME_SIZE;
use rustix::mm::{Advice, madvise};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::memory::GuestMemory;

/// Ranges that one call may carry (`UIO_MAXIOV`).
const RANGES_PER_CALL: usize = 1024;

/// How this host releases memory.
#[derive(Debug)]
pub(super) struct Releaser {
    /// The own process, where `process_madvise` takes it.
    bulk: Option<OwnedFd>,
}

impl Releaser {
    /// Detects what the kernel can do.
    pub(super) fn new() -> Self {
        let process = pidfd_open(getpid(), PidfdFlags::empty()).ok();
        Self { bulk: process.filter(|process| process_madvise(process, &[], Advice::LinuxDontNeed).is_ok()) }
    }

    /// Releases what is behind `ranges` of frame indexes, in order. Returns how many of the ranges
    /// were released before one failed. The guest reads zeros there from now on.
    pub(super) fn release(&self, memory: &GuestMemory, ranges: &[Range<usize>]) -> usize {
        self.advise(memory, ranges, Advice::LinuxDontNeed)
    }

    /// Has the kernel split the huge pages that these ranges of frames are parts of. Contents stay
    /// as they are, and concurrent accesses wait a moment. A frame with a small page behind it, or
    /// with none, costs next to nothing.
    ///
    /// `MADV_COLD` on a part of a huge page splits it first (Linux 5.4), as only the part is to be
    /// aged. A huge page that the kernel holds at this moment, such as for direct I/O, is left for
    /// the kernel to split when memory runs short.
    pub(super) fn split(&self, memory: &GuestMemory, parts: &[Range<usize>]) {
        // Fails only where the kernel does not know the advice; then it splits the huge pages when
        // memory runs short.
        self.advise(memory, parts, Advice::LinuxCold);
    }

    /// Applies advice to ranges, in order; returns to about how many before the kernel refused.
    fn advise(&self, memory: &GuestMemory, ranges: &[Range<usize>], advice: Advice) -> usize {
        let mut done = 0;
        if let Some(process) = &self.bulk
            && ranges.len() > 1
        {
            for chunk in ranges.chunks(RANGES_PER_CALL) {
                let vectors: Vec<_> = chunk.iter().map(|range| vector(memory, range)).collect();
                let bytes: usize = vectors.iter().map(|vector| vector.iov_len).sum();
                if process_madvise(process, &vectors, advice).ok() != Some(bytes) {
                    break;
                }
                done += chunk.len();
            }
        }
        for range in &ranges[done..] {
            let libc::iovec { iov_base, iov_len } = vector(memory, range);
            // SAFETY: the range lies in guest memory, to which there are no references while a
            // guest runs.
            if unsafe { madvise(iov_base, iov_len, advice) }.is_err() {
                break;
            }
            done += 1;
        }
        done
    }
}

/// Returns where the frames of a range lie in our address space.
fn vector(memory: &GuestMemory, range: &Range<usize>) -> libc::iovec {
    let base = memory.host_address(range.start * FRAME_SIZE);
    // The end is checked too: a range that did not come from the layout must not reach the kernel.
    let end = memory.host_address(range.end * FRAME_SIZE);
    libc::iovec { iov_base: base.cast(), iov_len: end.addr() - base.addr() }
}

/// Calls `process_madvise(2)`, for which rustix has no wrapper; returns to how many bytes the
/// advice was applied.
fn process_madvise(process: &OwnedFd, ranges: &[libc::iovec], advice: Advice) -> io::Result<usize> {
    // SAFETY: the kernel only reads the vectors; they name guest memory (see `vector`), to which
    // there are no references.
    let heeded = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            ranges.as_ptr(),
            ranges.len(),
            advice as libc::c_int,
            0,
        )
    };
    usize::try_from(heeded).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::Releaser;
    use crate::layout::{GuestAddress, MemoryLayout};
    use crate::memory::GuestMemory;
    use aerostat_abi::units::FrameCount;

    fn check(releaser: &Releaser) {
        let memory = GuestMemory::new(MemoryLayout::new(FrameCount::from_mib(8)).unwrap()).unwrap();
        let address = |frame: u64| GuestAddress(frame * 4096);
        for frame in 0..100 {
            memory.write_words(address(frame), &[7]).unwrap();
        }
        let ranges: Vec<_> = (0..50).map(|frame| frame * 2..frame * 2 + 1).collect();
        assert_eq!(releaser.release(&memory, &ranges), 50);
        for frame in 0..100 {
            let mut word = [0];
            memory.read_words(address(frame), &mut word).unwrap();
            assert_eq!(word[0], if frame % 2 == 0 { 0 } else { 7 });
        }
    }

    #[test]
    fn both_ways_release_exactly_the_ranges() {
        check(&Releaser::new());
        check(&Releaser { bulk: None });
    }
}
