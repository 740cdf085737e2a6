//! Guest memory as rust-vmm's virtio building blocks need it, and I/O directly to and from it.
//!
//! A [`DeviceMemory`] is a second view of the mapping that [`GuestMemory`] owns, made only for
//! guests that have a device. Parts of a chain become [`Buffers`]: slices that were checked once
//! and are handed to the kernel, so the monitor never copies a disk's bytes. A buffer may lie in
//! ballooned frames: then these frames become resident without having been deflated, the meter of
//! resident memory sees it, and only the guest loses data.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use aerostat_abi::units::to_usize;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion, VolatileMemory, VolatileSlice,
};

use super::chain::{Malformed, Parts};
use crate::memory::GuestMemory;

/// A guest's memory, for devices.
#[derive(Debug)]
pub(super) struct DeviceMemory {
    view: GuestMemoryMmap,
    /// Keeps the mapping behind the view alive.
    _owner: Arc<GuestMemory>,
}

impl DeviceMemory {
    /// Creates a view of all memory in `owner`.
    pub(super) fn new(owner: Arc<GuestMemory>) -> io::Result<Self> {
        let mut regions = Vec::new();
        for region in owner.layout().regions() {
            let start = owner.host_address(to_usize(region.offset));
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a region lies in the owner's mapping, which lives as long as `self` and is
            // not unmapped by the view.
            let mapping = unsafe { MmapRegion::build_raw(start, to_usize(region.bytes), protection, flags) };
            let region = GuestRegionMmap::new(mapping.map_err(io::Error::other)?, GuestAddress(region.start.0));
            regions.push(region.ok_or(io::ErrorKind::InvalidInput)?);
        }
        let view = GuestMemoryMmap::from_regions(regions).map_err(io::Error::other)?;
        Ok(Self { view, _owner: owner })
    }
}

impl Deref for DeviceMemory {
    type Target = GuestMemoryMmap;

    fn deref(&self) -> &GuestMemoryMmap {
        &self.view
    }
}

/// Parts of a chain as slices of memory.
#[derive(Debug)]
pub(super) struct Buffers<'a>(Vec<VolatileSlice<'a>>);

/// The direction in which bytes move between a file and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the file into memory.
    Read,
    /// From memory into the file.
    Write,
}

impl<'a> Buffers<'a> {
    /// Resolves the memory that `parts` name, if all of it is memory.
    pub(super) fn new(memory: &'a GuestMemoryMmap, parts: &Parts) -> Result<Self, Malformed> {
        let slices = parts
            .iter()
            .map(|part| GuestMemoryBackend::get_slice(memory, GuestAddress(part.address), to_usize(part.bytes.into())));
        Ok(Self(slices.collect::<Result<_, _>>().map_err(|_| Malformed::NotMemory)?))
    }

    /// Copies as many of the first bytes as `bytes` holds; returns how many there were.
    pub(super) fn copy_to(&self, mut bytes: &mut [u8]) -> usize {
        let mut copied = 0;
        for slice in &self.0 {
            let count = slice.copy_to(bytes);
            bytes = &mut bytes[count..];
            copied += count;
        }
        copied
    }

    /// Fills the first bytes with `bytes`; returns how many there was room for.
    pub(super) fn copy_from(&self, mut bytes: &[u8]) -> usize {
        let mut copied = 0;
        for slice in &self.0 {
            let count = bytes.len().min(slice.len());
            slice.copy_from(&bytes[..count]);
            bytes = &bytes[count..];
            copied += count;
        }
        copied
    }

    /// Moves the first `bytes` bytes, or all there are, between memory and `file` at `offset`.
    /// Returns how many were moved before the first error; the end of the file counts as one.
    pub(super) fn transfer(&self, direction: Direction, file: &File, offset: u64, bytes: u64) -> (u64, io::Result<()>) {
        let mut done = 0;
        loop {
            let vectors = self.vectors(done, bytes);
            if vectors.is_empty() {
                return (done, Ok(()));
            }
            match transfer_once(direction, file, &vectors, offset.saturating_add(done)) {
                Ok(0) => return (done, Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (done, Err(error)),
            }
        }
    }

    /// Returns what lies between the bytes `from` and `to`, for the kernel.
    fn vectors(&self, from: u64, to: u64) -> Vec<Vector<'_>> {
        let mut vectors = Vec::with_capacity(self.0.len());
        let mut start = 0;
        for slice in &self.0 {
            let end = start + slice.len() as u64;
            let (first, last) = (from.max(start), to.min(end));
            if first < last
                && let Ok(slice) = slice.get_slice(to_usize(first - start), to_usize(last - first))
            {
                let base = slice.ptr_guard_mut().as_ptr().cast();
                vectors.push(Vector(libc::iovec { iov_base: base, iov_len: slice.len() }, std::marker::PhantomData));
            }
            start = end;
        }
        vectors
    }
}

/// A slice of guest memory that lives as long as `'a`, in the form that the kernel takes.
#[repr(transparent)]
struct Vector<'a>(libc::iovec, std::marker::PhantomData<&'a ()>);

/// Makes one system call; returns the bytes that it moved.
fn transfer_once(direction: Direction, file: &File, vectors: &[Vector<'_>], offset: u64) -> io::Result<u64> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let count = libc::c_int::try_from(vectors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let first: *const libc::iovec = vectors.as_ptr().cast();
    let file = file.as_raw_fd();
    let moved = match direction {
        // SAFETY: every vector is guest memory that stays mapped during the call. The guest, or a
        // neighbour in the list, may use the same bytes meanwhile, which is as harmless as a device
        // that does so.
        Direction::Read => unsafe { libc::preadv(file, first, count, offset) },
        // SAFETY: as above.
        Direction::Write => unsafe { libc::pwritev(file, first, count, offset) },
    };
    u64::try_from(moved).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::{Buffers, DeviceMemory, Direction, Malformed};
    use crate::layout::MemoryLayout;
    use crate::memory::GuestMemory;
    use crate::virtio::chain::Chain;
    use aerostat_abi::units::FrameCount;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;
    use virtio_queue::desc::split::Descriptor;
    use vm_memory::{Bytes, GuestAddress};

    const GIB: u64 = 1 << 30;

    fn memory() -> DeviceMemory {
        let layout = MemoryLayout::new(FrameCount::from_mib(5 << 10)).unwrap();
        DeviceMemory::new(Arc::new(GuestMemory::new(layout).unwrap())).unwrap()
    }

    fn buffers<'a>(memory: &'a DeviceMemory, parts: &[(u64, u32)]) -> Result<Buffers<'a>, Malformed> {
        let count = parts.len();
        let descriptors = parts
            .iter()
            .enumerate()
            .map(|(index, &(address, bytes))| Descriptor::new(address, bytes, u16::from(index + 1 < count), 0));
        Buffers::new(memory, &Chain::collect(descriptors, count).unwrap().readable)
    }

    #[test]
    fn the_view_has_the_hole_of_the_layout() {
        let memory = memory();
        for good in [(0, 1), (3 * GIB - 4096, 4096), (4 * GIB, 4096), (6 * GIB - 1, 1)] {
            assert!(buffers(&memory, &[good]).is_ok(), "{good:x?}");
        }
        for bad in [(3 * GIB - 1, 2), (3 * GIB, 1), (4 * GIB - 1, 2), (6 * GIB, 1), (6 * GIB - 1, u32::MAX)] {
            assert_eq!(buffers(&memory, &[(0, 1), bad]).unwrap_err(), Malformed::NotMemory, "{bad:x?}");
        }
    }

    #[test]
    fn bytes_go_both_ways_across_parts() {
        let memory = memory();
        let file = tempfile::tempfile().unwrap();
        let text: Vec<u8> = (0..1000_u32).map(|number| number.to_le_bytes()[0]).collect();
        memory.write_slice(&text, GuestAddress(0x1000)).unwrap();
        let scattered = buffers(&memory, &[(0x1000, 100), (0x1064, 1), (0x1065, 899)]).unwrap();
        let (moved, result) = scattered.transfer(Direction::Write, &file, 512, 1000);
        assert_eq!((moved, result.is_ok()), (1000, true));
        let mut read = [0; 1000];
        file.read_exact_at(&mut read, 512).unwrap();
        assert_eq!(read[..], text);

        let targets = [(4 * GIB, 7), (0x9000, 993)];
        let (moved, result) = buffers(&memory, &targets).unwrap().transfer(Direction::Read, &file, 512, 1000);
        assert_eq!((moved, result.is_ok()), (1000, true));
        let mut back = [0; 1000];
        assert_eq!(buffers(&memory, &targets).unwrap().copy_to(&mut back), 1000);
        assert_eq!(back[..], text);
    }

    #[test]
    fn limits_and_ends_are_kept() {
        let memory = memory();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 600], 0).unwrap();
        let place = buffers(&memory, &[(0x1000, 512), (0x2000, 512)]).unwrap();
        assert!(matches!(place.transfer(Direction::Read, &file, 0, 550), (550, Ok(()))));
        let mut after = [1];
        memory.read_slice(&mut after, GuestAddress(0x2000 + 38)).unwrap();
        assert_eq!(after, [0], "nothing is read beyond the limit");
        assert!(matches!(place.transfer(Direction::Read, &file, 0, 1024), (600, Err(_))));
        assert!(matches!(place.transfer(Direction::Read, &file, u64::MAX, 1), (0, Err(_))));
    }

    #[test]
    fn copies_stop_at_the_shorter_side() {
        let memory = memory();
        let place = buffers(&memory, &[(0x1000, 3), (0x2000, 3)]).unwrap();
        assert_eq!(place.copy_from(b"abcdefgh"), 6);
        let mut bytes = [0; 8];
        assert_eq!(place.copy_to(&mut bytes), 6);
        assert_eq!(&bytes, b"abcdef\0\0");
    }
}
