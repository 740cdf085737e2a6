//! The image's part of the identity map: writable memory can't be executed, and code and constants
//! can't be written.
//!
//! The image is mapped nowhere else, so no other mapping allows more. The page tables themselves
//! are writable, as the kernel runs in ring 3 like the application: this stops stray writes and
//! jumps, not a malicious application.

use aerostat_abi::units::{FRAME_BYTES, FrameNumber};
use x86_64::structures::paging::PageTableFlags;

use super::{DATA, MAPPED, PageTables, fill_table, set};
use crate::mm::block::Block;

/// Where the parts of the image end. It begins with its code, which constants follow, and data
/// follows these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    /// The address behind the code.
    pub(crate) code_end: u64,
    /// The address behind the constants.
    pub(crate) constants_end: u64,
    /// The address behind all of it.
    pub(crate) end: u64,
}

impl Image {
    /// Returns the flags of the page at `address` of the image's slots. Behind the image they hold
    /// memory that may be read and written, like its data.
    fn flags_at(&self, address: u64) -> PageTableFlags {
        let constants = DATA - PageTableFlags::WRITABLE - PageTableFlags::DIRTY;
        if address < self.code_end {
            constants - PageTableFlags::NO_EXECUTE
        } else if address < self.constants_end {
            constants
        } else {
            DATA
        }
    }
}

impl PageTables {
    /// Maps the slot at `address` of the identity map page by page, with `table` as its table, as
    /// the parts of the image require. The caller must flush the TLB.
    pub(crate) fn map_image_slot(&mut self, address: u64, table: Block, image: &Image) {
        let number = fill_table(table, |place| {
            let page = address + place * FRAME_BYTES;
            (FrameNumber::containing(page), image.flags_at(page))
        });
        if let Some(entry) = self.existing_slot_entry_mut(address) {
            set(entry, number, MAPPED);
        }
    }

    /// Forbids execution in the slot at `address` of the identity map. The caller must flush the
    /// TLB.
    pub(crate) fn forbid_execution(&mut self, address: u64) {
        if let Some(entry) = self.existing_slot_entry_mut(address).filter(|entry| !entry.is_unused()) {
            entry.set_flags(entry.flags() | PageTableFlags::NO_EXECUTE);
        }
    }
}
