//! Anonymous memory of this process, to measure how fast the host backs memory and releases it.

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

pub(crate) const PAGE_BYTES: usize = 4096;
/// The size and alignment of a huge page.
pub(crate) const HUGE_BYTES: usize = 2 << 20;
/// The most ranges that one call may have (`UIO_MAXIOV`).
const RANGES_PER_CALL: usize = 1024;

/// A mapping, aligned for huge pages. It is unmapped when the value is dropped.
pub(crate) struct Mapping {
    /// Start and length of all that was mapped, with the part that aligns the memory.
    whole: (*mut u8, usize),
    start: *mut u8,
    bytes: usize,
    /// A buffer for the pages that are copied out of a huge page.
    kept: Vec<u8>,
}

impl Mapping {
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let mapped = bytes + HUGE_BYTES;
        // SAFETY: the kernel chooses the address, so no other mapping is replaced.
        let whole = unsafe { mmap_anonymous(std::ptr::null_mut(), mapped, access, MapFlags::PRIVATE) };
        let whole = whole.context("mapping memory")?.cast::<u8>();
        Ok(Self {
            whole: (whole, mapped),
            start: whole.wrapping_add(whole.align_offset(HUGE_BYTES)),
            bytes,
            kept: Vec::new(),
        })
    }

    /// Asks the host for huge pages from now on.
    pub(crate) fn advise_huge(&self) -> Result<()> {
        self.advise(Advice::LinuxHugepage).context("asking for huge pages")
    }

    /// Asks the host for small pages from now on.
    pub(crate) fn advise_small(&self) -> Result<()> {
        self.advise(Advice::LinuxNoHugepage).context("asking for small pages")
    }

    fn advise(&self, advice: Advice) -> rustix::io::Result<()> {
        // SAFETY: the range is this mapping, and the advice does not change its contents.
        unsafe { madvise(self.start.cast(), self.bytes, advice) }
    }

    /// Writes to every page.
    pub(crate) fn touch_all(&self) {
        (0..self.bytes).step_by(PAGE_BYTES).for_each(|at| self.touch(at));
    }

    /// Writes to a byte.
    pub(crate) fn touch(&self, at: usize) {
        debug_assert!(at < self.bytes);
        // SAFETY: the byte is within the mapping, to which there are no references.
        unsafe { self.start.wrapping_add(at).write_volatile(1) };
    }

    /// Releases all memory in one call.
    pub(crate) fn release(&self) -> Result<()> {
        // SAFETY: the range is this mapping, to which there are no references.
        unsafe { madvise(self.start.cast(), self.bytes, Advice::LinuxDontNeed) }.context("releasing memory")
    }

    /// Releases the page at `at`.
    pub(crate) fn release_page(&self, at: usize) -> Result<()> {
        debug_assert!(at + PAGE_BYTES <= self.bytes);
        let page = self.start.wrapping_add(at);
        // SAFETY: the range is within this mapping, to which there are no references.
        unsafe { madvise(page.cast(), PAGE_BYTES, Advice::LinuxDontNeed) }.context("releasing a page")
    }

    /// Releases ranges of bytes, in as few calls as the host allows.
    pub(crate) fn release_ranges(&self, ranges: &[Range<usize>]) -> Result<()> {
        self.advise_ranges(ranges, Advice::LinuxDontNeed).context("releasing memory")
    }

    /// Splits the huge pages that these ranges are a part of.
    pub(crate) fn split_at(&self, ranges: &[Range<usize>]) -> Result<()> {
        self.advise_ranges(ranges, Advice::LinuxCold).context("splitting huge pages")
    }

    /// Releases every second page of the huge page at `at`, from the first on: copies the others
    /// out, releases the huge page and copies them back.
    pub(crate) fn keep_every_second(&mut self, at: usize) -> Result<()> {
        debug_assert!(at + HUGE_BYTES <= self.bytes);
        self.kept.resize(HUGE_BYTES / 2, 0);
        let kept = (PAGE_BYTES..HUGE_BYTES).step_by(2 * PAGE_BYTES);
        for (offset, saved) in kept.clone().zip(self.kept.chunks_exact_mut(PAGE_BYTES)) {
            // SAFETY: the page is within the mapping, and the vector is other memory.
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
        let process = pidfd_open(getpid(), PidfdFlags::empty()).context("opening this process")?;
        ranges.chunks(RANGES_PER_CALL).try_for_each(|ranges| self.advise_at_once(&process, ranges, advice))
    }

    /// Gives advice on as many ranges as one call may have. Where `process_madvise` refuses its own
    /// process (before Linux 6.13), each range takes a call.
    fn advise_at_once(&self, process: &OwnedFd, ranges: &[Range<usize>], advice: Advice) -> Result<()> {
        let vectors: Vec<_> = ranges.iter().map(|range| self.vector(range)).collect();
        // SAFETY: the kernel only reads the vectors. They name this mapping, to which there are no
        // references.
        let advised = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                process.as_raw_fd(),
                vectors.as_ptr(),
                vectors.len(),
                advice as libc::c_int,
                0,
            )
        };
        if usize::try_from(advised) == Ok(ranges.iter().map(Range::len).sum()) {
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
        // SAFETY: this value owns the mapping, and there are no references to it.
        let unmapped = unsafe { munmap(start.cast(), bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::{HUGE_BYTES, Mapping, PAGE_BYTES};

    #[test]
    fn released_ranges_read_as_zero_and_others_keep_their_contents() {
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
            // SAFETY: the byte is within the mapping, to which there are no references.
            unsafe { self.start.wrapping_add(at).read_volatile() }
        }
    }
}
