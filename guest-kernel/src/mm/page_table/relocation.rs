//! Moves pages to other frames without the application noticing: one by one for compaction, 512 at
//! once for a collapse.
//!
//! Like a page that is evicted, a page that moves is revoked first, and its contents are copied
//! after a TLB flush. Then it gets its new frame, or is reinstated with the old one.

use aerostat_abi::units::{FRAME_SIZE, FrameNumber, HUGE_BYTES};
use x86_64::structures::paging::page_table::PageTableEntry;
use x86_64::structures::paging::{PageTable, PageTableFlags};

use super::eviction::DISCARDABLE;
use super::{Access, PageTables, frame_of, is_revoked, set, table_at, table_below, take};
use crate::mm::block::{Block, BlockSize};

/// A software bit of a table's entry: the table was full and its pages were in use at the last
/// visit.
const WAS_BUSY: PageTableFlags = PageTableFlags::BIT_9;

impl PageTables {
    /// Returns the frame of the 4 KiB page at `address`, if it is in memory and not revoked.
    pub(crate) fn page_frame(&self, address: u64) -> Option<FrameNumber> {
        let entry = self.page_entry(address)?;
        entry.flags().contains(PageTableFlags::PRESENT).then(|| frame_of(entry))
    }

    /// Revokes the translation of one page. The caller must flush the TLB.
    pub(crate) fn revoke_page(&mut self, address: u64) {
        if let Some(entry) = self.page_entry_mut(address).filter(|entry| !entry.is_unused()) {
            entry.set_flags(entry.flags() - PageTableFlags::PRESENT);
        }
    }

    /// Gives the revoked page at `address` another frame with the same contents, and makes its
    /// translation valid. The caller gets the old frame.
    ///
    /// # Errors
    /// Returns the new frame when there is no such page.
    pub(crate) fn exchange_frame(&mut self, address: u64, block: Block) -> Result<Block, Block> {
        let Some(entry) = self.page_entry_mut(address).filter(|entry| is_revoked(entry)) else { return Err(block) };
        let flags = entry.flags() | PageTableFlags::PRESENT;
        // SAFETY: the entry of a revoked page owns its frame.
        let old = unsafe { take(entry, BlockSize::Frame) };
        set(entry, block.into_number(), flags);
        Ok(old)
    }

    /// Visits the table of pages of the slot at `address`. Returns whether it is full and its pages
    /// were in use now and at the last visit. The accessed bit of the table's own entry says
    /// whether they were used in between; it is cleared, so the caller must flush the TLB. Entries
    /// are written only where they change, as a host may have to intercept the write.
    pub(crate) fn visit_table(&mut self, address: u64) -> bool {
        let is_full = self.is_full(address);
        let Some(entry) = self.existing_slot_entry_mut(address) else { return false };
        let flags = entry.flags();
        let is_busy = is_full && flags.contains(PageTableFlags::ACCESSED);
        let mut visited = if is_busy { flags - PageTableFlags::ACCESSED } else { flags };
        visited.set(WAS_BUSY, is_busy);
        if visited != flags {
            entry.set_flags(visited);
        }
        is_busy && flags.contains(WAS_BUSY)
    }

    /// Returns whether the slot at `address` is a table of 512 pages that are all in memory, not
    /// revoked, and needed.
    pub(crate) fn is_full(&self, address: u64) -> bool {
        let is_needed = |page: &PageTableEntry| {
            let flags = page.flags();
            flags.contains(PageTableFlags::PRESENT)
                && (flags.contains(PageTableFlags::DIRTY) || !flags.contains(DISCARDABLE))
        };
        self.table(address).is_some_and(|table| table.iter().all(is_needed))
    }

    /// Revokes the translations of all pages of the slot at `address`. The caller must flush the
    /// TLB.
    pub(crate) fn revoke_pages(&mut self, address: u64) {
        for page in pages(address) {
            self.revoke_page(page);
        }
    }

    /// Makes the translations of all revoked pages of the slot at `address` valid again.
    pub(crate) fn reinstate_pages(&mut self, address: u64) {
        for page in pages(address) {
            self.reinstate(page);
        }
    }

    /// Maps a huge frame with the contents of the slot's 512 revoked pages instead of their table;
    /// `free` gets their frames. The caller may use the table once the TLB has been flushed.
    ///
    /// # Errors
    /// Returns the huge frame when not all pages are revoked.
    pub(crate) fn replace_table(
        &mut self,
        address: u64,
        block: Block,
        access: Access,
        free: &mut dyn FnMut(Block),
    ) -> Result<Block, Block> {
        debug_assert_eq!((block.size(), address % HUGE_BYTES), (BlockSize::Huge, 0));
        match self.table(address) {
            Some(table) if table.iter().all(is_revoked) => {}
            _ => return Err(block),
        }
        let Some(entry) = self.existing_slot_entry_mut(address) else { return Err(block) };
        // SAFETY: the entry owns the table's frame, and the reference from above is gone.
        let table = unsafe { take(entry, BlockSize::Frame) };
        set(entry, block.into_number(), access.data_flags() | PageTableFlags::HUGE_PAGE);
        // SAFETY: the table is owned here, so no other reference to it is alive.
        for page in unsafe { &mut *table_at(table.first()) }.iter_mut() {
            // SAFETY: the entries of revoked pages own their frames.
            free(unsafe { take(page, BlockSize::Frame) });
        }
        Ok(table)
    }

    /// Returns the table of pages of the slot at `address`.
    fn table(&self, address: u64) -> Option<&PageTable> {
        // SAFETY: the entry is one of these tables, which are borrowed.
        unsafe { table_below(self.slot_entry(address)?) }
    }
}

fn pages(address: u64) -> impl Iterator<Item = u64> {
    (address..address + HUGE_BYTES).step_by(FRAME_SIZE)
}
