//! Anonymous memory of this process: what the host itself takes to back memory and to release it.

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

pub(crate) const PAGE_BYTES: usize = 4096;
/// Where a huge page may begin.
pub(crate) const HUGE_BYTES: usize = 2 << 20;
/// Ranges that one call may carry (`UIO_MAXIOV`).
const RANGES_PER_CALL: usize = 1024;

/// A mapping, aligned so that huge pages fit. Unmapped when dropped.
pub(crate) struct Mapping {
    /// What was mapped: the memory and what aligns it.
    whole: (*mut u8, usize),
    start: *mut u8,
    bytes: usize,
    /// Room for what is copied out of a huge page.
    kept: Vec<u8>,
}

impl Mapping {
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let mapped = bytes + HUGE_BYTES;
        // SAFETY: no address is asked for, so nothing that exists is replaced.
        let whole = unsafe { mmap_anonymous(std::ptr::null_mut(), mapped, access, MapFlags::PRIVATE) };
        let whole = whole.context("mapping memory")?.cast::<u8>();
        Ok(Self {
            whole: (whole, mapped),
            start: whole.wrapping_add(whole.align_offset(HUGE_BYTES)),
            bytes,
            kept: Vec::new(),
        })
    }

    /// Huge pages from now on, where the host has them.
    pub(crate) fn advise_huge(&self) -> Result<()> {
        self.advise(Advice::LinuxHugepage).context("asking for huge pages")
    }

    /// Small pages from now on.
    pub(crate) fn advise_small(&self) -> Result<()> {
        self.advise(Advice::LinuxNoHugepage).context("asking for small pages")
    }

    fn advise(&self, advice: Advice) -> rustix::io::Result<()> {
        // SAFETY: the range is this mapping, and the advice changes nothing that is in it.
        unsafe { madvise(self.start.cast(), self.bytes, advice) }
    }

    pub(crate) fn touch_all(&self) {
        (0..self.bytes).step_by(PAGE_BYTES).for_each(|at| self.touch(at));
    }

    pub(crate) fn touch(&self, at: usize) {
        debug_assert!(at < self.bytes);
        // SAFETY: the byte lies within the mapping, to which there are no references.
        unsafe { self.start.wrapping_add(at).write_volatile(1) };
    }

    /// Releases all of it in one call.
    pub(crate) fn release(&self) -> Result<()> {
        // SAFETY: the range is this mapping, to which there are no references.
        unsafe { madvise(self.start.cast(), self.bytes, Advice::LinuxDontNeed) }.context("releasing memory")
    }

    /// Releases ranges of bytes, as many in a call as the host takes.
    pub(crate) fn release_ranges(&self, ranges: &[Range<usize>]) -> Result<()> {
        self.advise_ranges(ranges, Advice::LinuxDontNeed).context("releasing memory")
    }

    /// Splits the huge pages that these ranges are a part of.
    pub(crate) fn split_at(&self, ranges: &[Range<usize>]) -> Result<()> {
        self.advise_ranges(ranges, Advice::LinuxCold).context("splitting huge pages")
    }

    /// Of the huge page at `at`, keeps every second page from the second on, by copying it out and
    /// back.
    pub(crate) fn keep_every_second(&mut self, at: usize) -> Result<()> {
        debug_assert!(at + HUGE_BYTES <= self.bytes);
        self.kept.resize(HUGE_BYTES / 2, 0);
        let kept = (PAGE_BYTES..HUGE_BYTES).step_by(2 * PAGE_BYTES);
        for (offset, saved) in kept.clone().zip(self.kept.chunks_exact_mut(PAGE_BYTES)) {
            // SAFETY: the page lies within the mapping, and the vector is other memory.
            unsafe { self.start.wrapping_add(at + offset).copy_to_nonoverlapping(saved.as_mut_ptr(), PAGE_BYTES) };
        }
        self.release_ranges(std::slice::from_ref(&(at..at + HUGE_BYTES)))?;
        for (offset, saved) in kept.zip(self.kept.chunks_exact(PAGE_BYTES)) {
            // SAFETY: as above.
            unsafe { self.start.wrapping_add(at + offset).copy_from_nonoverlapping(saved.as_ptr(), PAGE_BYTES) };
        }
        Ok(())
    }

    fn advise_ranges(&self, ranges: &[Range<usize>], advice: Advice) -> Result<()> {
        let process = pidfd_open(getpid(), PidfdFlags::empty()).context("opening the own process")?;
        ranges.chunks(RANGES_PER_CALL).try_for_each(|ranges| self.advise_at_once(&process, ranges, advice))
    }

    /// As many ranges as one call takes; where `process_madvise` refuses the own process (before
    /// Linux 6.13), each is a call.
    fn advise_at_once(&self, process: &OwnedFd, ranges: &[Range<usize>], advice: Advice) -> Result<()> {
        let vectors: Vec<_> = ranges.iter().map(|range| self.vector(range)).collect();
        // SAFETY: the kernel reads the vectors only; what they name is this mapping, to which there
        // are no references.
        let heeded = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                process.as_raw_fd(),
                vectors.as_ptr(),
                vectors.len(),
                advice as libc::c_int,
                0,
            )
        };
        if usize::try_from(heeded) == Ok(ranges.iter().map(Range::len).sum()) {
            return Ok(());
        }
        for vector in vectors {
            // SAFETY: as above.
            unsafe { madvise(vector.iov_base, vector.iov_len, advice) }?;
        }
        Ok(())
    }

    fn vector(&self, range: &Range<usize>) -> libc::iovec {
        debug_assert!(range.start <= range.end && range.end <= self.bytes);
        libc::iovec { iov_base: self.start.wrapping_add(range.start).cast(), iov_len: range.len() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (start, bytes) = self.whole;
        // SAFETY: the mapping is this value's own, and there are no references to it.
        let unmapped = unsafe { munmap(start.cast(), bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::{HUGE_BYTES, Mapping, PAGE_BYTES};

    #[test]
    fn what_is_released_reads_as_zero() {
        let mapping = Mapping::new(HUGE_BYTES).unwrap();
        mapping.advise_small().unwrap();
        mapping.touch_all();
        let page = |number: usize| number * PAGE_BYTES;
        let ranges: Vec<_> = (0..8).map(|number| page(2 * number)..page(2 * number + 1)).collect();
        mapping.release_ranges(&ranges).unwrap();
        assert_eq!([0, 1, 14, 15, 16].map(|number| mapping.read(page(number))), [0, 1, 0, 1, 1]);
        mapping.release().unwrap();
        assert_eq!(mapping.read(page(1)), 0);
    }

    impl Mapping {
        fn read(&self, at: usize) -> u8 {
            // SAFETY: the byte lies within the mapping, to which there are no references.
            unsafe { self.start.wrapping_add(at).read_volatile() }
        }
    }
}
