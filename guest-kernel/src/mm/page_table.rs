//! Four-level page tables (Intel SDM vol. 3, 4.5), seen as *slots* of 2 MiB: empty, one huge page,
//! or a table of 512 pages.
//!
//! Tables are reached through the identity map, so a table's frame address is its virtual address.
//! Under `cargo test` the frames are ordinary memory of the test, and the same code runs. Mapping
//! takes ownership of a [`Block`]. Unmapping returns it in two steps, [`PageTables::revoke`] and,
//! after the TLB has been flushed, [`PageTables::collect`]: a frame must not reach its next owner
//! while a stale translation can still write to it.
#![allow(unsafe_code, reason = "reaches tables by their addresses")]

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameNumber, HUGE_BYTES, HUGE_FRAMES};
use x86_64::PhysAddr;
use x86_64::structures::paging::page_table::PageTableEntry;
use x86_64::structures::paging::{PageTable, PageTableFlags};

mod eviction;
mod image;
mod protection;
mod relocation;

pub(crate) use eviction::{PageState, Restored};
use eviction::{is_revoked, take_swap_entry};
#[cfg(target_os = "none")]
pub(crate) use image::Image;
pub(crate) use protection::Access;

use super::block::{Block, BlockSize, Contents};
use super::reclaim::swap::entry::SwapEntry;

/// Flags of a table entry. All code runs in ring 3 and may write everywhere except in read-only
/// regions and in the image's code and constants; what must not be touched is not mapped.
const MAPPED: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE).union(PageTableFlags::USER_ACCESSIBLE);
/// Flags of a new page. Pages are mapped because they or their neighbours are touched, and the
/// contents of new ones are nowhere but in memory. So they are marked as accessed and dirty from
/// the start: the CPU need not do it, and a host that shadows page tables (KVM without hardware
/// virtualization) maps neighbours that are so marked with one fault, where it otherwise takes a
/// fault for each page.
const DATA: PageTableFlags =
    MAPPED.union(PageTableFlags::NO_EXECUTE).union(PageTableFlags::ACCESSED).union(PageTableFlags::DIRTY);
const REGISTERS: PageTableFlags =
    MAPPED.union(PageTableFlags::NO_EXECUTE).union(PageTableFlags::NO_CACHE).union(PageTableFlags::WRITE_THROUGH);

/// What a 2 MiB slot of the address space holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing.
    Empty,
    /// A 2 MiB page.
    Huge,
    /// A table of 4 KiB pages.
    Table,
}

/// What unmapping part of a slot returns.
#[derive(Debug)]
pub(crate) enum Collected {
    /// The memory of a page.
    Page(Block),
    /// The memory of the table that held the slot's pages.
    Table(Block),
    /// No memory, but the place where an evicted page's contents are kept.
    Evicted(SwapEntry),
}

/// Which kind of table is missing, and so which commit it is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableLevel {
    /// A table of pages. It belongs to the region of its 2 MiB slot.
    Pages,
    /// A table of tables. It belongs to the kernel and is never freed.
    Upper,
}

/// Allocates frames for page tables; returns `None` when there is none.
pub(crate) type TableSource<'a> = &'a mut dyn FnMut(TableLevel) -> Option<Block>;

/// The page tables of the address space.
#[derive(Debug)]
pub(crate) struct PageTables {
    root: FrameNumber,
}

impl PageTables {
    /// Takes over the tables under `root`.
    ///
    /// # Safety
    /// `root` holds a top-level table that is reachable at its own address, as are all tables below
    /// it, and no other code changes what lies under the entries that the caller maps.
    pub(crate) unsafe fn new(root: FrameNumber) -> Self {
        Self { root }
    }

    /// Returns what the slot that holds `address` contains.
    pub(crate) fn slot(&self, address: u64) -> Slot {
        let Some(entry) = self.slot_entry(address) else { return Slot::Empty };
        if !entry.flags().contains(PageTableFlags::PRESENT) {
            Slot::Empty
        } else if entry.flags().contains(PageTableFlags::HUGE_PAGE) {
            Slot::Huge
        } else {
            Slot::Table
        }
    }

    /// Returns whether the 4 KiB page at `address` is mapped.
    pub(crate) fn is_mapped(&self, address: u64) -> bool {
        match self.slot(address) {
            Slot::Empty => false,
            Slot::Huge => true,
            Slot::Table => {
                self.page_entry(address).is_some_and(|entry| entry.flags().contains(PageTableFlags::PRESENT))
            }
        }
    }

    /// Returns the first frame of the huge page that holds `address`.
    pub(crate) fn huge_frame(&self, address: u64) -> Option<FrameNumber> {
        (self.slot(address) == Slot::Huge).then(|| self.slot_entry(address).map(frame_of))?
    }

    /// Maps a huge frame at `address`.
    ///
    /// # Errors
    /// Returns the block when the slot is not empty or a table is missing.
    pub(crate) fn map_huge(
        &mut self,
        address: u64,
        block: Block,
        access: Access,
        tables: TableSource<'_>,
    ) -> Result<(), Block> {
        debug_assert_eq!((block.size(), address % HUGE_BYTES), (BlockSize::Huge, 0));
        let Some(entry) = self.slot_entry_mut(address, tables) else { return Err(block) };
        if !entry.is_unused() {
            return Err(block);
        }
        set(entry, block.into_number(), access.data_flags() | PageTableFlags::HUGE_PAGE);
        Ok(())
    }

    /// Maps a frame at `address`.
    ///
    /// # Errors
    /// Returns the block when the page is mapped already or a table is missing.
    pub(crate) fn map_page(
        &mut self,
        address: u64,
        block: Block,
        access: Access,
        tables: TableSource<'_>,
    ) -> Result<(), Block> {
        debug_assert_eq!(block.size(), BlockSize::Frame);
        let Some(slot) = self.slot_entry_mut(address, tables) else { return Err(block) };
        let Some(table) = descend(slot, TableLevel::Pages, tables) else { return Err(block) };
        let entry = &mut table[index(address, 0)];
        if !entry.is_unused() {
            return Err(block);
        }
        set(entry, block.into_number(), access.data_flags());
        Ok(())
    }

    /// Identity-maps the 1 GiB at `address`, with `table` as its table of slots. This is for memory
    /// that the image's own tables don't cover.
    pub(crate) fn map_identity_gib(
        &mut self,
        address: u64,
        table: Block,
        tables: TableSource<'_>,
    ) -> Result<(), Block> {
        let root = table_at(self.root);
        let Some(upper) = descend(&mut root[index(address, 3)], TableLevel::Upper, tables) else { return Err(table) };
        let number = table.into_number();
        for (slot, entry) in table_at(number).iter_mut().enumerate() {
            let frame = FrameNumber((address / FRAME_BYTES) + slot as u64 * HUGE_FRAMES);
            set(entry, frame, MAPPED | PageTableFlags::NO_EXECUTE | PageTableFlags::HUGE_PAGE);
        }
        set(&mut upper[index(address, 2)], number, MAPPED);
        Ok(())
    }

    /// Identity-maps the slot at `address` uncached, because it holds device registers. Does
    /// nothing where the slot is mapped already, or where the image's own tables don't reach.
    pub(crate) fn map_registers(&mut self, address: u64) {
        if let Some(entry) = self.existing_slot_entry_mut(address).filter(|entry| entry.is_unused()) {
            let slot = FrameNumber::containing(address - address % HUGE_BYTES);
            set(entry, slot, REGISTERS | PageTableFlags::HUGE_PAGE);
        }
    }

    /// Removes the slot at `address` from the identity map. The caller must flush the TLB.
    pub(crate) fn unmap_identity(&mut self, address: u64) {
        if let Some(entry) = self.existing_slot_entry_mut(address) {
            entry.set_unused();
        }
    }

    /// Revokes the translations of the slot at `address`, up to `end`. The caller must flush the
    /// TLB before [`Self::collect`]. A huge page is revoked as a whole or not at all.
    pub(crate) fn revoke(&mut self, address: u64, end: u64) {
        match self.slot(address) {
            Slot::Empty => {}
            // Part of a huge page can't be revoked: the rest is still in use.
            Slot::Huge => {
                let is_whole = address.is_multiple_of(HUGE_BYTES) && end == address + HUGE_BYTES;
                debug_assert!(is_whole, "{address:#x} to {end:#x} is only part of a huge page");
                if let Some(entry) = self.existing_slot_entry_mut(address).filter(|_| is_whole) {
                    entry.set_flags(entry.flags() - PageTableFlags::PRESENT);
                }
            }
            Slot::Table => {
                for page in (address..end).step_by(FRAME_SIZE) {
                    if let Some(entry) = self.page_entry_mut(page).filter(|entry| !entry.is_unused()) {
                        entry.set_flags(entry.flags() - PageTableFlags::PRESENT);
                    }
                }
                // A table without valid entries is revoked with its pages: the CPU may have cached
                // the entry that refers to it, too.
                if let Some(entry) = self.existing_slot_entry_mut(address)
                    && !table_at(frame_of(entry)).iter().any(|page| page.flags().contains(PageTableFlags::PRESENT))
                {
                    entry.set_flags(entry.flags() - PageTableFlags::PRESENT);
                }
            }
        }
    }

    /// Returns what [`Self::revoke`] revoked in the slot at `address` up to `end`, and what was
    /// evicted there, with the slot's table once it is empty.
    pub(crate) fn collect(&mut self, address: u64, end: u64, give_back: &mut dyn FnMut(Collected)) {
        let Some(entry) = self.existing_slot_entry_mut(address) else { return };
        if entry.is_unused() {
            return;
        }
        if entry.flags().contains(PageTableFlags::HUGE_PAGE) {
            if is_revoked(entry) {
                give_back(Collected::Page(take(entry, BlockSize::Huge)));
            }
            return;
        }
        let table = table_at(frame_of(entry));
        for page in (address..end).step_by(FRAME_SIZE) {
            let page = &mut table[index(page, 0)];
            if let Some(swap) = take_swap_entry(page) {
                give_back(Collected::Evicted(swap));
            } else if is_revoked(page) {
                give_back(Collected::Page(take(page, BlockSize::Frame)));
            }
        }
        if entry.flags().contains(PageTableFlags::PRESENT) {
            return; // some of its pages remain
        }
        if table.iter().all(PageTableEntry::is_unused) {
            give_back(Collected::Table(take(entry, BlockSize::Frame)));
        } else {
            entry.set_flags(entry.flags() | PageTableFlags::PRESENT);
        }
    }

    fn slot_entry(&self, address: u64) -> Option<&PageTableEntry> {
        let mut table = table_at(self.root);
        for level in [3, 2] {
            table = existing_table(&table[index(address, level)])?;
        }
        Some(&table[index(address, 1)])
    }

    fn existing_slot_entry_mut(&mut self, address: u64) -> Option<&mut PageTableEntry> {
        let mut table = table_at(self.root);
        for level in [3, 2] {
            table = existing_table(&table[index(address, level)])?;
        }
        Some(&mut table[index(address, 1)])
    }

    fn slot_entry_mut(&mut self, address: u64, tables: TableSource<'_>) -> Option<&mut PageTableEntry> {
        let mut table = table_at(self.root);
        for level in [3, 2] {
            table = descend(&mut table[index(address, level)], TableLevel::Upper, tables)?;
        }
        Some(&mut table[index(address, 1)])
    }

    fn page_entry(&self, address: u64) -> Option<&PageTableEntry> {
        existing_table(self.slot_entry(address)?).map(|table| &table[index(address, 0)])
    }

    fn page_entry_mut(&mut self, address: u64) -> Option<&mut PageTableEntry> {
        existing_table(self.slot_entry(address)?).map(|table| &mut table[index(address, 0)])
    }
}

/// Returns the index of `address` in a table of the given level, 0 for pages to 3 for the root.
fn index(address: u64, level: u32) -> usize {
    usize::from(u16::try_from((address >> (12 + 9 * level)) & 511).unwrap_or(0))
}

/// Returns the table below an entry, if there is one.
fn existing_table(entry: &PageTableEntry) -> Option<&'static mut PageTable> {
    let flags = entry.flags();
    let is_table = flags.contains(PageTableFlags::PRESENT) && !flags.contains(PageTableFlags::HUGE_PAGE);
    is_table.then(|| table_at(frame_of(entry)))
}

/// Returns the table below an entry, and creates it if the entry is empty.
fn descend(entry: &mut PageTableEntry, level: TableLevel, tables: TableSource<'_>) -> Option<&'static mut PageTable> {
    if entry.is_unused() {
        let block = tables(level)?;
        let is_zero = block.contents() == Contents::Zero;
        let number = block.into_number();
        if !is_zero {
            table_at(number).zero();
        }
        set(entry, number, MAPPED);
    }
    existing_table(entry)
}

fn set(entry: &mut PageTableEntry, frame: FrameNumber, flags: PageTableFlags) {
    entry.set_addr(PhysAddr::new(frame.address()), flags);
}

fn frame_of(entry: &PageTableEntry) -> FrameNumber {
    FrameNumber::containing(entry.addr().as_u64())
}

/// Clears an entry and returns what it mapped to the caller.
fn take(entry: &mut PageTableEntry, size: BlockSize) -> Block {
    let frame = frame_of(entry);
    entry.set_unused();
    Block::from_number(frame, size, Contents::Unknown)
}

/// Returns the table in a frame.
fn table_at(frame: FrameNumber) -> &'static mut PageTable {
    let pointer = core::ptr::with_exposed_provenance_mut::<PageTable>(aerostat_abi::units::to_usize(frame.address()));
    // SAFETY: `frame` came out of a table entry or was just made a table, so by the safety
    // requirements of `PageTables::new` it is a table reachable at its own address; `PageTables` is
    // only used under one lock, so no second reference is alive.
    unsafe { &mut *pointer }
}

#[cfg(test)]
mod tests;
