//! Memory of this process for huge frames that are on their way: those that have left the guest and
//! are not written yet (the swap cache), and one that is being read.

use std::io;
use std::ptr;

use aerostat_abi::units::{FRAME_SIZE, HUGE_FRAMES, HUGE_SIZE, to_usize};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::contents::WORDS;
use super::frame_mask::FrameMask;
use super::userfault::Span;

/// A place for a huge frame in an [`Area`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(pub(super) usize);

/// Memory for some huge frames. A slot has no pages at first.
#[derive(Debug)]
pub(super) struct Area {
    mapping: *mut u8,
    bytes: usize,
    /// The first address that is aligned to a huge frame.
    start: *mut u8,
    slots: usize,
}

// SAFETY: the mapping belongs to the process; who may access a slot is decided by its user.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    /// Maps an area of so many slots, whose pages are huge ones if `advice` says so.
    pub(super) fn new(slots: usize, advice: Advice) -> io::Result<Self> {
        let bytes = (slots + 1) * HUGE_SIZE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let mapping = unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags)? };
        let mapping = mapping.cast::<u8>();
        // SAFETY: the first aligned address is less than a huge frame away, and there is one slot
        // more than is used.
        let start = unsafe { mapping.add(mapping.align_offset(HUGE_SIZE)) };
        let area = Self { mapping, bytes, start, slots };
        for advice in [advice, Advice::LinuxDontDump] {
            // SAFETY: the mapping is new, and such advice changes no contents. A host without huge
            // pages refuses advice about them, which is as good.
            let _ = unsafe { madvise(area.mapping.cast(), area.bytes, advice) };
        }
        Ok(area)
    }

    /// Returns where the slots are.
    pub(super) fn span(&self) -> Span {
        Span { start: self.start, bytes: self.slots * HUGE_SIZE }
    }

    /// Returns where frame `frame` of a slot is.
    pub(super) fn frame(&self, slot: Slot, frame: usize) -> *mut u8 {
        assert!(slot.0 < self.slots && frame <= to_usize(HUGE_FRAMES), "a slot comes from this area");
        // SAFETY: within the mapping, as just checked.
        unsafe { self.start.add(slot.0 * HUGE_SIZE + frame * FRAME_SIZE) }
    }

    /// Returns the frames of a slot that have pages.
    pub(super) fn present(&self, slot: Slot) -> io::Result<FrameMask> {
        let mut pages = [0_u8; to_usize(HUGE_FRAMES)];
        // SAFETY: the slot is mapped, and the kernel writes a byte for each of its pages.
        if unsafe { libc::mincore(self.frame(slot, 0).cast(), HUGE_SIZE, pages.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(pages.iter().enumerate().filter(|(_, page)| *page & 1 == 1).map(|(frame, _)| frame..frame + 1).collect())
    }

    /// Returns the words of a frame that has a page.
    ///
    /// # Safety
    /// Nothing writes to the slot or moves its pages as long as the result lives.
    pub(super) unsafe fn words(&self, slot: Slot, frame: usize) -> &[u64] {
        // SAFETY: mapped, aligned, and unchanged as the caller guarantees.
        unsafe { std::slice::from_raw_parts(self.frame(slot, frame).cast(), WORDS) }
    }

    /// Fills a frame with a word.
    ///
    /// # Safety
    /// There are no references to the frame, and no thread but this one uses the slot.
    pub(super) unsafe fn fill(&self, slot: Slot, frame: usize, word: u64) {
        let start = self.frame(slot, frame).cast::<u64>();
        for index in 0..WORDS {
            // SAFETY: within the frame, which is mapped and aligned, and this thread's alone.
            unsafe { start.wrapping_add(index).write(word) };
        }
    }

    /// Frees what is left in a slot.
    ///
    /// # Safety
    /// There are no references to the slot.
    pub(super) unsafe fn release(&self, slot: Slot) {
        // SAFETY: as the caller guarantees. It fails for no range that is mapped.
        let _ = unsafe { madvise(self.frame(slot, 0).cast(), HUGE_SIZE, Advice::LinuxDontNeed) };
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and what borrows from it is gone.
        let _ = unsafe { munmap(self.mapping.cast(), self.bytes) };
    }
}
