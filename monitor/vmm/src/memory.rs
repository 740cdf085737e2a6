//! Guest memory: one private anonymous mapping, and the only ways to access it.
//!
//! A running guest changes its memory at any moment, so while it can run there are no references
//! into guest memory but to atomics: words and bytes are copied, volatile, after the address was
//! checked. The mapping reserves nothing (`NORESERVE`), so its size costs nothing. It is aligned to
//! 2 MiB and asks for huge pages, which makes a first touch ~20 times and a release ~50 times
//! cheaper per byte. `page_sizes` decides where it must not have any.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

use aerostat_abi::frame_state::HugeFrameWord;
use aerostat_abi::units::{FRAME_SIZE, HUGE_SIZE, to_usize};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use thiserror::Error;

use super::layout::{GuestAddress, MemoryLayout};
use super::page_sizes::PageSize;
use super::transfers::Transfers;

/// An access that is not wholly to guest memory, or is misaligned.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("no usable guest memory at {:#x}", .0.0)]
pub(super) struct NotMemory(GuestAddress);

/// All memory of one guest. Unmapped when dropped.
#[derive(Debug)]
pub(super) struct GuestMemory {
    layout: MemoryLayout,
    base: NonNull<u8>,
    bytes: usize,
    host: HugePages,
    transfers: Transfers,
}

/// Whether the host has transparent huge pages at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HugePages {
    Supported,
    Unknown,
}

// SAFETY: the mapping belongs to the process, not to a thread, and every access through `&self` is
// a volatile copy.
unsafe impl Send for GuestMemory {}
// SAFETY: as above; of two threads that write the same words, one wins, as with two vCPUs.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Maps memory of this layout; all of it reads as zero.
    pub(super) fn new(layout: MemoryLayout) -> io::Result<Self> {
        let bytes = to_usize(layout.total().bytes()).next_multiple_of(HUGE_SIZE);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let whole = unsafe { mmap_anonymous(ptr::null_mut(), bytes + HUGE_SIZE, protection, flags)? };
        let head = whole.cast::<u8>().align_offset(HUGE_SIZE);
        // SAFETY: `head` is below the slack of `HUGE_SIZE` that the mapping has beyond `bytes`.
        let base = unsafe { whole.cast::<u8>().add(head) };
        // SAFETY: `base + bytes` is within the mapping or just behind it, for the same reason.
        let tail = unsafe { base.add(bytes) };
        // SAFETY: the slack before `base` was mapped above and is not used.
        unsafe { unmap(whole, head)? };
        // SAFETY: the same for the slack behind `base + bytes`.
        unsafe { unmap(tail.cast(), HUGE_SIZE - head)? };
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut memory = Self { layout, base, bytes, host: HugePages::Supported, transfers: Transfers::default() };
        let all = 0..bytes / FRAME_SIZE;
        // A core dump must not contain what guests hold.
        memory.advise(&all, Advice::LinuxDontDump)?;
        match memory.advise(&all, Advice::LinuxHugepage) {
            Err(Errno::INVAL) => memory.host = HugePages::Unknown,
            outcome => outcome?,
        }
        Ok(memory)
    }

    /// Returns where memory lies.
    pub(super) const fn layout(&self) -> &MemoryLayout {
        &self.layout
    }

    /// Returns the host address of the byte at `offset` of the mapping, for use in a system call.
    pub(super) fn host_address(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.bytes, "an offset comes from the layout");
        // SAFETY: the offset is within the mapping or just behind it.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Sets what the host may put behind the frames of these indexes when they are touched. What is
    /// there already stays.
    ///
    /// # Errors
    /// Fails where the host can't treat these frames apart from their neighbours any more
    /// (`ENOMEM`): it may have followed a part of the advice.
    pub(super) fn allow(&self, frames: &Range<usize>, size: PageSize) -> io::Result<()> {
        let advice = match size {
            PageSize::Small => Advice::LinuxNoHugepage,
            PageSize::Huge => Advice::LinuxHugepage,
        };
        match self.host {
            HugePages::Supported => Ok(self.advise(frames, advice)?),
            // Without huge pages all pages are small.
            HugePages::Unknown => Ok(()),
        }
    }

    fn advise(&self, frames: &Range<usize>, advice: Advice) -> Result<(), Errno> {
        let start = self.host_address(frames.start * FRAME_SIZE);
        let end = self.host_address(frames.end * FRAME_SIZE);
        // SAFETY: the range is within the mapping, and advice about page sizes changes no contents.
        unsafe { madvise(start.cast(), end.addr() - start.addr(), advice) }
    }

    /// Copies 64-bit words out of guest memory; `from` is 8-byte aligned.
    pub(super) fn read_words(&self, from: GuestAddress, words: &mut [u64]) -> Result<(), NotMemory> {
        let source = self.locate_words(from, words)?;
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: `locate` checked the whole range.
            let place = unsafe { source.add(index) };
            // SAFETY: mapped and aligned, as checked; the guest may write at the same time, hence
            // volatile.
            *word = unsafe { place.read_volatile() };
        }
        Ok(())
    }

    /// Copies 64-bit words into guest memory; `to` is 8-byte aligned.
    pub(super) fn write_words(&self, to: GuestAddress, words: &[u64]) -> Result<(), NotMemory> {
        let target = self.locate_words(to, words)?;
        for (index, word) in words.iter().enumerate() {
            // SAFETY: `locate` checked the whole range.
            let place = unsafe { target.add(index) };
            // SAFETY: mapped and aligned, as checked; the guest may read at the same time, hence
            // volatile.
            unsafe { place.write_volatile(*word) };
        }
        Ok(())
    }

    /// Returns a word that guest and monitor change as an atomic; `at` is 4-byte aligned.
    pub(super) fn shared_word(&self, at: GuestAddress) -> Result<&HugeFrameWord, NotMemory> {
        if !at.0.is_multiple_of(align_of::<HugeFrameWord>() as u64) {
            return Err(NotMemory(at));
        }
        let place = self.locate(at, size_of::<HugeFrameWord>())?.cast::<HugeFrameWord>();
        // SAFETY: mapped as long as `self` and aligned, as checked; an atomic, whatever the guest
        // does to it meanwhile.
        Ok(unsafe { &*place })
    }

    /// Fills the frames of these indexes with zeros.
    pub(super) fn clear(&self, frames: &Range<usize>) {
        let start = self.host_address(frames.start * FRAME_SIZE);
        let end = self.host_address(frames.end * FRAME_SIZE);
        // SAFETY: the range is within the mapping; what a guest writes there meanwhile may be
        // overwritten.
        unsafe { ptr::write_bytes(start, 0, end.addr() - start.addr()) };
    }

    /// Returns the transfers of devices to and from this memory.
    pub(super) const fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// Returns the place in the mapping of an address in this process.
    pub(super) fn offset(&self, address: usize) -> Option<usize> {
        address.checked_sub(self.base.as_ptr().addr()).filter(|&offset| offset < self.bytes)
    }

    /// Returns whether the host has memory behind every one of the frames of these indexes. The
    /// zero page counts.
    pub(super) fn is_resident(&self, frames: &Range<usize>) -> bool {
        self.residency(frames).is_some_and(|pages| pages.iter().all(|page| page & 1 == 1))
    }

    /// Returns whether it has memory behind any of them.
    pub(super) fn is_any_resident(&self, frames: &Range<usize>) -> bool {
        self.residency(frames).is_some_and(|pages| pages.iter().any(|page| page & 1 == 1))
    }

    /// Returns a byte for each of these frames, whose lowest bit says whether it is resident.
    fn residency(&self, frames: &Range<usize>) -> Option<Vec<u8>> {
        let start = self.host_address(frames.start * FRAME_SIZE);
        let end = self.host_address(frames.end * FRAME_SIZE);
        let mut pages = vec![0_u8; frames.len()];
        // SAFETY: the range is within the mapping, and the kernel writes a byte for each of its
        // pages.
        let result = unsafe { libc::mincore(start.cast(), end.addr() - start.addr(), pages.as_mut_ptr()) };
        (result == 0).then_some(pages)
    }

    /// Appends the contents of the frames of these indexes to `bytes`. What is written there
    /// meanwhile may be missing.
    pub(super) fn save(&self, frames: &Range<usize>, bytes: &mut Vec<u8>) {
        let start = self.host_address(frames.start * FRAME_SIZE);
        let count = self.host_address(frames.end * FRAME_SIZE).addr() - start.addr();
        bytes.reserve(count);
        let end = bytes.spare_capacity_mut().as_mut_ptr().cast();
        // SAFETY: the frames are within the mapping, room for them was just reserved, and our
        // vector does not overlap guest memory.
        unsafe { ptr::copy_nonoverlapping(start, end, count) };
        // SAFETY: so many bytes more were just written.
        unsafe { bytes.set_len(bytes.len() + count) };
    }

    /// Writes `bytes`, whole frames, into the frames from index `first` on.
    pub(super) fn restore(&self, first: usize, bytes: &[u8]) {
        let start = self.host_address(first * FRAME_SIZE);
        // Checked explicitly, to detect numbers that did not come from the layout.
        let end = self.host_address(first * FRAME_SIZE + bytes.len());
        // SAFETY: both ends are within the mapping, and a slice of ours does not overlap guest
        // memory.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start, end.addr() - start.addr()) };
    }

    /// Copies bytes into guest memory.
    pub(super) fn write_bytes(&self, to: GuestAddress, bytes: &[u8]) -> Result<(), NotMemory> {
        let place = self.locate(to, bytes.len())?;
        // SAFETY: `locate` checked the whole range, and a slice of ours does not overlap guest
        // memory.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }

    /// Reads `bytes` bytes of `file` at `offset` into guest memory; the end of the file is an
    /// error.
    pub(super) fn read_file(&self, to: GuestAddress, bytes: usize, file: &File, offset: u64) -> io::Result<()> {
        let place = self.locate(to, bytes).map_err(io::Error::other)?;
        transfer_all(bytes, |done| {
            // SAFETY: `locate` checked the whole range, and `done` lies in it.
            let rest = unsafe { place.add(done) };
            let offset = libc::off_t::try_from(offset + done as u64).map_err(io::Error::other)?;
            // SAFETY: the kernel writes the rest of the range at most, which stays mapped.
            Ok(unsafe { libc::pread(file.as_raw_fd(), rest.cast(), bytes - done, offset) })
        })
    }

    fn locate_words(&self, start: GuestAddress, words: &[u64]) -> Result<*mut u64, NotMemory> {
        if !start.0.is_multiple_of(size_of::<u64>() as u64) {
            return Err(NotMemory(start));
        }
        Ok(self.locate(start, size_of_val(words))?.cast())
    }

    fn locate(&self, start: GuestAddress, bytes: usize) -> Result<*mut u8, NotMemory> {
        let place = self.layout.place(start, bytes as u64).ok_or(NotMemory(start))?;
        Ok(self.host_address(place.start))
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and is not borrowed any more.
        let _ = unsafe { unmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Calls `once` with the number of bytes that are done, until `bytes` are. It makes a system call
/// that transfers some of the rest, and returns what that returned. The end of a file is an error.
pub(super) fn transfer_all(bytes: usize, once: impl Fn(usize) -> io::Result<isize>) -> io::Result<()> {
    let mut done = 0;
    while done < bytes {
        match once(done)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => match usize::try_from(count) {
                Ok(count) => done += count,
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            },
        }
    }
    Ok(())
}

/// Unmaps `bytes` bytes, which may be none.
///
/// # Safety
/// The range is mapped by the caller and not used.
unsafe fn unmap(start: *mut c_void, bytes: usize) -> io::Result<()> {
    if bytes > 0 {
        // SAFETY: as the caller guarantees.
        unsafe { munmap(start, bytes)? };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::GuestMemory;
    use crate::layout::{GuestAddress, MemoryLayout};
    use aerostat_abi::units::{FrameCount, HUGE_SIZE};

    #[test]
    fn words_come_back_on_both_sides_of_the_hole() {
        let layout = MemoryLayout::new(FrameCount::from_mib(5 << 10)).unwrap();
        let memory = GuestMemory::new(layout).unwrap();
        assert_eq!(memory.host_address(0) as usize % HUGE_SIZE, 0);
        for address in [GuestAddress((3 << 30) - 16), GuestAddress(4 << 30), GuestAddress((6 << 30) - 16)] {
            memory.write_words(address, &[1, 2]).unwrap();
            let mut words = [0; 2];
            memory.read_words(address, &mut words).unwrap();
            assert_eq!(words, [1, 2]);
        }
    }

    #[test]
    fn what_is_not_memory_is_not_touched() {
        let memory = GuestMemory::new(MemoryLayout::new(FrameCount::from_mib(5 << 10)).unwrap()).unwrap();
        for address in [(3 << 30) - 8, 3 << 30, (4 << 30) - 8, (6 << 30) - 8, 6 << 30, u64::MAX - 7] {
            assert!(memory.write_words(GuestAddress(address), &[1, 2]).is_err(), "{address:#x}");
        }
        assert!(memory.write_bytes(GuestAddress((3 << 30) - 2), &[1, 2, 3]).is_err());
    }

    #[test]
    fn the_size_costs_no_memory() {
        let layout = MemoryLayout::new(FrameCount::from_mib(511 << 10)).unwrap();
        assert!(GuestMemory::new(layout).is_ok());
    }
}
