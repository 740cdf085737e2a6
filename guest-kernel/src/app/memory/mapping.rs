//! Mappings: memory of an application in a region of its own, with advice about it.
#![allow(unsafe_code, reason = "makes slices out of a region of its own")]

use core::ops::{Deref, DerefMut, Range};
use core::ptr::NonNull;

use aerostat_abi::units::{FRAME_SIZE, HUGE_SIZE, to_usize};

use super::{OutOfMemory, RegionStatistics};
use crate::balloon;
use crate::layout::APP_REGIONS;
use crate::mm::page_table::Access;
use crate::mm::{self, advice};

/// The host is told at once of changes of at least this size.
const NOTABLE_BYTES: usize = HUGE_SIZE;

/// Bytes in a region of their own: page-aligned, zero at first, mapped when they are touched, and
/// freed when the mapping is dropped.
///
/// Ranges are in bytes from the beginning of the mapping. One that ends behind the mapping's end
/// panics, as with slices.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping owns its region; sharing it shares bytes that only an exclusive reference
// changes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes of zeroed memory. They are committed now, and each page gets a frame when
    /// it is first touched. May wait for the host.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the commit charge is refused.
    pub fn anonymous(bytes: usize) -> Result<Self, OutOfMemory> {
        let start = mm::map_region(APP_REGIONS, bytes as u64)?;
        report(bytes);
        let start = core::ptr::with_exposed_provenance_mut(to_usize(start));
        Ok(Self { start: NonNull::new(start).ok_or(OutOfMemory)?, length: bytes })
    }

    /// Zeroes `range`, and frees the memory of all pages within it, evicted ones included
    /// (`MADV_DONTNEED`). They stay committed: touching them again can't fail.
    pub fn discard(&mut self, range: Range<usize>) {
        let pages = self.whole_pages(&range);
        self[range.start..pages.start.min(range.end)].fill(0);
        self[pages.end.clamp(range.start, range.end)..range.end].fill(0);
        advice::discard(&self.addresses(&pages));
        report(pages.len());
    }

    /// Lets the pages within `range` be dropped, instead of evicted, when memory is short
    /// (`MADV_FREE`). Pages stay as they are while memory is not short, and a page that is written
    /// to stays. Evicted pages are dropped at once, and so are all others if the guest has no swap.
    ///
    /// # Safety
    /// Until a page has been written to, its contents may turn to zeros at any moment. The caller
    /// writes to each page of the range before it reads from it, and creates no reference to it
    /// except for that write.
    pub unsafe fn discard_lazily(&mut self, range: Range<usize>) {
        let pages = self.whole_pages(&range);
        advice::discard_lazily(&self.addresses(&pages));
    }

    /// Brings the pages of `range` into memory ahead of their use (`MADV_WILLNEED`): evicted ones,
    /// and those that were never touched. Begins at the front, and stops when no frame is left
    /// without evicting other pages. Returns how many more pages are in memory.
    pub fn prefetch(&self, range: Range<usize>) -> u64 {
        let covered = self.covered_pages(&range);
        advice::prefetch(&self.addresses(&covered))
    }

    /// Makes the mapping read-only. A write to it, by any code, then ends the guest with a report.
    #[must_use]
    pub fn into_read_only(self) -> ReadOnlyMapping {
        advice::protect(self.address(), Access::ReadOnly);
        ReadOnlyMapping { mapping: self }
    }

    /// Returns where its pages are, and what has happened to them.
    #[must_use]
    pub fn statistics(&self) -> RegionStatistics {
        advice::statistics(self.address())
    }

    fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    fn addresses(&self, range: &Range<usize>) -> Range<u64> {
        self.address() + range.start as u64..self.address() + range.end as u64
    }

    /// Returns the pages within `range`, as bytes of the mapping; the last one may extend beyond
    /// the mapping's end.
    fn whole_pages(&self, range: &Range<usize>) -> Range<usize> {
        let range = self.checked(range);
        let start = range.start.next_multiple_of(FRAME_SIZE);
        let end = if range.end == self.length { self.region_bytes() } else { range.end - range.end % FRAME_SIZE };
        start..end.max(start)
    }

    /// Returns the pages that `range` has bytes in.
    fn covered_pages(&self, range: &Range<usize>) -> Range<usize> {
        let range = self.checked(range);
        let start = range.start - range.start % FRAME_SIZE;
        start..range.end.next_multiple_of(FRAME_SIZE).max(start)
    }

    fn region_bytes(&self) -> usize {
        self.length.next_multiple_of(FRAME_SIZE)
    }

    fn checked(&self, range: &Range<usize>) -> Range<usize> {
        let Range { start, end } = *range;
        assert!(start <= end && end <= self.length, "{start}..{end} is no range of a mapping of {} bytes", self.length);
        start..end
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the region belongs to this mapping alone, and is readable and initialized (zeros)
        // until it is dropped.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for reading; a mapping that is read-only is inside a `ReadOnlyMapping`, which
        // does not hand it out.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        mm::unmap_region(self.address());
        report(self.length);
    }
}

/// A mapping that can't be written to.
#[derive(Debug)]
pub struct ReadOnlyMapping {
    mapping: Mapping,
}

impl ReadOnlyMapping {
    /// Makes the mapping writable again.
    #[must_use]
    pub fn into_writable(self) -> Mapping {
        advice::protect(self.mapping.address(), Access::ReadWrite);
        self.mapping
    }

    /// See [`Mapping::prefetch`].
    pub fn prefetch(&self, range: Range<usize>) -> u64 {
        self.mapping.prefetch(range)
    }

    /// See [`Mapping::statistics`].
    #[must_use]
    pub fn statistics(&self) -> RegionStatistics {
        self.mapping.statistics()
    }
}

impl Deref for ReadOnlyMapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.mapping
    }
}

/// Has a change by this many bytes reported to the host soon, if it is large.
fn report(bytes: usize) {
    if bytes >= NOTABLE_BYTES {
        balloon::report_soon();
    }
}
