//! The image's part of the identity map: writable memory can't be executed, and code and constants
//! can't be written.
//!
//! The image is mapped nowhere else, so no other mapping allows more. The page tables themselves
//! are writable, as the kernel runs in ring 3 like the application: this stops stray writes and
//! jumps, not a malicious application.

use aerostat_abi::units::{FRAME_SIZE, FrameNumber};
use x86_64::structures::paging::PageTableFlags;

use super::{DATA, MAPPED, PageTables, set, table_at};
use crate::mm::block::Block;

/// What a page of the image's slots contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImagePart {
    /// Code, to be run and read.
    Code,
    /// Constants, to be read.
    Constants,
    /// Data, and the memory behind the image, to be read and written.
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
    /// `part_of` says for each page's address. The caller must flush the TLB.
    pub(crate) fn map_identity_pages(&mut self, address: u64, table: Block, part_of: impl Fn(u64) -> ImagePart) {
        let number = table.into_number();
        for (page, entry) in (address..).step_by(FRAME_SIZE).zip(table_at(number).iter_mut()) {
            set(entry, FrameNumber::containing(page), part_of(page).flags());
        }
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
