//! How a mapped page may be accessed. The region decides it, and each of its entries says the same:
//! when it is created, when the page is restored after an eviction, and when the region changes.

use aerostat_abi::units::FRAME_SIZE;
use x86_64::structures::paging::PageTableFlags;
use x86_64::structures::paging::page_table::PageTableEntry;

use super::eviction::is_revoked;
use super::{DATA, PageTables, Slot};

/// The access that a page allows, or that a thread attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

impl Access {
    /// Returns the flags of the entry of a page with data.
    pub(super) fn data_flags(self) -> PageTableFlags {
        match self {
            Self::ReadOnly => DATA - PageTableFlags::WRITABLE,
            Self::ReadWrite => DATA,
        }
    }
}

impl PageTables {
    /// Makes the pages of the slot at `address`, up to `end`, allow `access` and no more. The
    /// caller must flush the TLB. Evicted pages get it when they are restored.
    pub(crate) fn protect(&mut self, address: u64, end: u64, access: Access) {
        match self.slot(address) {
            Slot::Empty => {}
            Slot::Huge => {
                if let Some(entry) = self.existing_slot_entry_mut(address) {
                    set_access(entry, access);
                }
            }
            Slot::Table => {
                for page in (address..end).step_by(FRAME_SIZE) {
                    if let Some(entry) = self.page_entry_mut(page).filter(|entry| holds_frame(entry)) {
                        set_access(entry, access);
                    }
                }
            }
        }
    }
}

/// Returns whether the entry is a mapping, valid or revoked.
fn holds_frame(entry: &PageTableEntry) -> bool {
    entry.flags().contains(PageTableFlags::PRESENT) || is_revoked(entry)
}

fn set_access(entry: &mut PageTableEntry, access: Access) {
    let mut flags = entry.flags();
    flags.set(PageTableFlags::WRITABLE, access == Access::ReadWrite);
    entry.set_flags(flags);
}
