//! Mappings: memory of an application with a region of its own, and what the application can say
//! about it.
#![allow(unsafe_code, reason = "makes slices out of a region of its own")]

use core::ops::{Deref, DerefMut, Range};
use core::ptr::NonNull;

use aerostat_abi::units::{FRAME_SIZE, HUGE_SIZE, to_usize};

use super::{OutOfMemory, RegionStatistics};
use crate::balloon;
use crate::layout::APP_REGIONS;
use crate::mm::page_table::Access;
use crate::mm::{self, advice};

/// Changes of this size are worth telling the host at once.
const NOTABLE_BYTES: usize = HUGE_SIZE;

/// Bytes in a region of their own: page-aligned, zero to begin with, found when touched, gone when
/// dropped.
///
/// Ranges are in bytes from the beginning of the mapping; one that ends behind its end panics, as
/// with slices.
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
    /// Maps `bytes` bytes of zeroed memory. Costs a commit charge now, and frames with the first
    /// touch of each page. May wait for the host.
    ///
    /// # Errors
    /// [`OutOfMemory`] when so much can't be committed.
    pub fn anonymous(bytes: usize) -> Result<Self, OutOfMemory> {
        let start = mm::map_region(APP_REGIONS, bytes as u64)?;
        report(bytes);
        let start = core::ptr::with_exposed_provenance_mut(to_usize(start));
        Ok(Self { start: NonNull::new(start).ok_or(OutOfMemory)?, length: bytes })
    }

    /// Zeroes `range`, and frees the memory of all pages that lie within it, wherever they are
    /// (`MADV_DONTNEED`). They stay committed: touching them again can't fail.
    pub fn discard(&mut self, range: Range<usize>) {
        let pages = self.whole_pages(&range);
        self[range.start..pages.start.min(range.end)].fill(0);
        self[pages.end.clamp(range.start, range.end)..range.end].fill(0);
        advice::discard(&self.addresses(&pages));
        report(pages.len());
    }

    /// Lets the pages that lie within `range` be dropped, instead of evicted, when memory is short
    /// (`MADV_FREE`). Nothing happens to those that it never becomes short for, and a page that is
    /// written to stays. What had been evicted is dropped at once, and so is everything where the
    /// guest has nowhere to evict to.
    ///
    /// # Safety
    /// Until a page has been written to, what it reads as may change at any moment, from what it
    /// was to zeros: the caller writes to each page of the range before it reads from it, and makes
    /// no reference to it for anything else.
    pub unsafe fn discard_lazily(&mut self, range: Range<usize>) {
        let pages = self.whole_pages(&range);
        advice::discard_lazily(&self.addresses(&pages));
    }

    /// Brings the pages of `range` into memory ahead of their use (`MADV_WILLNEED`): evicted ones,
    /// and those that were never touched. Goes from the front as far as frames are to be had
    /// without evicting other pages. Returns how many pages more are in memory.
    pub fn prefetch(&self, range: Range<usize>) -> u64 {
        let covered = self.covered_pages(&range);
        advice::prefetch(&self.addresses(&covered))
    }

    /// Makes it read-only. A write to it, by whatever code, then ends the guest with a report.
    #[must_use]
    pub fn into_read_only(self) -> ReadOnlyMapping {
        advice::protect(self.address(), Access::ReadOnly);
        ReadOnlyMapping { mapping: self }
    }

    /// Where its pages are, and what has happened to them.
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

    /// The pages that lie within `range`, as bytes of the mapping; the last one may go on behind
    /// the mapping's end.
    fn whole_pages(&self, range: &Range<usize>) -> Range<usize> {
        let range = self.checked(range);
        let start = range.start.next_multiple_of(FRAME_SIZE);
        let end = if range.end == self.length { self.region_bytes() } else { range.end - range.end % FRAME_SIZE };
        start..end.max(start)
    }

    /// The pages that `range` has bytes in.
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
        // SAFETY: the region is this mapping's alone, and readable, until it is dropped; it begins
        // as zeros.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for reading; a mapping that is read-only is inside of a `ReadOnlyMapping`,
        // which does not give it out.
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
    /// Makes it writable again.
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

/// Tells the host soon of a change by so many bytes, if it is large.
fn report(bytes: usize) {
    if bytes >= NOTABLE_BYTES {
        balloon::report_soon();
    }
}
