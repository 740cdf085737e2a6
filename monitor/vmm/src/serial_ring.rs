//! Bytes from the guest to its console that do not cost an exit each.
//!
//! KVM can append port writes to a ring in memory instead of leaving the guest
//! (`KVM_CAP_COALESCED_PIO`). A guest writes its serial line a byte at a time, and KVM splits `rep
//! outsb` into bytes too. On a KVM without hardware virtualization an exit to this process takes 25
//! us, an entry in the ring 3 us. When the ring is full the next write is an ordinary exit. The
//! code that handles any other access to the line drains the ring first, so the order of the
//! guest's writes is kept.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE};
use kvm_ioctls::{IoEventAddress, VmFd};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The place of the ring in a vCPU's file on x86 (`KVM_COALESCED_MMIO_PAGE_OFFSET`).
const FILE_OFFSET: u64 = 2 * FRAME_BYTES;
/// The number of entries that fit the page behind the two indexes.
const ENTRIES: usize = (FRAME_SIZE - 8) / 24;

/// The page as the kernel lays it out (`struct kvm_coalesced_mmio_ring`).
#[repr(C)]
struct Page {
    /// The next entry to read: written by this process.
    first: AtomicU32,
    /// The next entry to be written: written by the kernel.
    last: AtomicU32,
    /// Address; length and kind; data.
    entries: [[AtomicU64; 3]; ENTRIES],
}

const _: () = assert!(size_of::<Page>() <= FRAME_SIZE);

/// The reading end. There is only one, as reading changes `first`.
#[derive(Debug)]
pub(super) struct SerialRing(NonNull<Page>);

// SAFETY: the mapping belongs to the process, and the page is made of atomics.
unsafe impl Send for SerialRing {}

impl SerialRing {
    /// Makes KVM put single bytes that the guest writes to `port` into the ring of `vcpu`. Fails
    /// where KVM can't do so; all writes are exits then.
    pub(super) fn new(vm: &VmFd, vcpu: impl AsFd, port: u16) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let page = unsafe { mmap(ptr::null_mut(), FRAME_SIZE, protection, MapFlags::SHARED, vcpu, FILE_OFFSET)? };
        let ring = NonNull::new(page.cast()).map(Self).ok_or(io::ErrorKind::OutOfMemory)?;
        vm.register_coalesced_mmio(IoEventAddress::Pio(port.into()), 1)?;
        Ok(ring)
    }

    /// Removes and returns the bytes in the order in which they were written: all that were there,
    /// but not more than the ring holds. A guest can write as fast as they are read and would
    /// otherwise keep the caller busy for ever.
    pub(super) fn drain(&mut self, mut take: impl FnMut(u8)) {
        // SAFETY: mapped until drop, aligned to a page, of a page's size; every bit pattern is
        // valid for atomics.
        let page = unsafe { self.0.as_ref() };
        let mut first = page.first.load(Ordering::Relaxed);
        for _ in 0..ENTRIES {
            if first == page.last.load(Ordering::Acquire) {
                break;
            }
            // The kernel keeps both indexes in range; a wrong one ends the reading, not the
            // process.
            let Some([_, _, data]) = usize::try_from(first).ok().and_then(|first| page.entries.get(first)) else {
                break;
            };
            take(data.load(Ordering::Relaxed).to_le_bytes()[0]);
            first = if (first as usize) + 1 == ENTRIES { 0 } else { first + 1 };
            page.first.store(first, Ordering::Release);
        }
    }
}

impl Drop for SerialRing {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference outlives `self`.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), FRAME_SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::{ENTRIES, FRAME_SIZE, MapFlags, Ordering, Page, ProtFlags, SerialRing, ptr};
    use std::ptr::NonNull;

    #[test]
    fn a_guest_that_writes_without_end_is_drained_for_a_while() {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let place = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), FRAME_SIZE, protection, flags).unwrap() };
        let page = NonNull::new(place.cast::<Page>()).unwrap();
        let mut ring = SerialRing(page);
        // SAFETY: mapped until `ring` is dropped, and made of atomics.
        let writer = unsafe { page.as_ref() };
        let mut taken = 0_u8;
        writer.last.store(1, Ordering::Release);
        ring.drain(|_| {
            taken += 1;
            assert!(usize::from(taken) <= ENTRIES, "it never ends");
            // The kernel has put the next byte there before this one is gone.
            let next = (usize::from(taken) + 1) % ENTRIES;
            writer.last.store(u32::try_from(next).unwrap(), Ordering::Release);
        });
        assert_eq!(usize::from(taken), ENTRIES);
    }
}
