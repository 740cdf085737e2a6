//! What a guest finds when it starts: its image, hermit-entry's boot information, page tables,
//! descriptors and a stack.
//!
//! All but the image lies below 1 MiB (`layout` says where). The first 1 GiB is mapped to itself
//! with 2 MiB pages that ring 3 may use too, since the guest's kernel soon runs there.

use std::fs::File;
use std::io;

use aerostat_abi::units::{FrameCount, HUGE_BYTES, to_usize};
use thiserror::Error;

use super::boot_info;
use super::device_tree::{self, Description};
use super::image::{self, Image, ImageError};
use super::layout::{BOOT_INFO, DEVICE_TREE, DEVICE_TREE_BYTES, GDT, PAGE_TABLES};
use super::memory::{GuestMemory, NotMemory};
use super::page_sizes::{PageSize, fixed_frames};

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
    /// The image can't be read any more.
    #[error("the image can't be loaded: {0}")]
    Load(#[from] io::Error),
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

/// Loads `file`, which has to lie within the guest's first `initial` frames. Memory is untouched.
///
/// The huge frames of the image and of boot information get small pages: a guest uses little of
/// them, and to clear a huge page takes longer than to load most images.
pub(super) fn load(memory: &GuestMemory, file: &File, initial: FrameCount) -> Result<Image, BootError> {
    let image = image::read(file, initial)?;
    memory.allow(&fixed_frames(&image.info.frames()), PageSize::Small)?;
    for load in &image.loads {
        memory.read_file(load.address, to_usize(load.bytes), file, load.offset)?;
    }
    Ok(image)
}

/// Writes all else that the image needs to start.
pub(super) fn describe(memory: &GuestMemory, image: &Image, description: &Description<'_>) -> Result<(), BootError> {
    let tree = device_tree::build(description)?;
    if tree.len() > DEVICE_TREE_BYTES {
        return Err(BootError::DeviceTreeTooLong);
    }
    memory.write_bytes(DEVICE_TREE, &tree)?;
    memory.write_words(BOOT_INFO, &boot_info::encode(image, memory.layout().end()))?;
    memory.write_words(GDT, &DESCRIPTORS)?;
    write_page_tables(memory)?;
    Ok(())
}

fn write_page_tables(memory: &GuestMemory) -> Result<(), NotMemory> {
    let [level4, level3, level2] = PAGE_TABLES;
    memory.write_words(level4, &[level3.0 | TABLE_ENTRY])?;
    memory.write_words(level3, &[level2.0 | TABLE_ENTRY])?;
    let pages: [u64; 512] = std::array::from_fn(|page| (page as u64 * HUGE_BYTES) | HUGE_ENTRY);
    memory.write_words(level2, &pages)
}
