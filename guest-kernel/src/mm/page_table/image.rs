//! The image's place in the identity map: what may be written can't be run, and code and constants
//! can't be written.
//!
//! The image is mapped nowhere else, so there is no second way to it. The page tables themselves
//! can be written to, as the kernel runs in ring 3 like the application: this stops stray writes
//! and jumps, not an application that means harm.

use aerostat_abi::units::{FRAME_SIZE, FrameNumber};
use x86_64::structures::paging::PageTableFlags;

use super::{DATA, MAPPED, PageTables, set, table_at};
use crate::mm::block::Block;

/// What a page of the image's slots holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImagePart {
    /// Code, to be run and read.
    Code,
    /// Constants, to be read.
    Constants,
    /// Data, and whatever memory lies behind the image, to be read and written.
    Data,
}

impl ImagePart {
    fn flags(self) -> PageTableFlags {
        let constants = DATA - PageTableFlags::WRITABLE - PageTableFlags::DIRTY;
        match self {
            Self::Code => constants - PageTableFlags::NO_EXECUTE,
            Self::Constants => constants,
            Self::Data => DATA,
        }
    }
}

impl PageTables {
    /// Maps the slot at `address` of the identity map page by page, with `table` as its table, as
    /// `part_of` says of each page's address. The TLB must be flushed.
    pub(crate) fn map_identity_pages(&mut self, address: u64, table: Block, part_of: impl Fn(u64) -> ImagePart) {
        let number = table.into_number();
        for (page, entry) in (address..).step_by(FRAME_SIZE).zip(table_at(number).iter_mut()) {
            set(entry, FrameNumber::containing(page), part_of(page).flags());
        }
        if let Some(entry) = self.existing_slot_entry_mut(address) {
            set(entry, number, MAPPED);
        }
    }

    /// Lets nothing be run in the slot at `address` of the identity map; the TLB must be flushed.
    pub(crate) fn forbid_execution(&mut self, address: u64) {
        if let Some(entry) = self.existing_slot_entry_mut(address).filter(|entry| !entry.is_unused()) {
            entry.set_flags(entry.flags() | PageTableFlags::NO_EXECUTE);
        }
    }
}
