//! What a guest finds when it starts: its image, hermit-entry's boot information, page tables,
//! descriptors and a stack.
//!
//! All but the image lies below 1 MiB (`layout` says where). The first 1 GiB is mapped to itself
//! with 2 MiB pages that ring 3 may use too, since the guest's kernel soon runs there.

use std::fs::File;
use std::io;
use std::num::{NonZeroU16, NonZeroU64};
use std::ops::Deref;
use std::ptr::{self, NonNull};

use aerostat_abi::units::{FrameCount, HUGE_BYTES, to_usize};
use hermit_entry::boot_info::{BootInfo, HardwareInfo, PlatformInfo, RawBootInfo};
use hermit_entry::elf::{KernelObject, LoadedKernel, ParseKernelError};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use thiserror::Error;

use super::device_tree::{self, Description};
use super::image::{self, ImageError, ImageInfo};
use super::layout::{BOOT_INFO, DEVICE_TREE, DEVICE_TREE_BYTES, GDT, PAGE_TABLES};
use super::memory::{GuestMemory, NotMemory};

/// The first serial line.
const SERIAL_PORT: NonZeroU16 = NonZeroU16::new(0x3f8).expect("a constant that is not zero");

/// Present, writable, for ring 3 too; in a level-2 entry also: a 2 MiB page (Intel SDM volume 3,
/// 5.5.4).
const TABLE_ENTRY: u64 = 0x7;
const HUGE_ENTRY: u64 = 0x87;

/// Bytes in [`DESCRIPTORS`], less one.
pub(super) const DESCRIPTORS_LIMIT: u16 = 7 * 8 - 1;
/// Descriptors by selector / 8: flat 64-bit code and data for ring 0 at 0x08 and 0x10, for ring 3
/// at 0x2b and 0x33. The ring-3 ones are where Linux has its own, which makes the guest's ring
/// changes cheap on a KVM without hardware virtualization.
pub(super) const DESCRIPTORS: [u64; 7] =
    [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];

const _: () = assert!(size_of_val(&DESCRIPTORS) == DESCRIPTORS_LIMIT as usize + 1);

/// Why a guest can't be prepared.
#[derive(Debug, Error)]
pub(super) enum BootError {
    /// The image is bad.
    #[error("the image {0}")]
    Image(#[from] ImageError),
    /// The loader refuses it although it passed the check.
    #[error("the image is refused by its loader: {0}")]
    Loader(ParseKernelError),
    /// The image can't be mapped.
    #[error("the image can't be mapped: {0}")]
    Map(#[from] io::Error),
    /// The device tree can't be built.
    #[error("the device tree can't be built: {0}")]
    DeviceTree(#[from] vm_fdt::Error),
    /// The device tree, mostly the command line, is too long.
    #[error("the command line is too long")]
    DeviceTreeTooLong,
    /// Boot information does not fit. As memory has a minimum size, this happens only if that
    /// minimum is wrong.
    #[error(transparent)]
    NotMemory(#[from] NotMemory),
}

/// Loads `image` and writes everything that it needs to start. The image has to lie within the
/// guest's first `initial` frames.
pub(super) fn prepare(
    memory: &mut GuestMemory,
    image: &File,
    initial: FrameCount,
    description: &Description<'_>,
) -> Result<ImageInfo, BootError> {
    let info = image::check_file(image, initial)?;
    let loaded = load(memory, image, &info)?;

    let tree = device_tree::build(description)?;
    if tree.len() > DEVICE_TREE_BYTES {
        return Err(BootError::DeviceTreeTooLong);
    }
    memory.write_bytes(DEVICE_TREE, &tree)?;
    let boot_info = BootInfo {
        hardware_info: HardwareInfo {
            phys_addr_range: 0..memory.layout().end().0,
            serial_port_base: Some(SERIAL_PORT),
            device_tree: NonZeroU64::new(DEVICE_TREE.0),
        },
        load_info: loaded.load_info,
        platform_info: PlatformInfo::Fdt,
    };
    memory.write_object(BOOT_INFO, &RawBootInfo::from(boot_info))?;
    memory.write_words(GDT, &DESCRIPTORS)?;
    write_page_tables(memory)?;
    Ok(info)
}

fn load(memory: &mut GuestMemory, image: &File, info: &ImageInfo) -> Result<LoadedKernel, BootError> {
    let file = MappedFile::new(image)?;
    let object = KernelObject::parse(&file).map_err(BootError::Loader)?;
    Ok(object.load_kernel(memory.slice_mut(info.start..info.end)?, info.start))
}

fn write_page_tables(memory: &GuestMemory) -> Result<(), NotMemory> {
    let [level4, level3, level2] = PAGE_TABLES;
    memory.write_words(level4, &[level3.0 | TABLE_ENTRY])?;
    memory.write_words(level3, &[level2.0 | TABLE_ENTRY])?;
    let pages: [u64; 512] = std::array::from_fn(|page| (page as u64 * HUGE_BYTES) | HUGE_ENTRY);
    memory.write_words(level2, &pages)
}

/// The image file, mapped for reading: it is never copied into our memory, which matters with debug
/// information.
struct MappedFile {
    start: NonNull<u8>,
    bytes: usize,
}

impl MappedFile {
    fn new(file: &File) -> io::Result<Self> {
        let bytes = to_usize(file.metadata()?.len());
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { mmap(ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::PRIVATE, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped until drop. A process that overwrites the image while a guest starts from
        // it makes that guest's VMM process fail, and no other.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
