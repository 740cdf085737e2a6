//! The register page in shared memory, as the supervisor makes it and as the VMM process maps it.
//!
//! The page is a sealed memfd that can't be shrunk, so a VMM process that a guest has taken over
//! can't make the supervisor fault on it. Both sides use only the atomics of [`RegisterPage`]. A
//! supervisor that takes a running VMM process over hands it a new page.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};

use aerostat_abi::registers::{Epoch, RegisterPage};
use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};

/// A mapped register page. Unmapped when dropped.
#[derive(Debug)]
pub struct SharedPage(MmapRaw);

impl SharedPage {
    /// Creates a page that holds the first `target`, and the descriptor to hand to the other side.
    pub fn create(target: FrameCount) -> io::Result<(Self, OwnedFd)> {
        Self::create_at(target, Epoch::FIRST)
    }

    /// Does the same with a target of a later epoch.
    pub fn create_at(target: FrameCount, epoch: Epoch) -> io::Result<(Self, OwnedFd)> {
        let file = memfd_create("aerostat-registers", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, FRAME_BYTES)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let page = Self::map_file(&file)?;
        page.initialise(target);
        page.publish_target(target, epoch);
        Ok((page, file))
    }

    /// Maps the page that the other side has made.
    pub fn map(file: impl AsFd) -> io::Result<Self> {
        let is_sealed = fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        if u64::try_from(fstat(&file)?.st_size).ok() != Some(FRAME_BYTES) || !is_sealed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no register page"));
        }
        let page = Self::map_file(file)?;
        if !page.is_valid() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the register page has another layout"));
        }
        Ok(page)
    }

    fn map_file(file: impl AsFd) -> io::Result<Self> {
        MmapOptions::new().len(FRAME_SIZE).map_raw(&file.as_fd()).map(Self)
    }
}

impl Deref for SharedPage {
    type Target = RegisterPage;

    fn deref(&self) -> &RegisterPage {
        // SAFETY: mapped until drop, aligned to a page, of the page's size; every bit pattern is
        // valid for atomics.
        unsafe { &*self.0.as_ptr().cast() }
    }
}

#[cfg(test)]
mod tests {
    use super::SharedPage;
    use aerostat_abi::units::FrameCount;
    use std::fs::File;

    #[test]
    fn both_sides_see_one_page() {
        let (ours, file) = SharedPage::create(FrameCount(5)).unwrap();
        let theirs = SharedPage::map(&file).unwrap();
        theirs.set_resident(FrameCount(3));
        assert_eq!((theirs.target(), ours.facts().resident), (FrameCount(5), FrameCount(3)));
        assert!(rustix::fs::ftruncate(&file, 0).is_err(), "the page is sealed");
    }

    #[test]
    fn other_files_are_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(SharedPage::map(&file).is_err());
        file.set_len(4096).unwrap();
        assert!(SharedPage::map(&file).is_err());
        let (_, page) = SharedPage::create(FrameCount(5)).unwrap();
        let unsealed = rustix::fs::memfd_create("copy", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        std::io::copy(&mut File::from(page), &mut File::from(unsealed.try_clone().unwrap())).unwrap();
        assert!(SharedPage::map(&unsealed).is_err(), "it could be shrunk");
    }
}
