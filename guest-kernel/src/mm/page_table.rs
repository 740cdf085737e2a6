//! Four-level page tables (Intel SDM vol. 3, 4.5), seen as *slots* of 2 MiB: empty, one huge page,
//! or a table of 512 pages.
//!
//! Tables are reached through the identity map, so a table's frame address is its virtual address.
//! Under `cargo test` the frames are ordinary memory of the test, and the same code runs. Mapping
//! takes ownership of a [`Block`]. Unmapping returns it in two steps, [`PageTables::revoke`] and,
//! after the TLB has been flushed, [`PageTables::collect`]: a frame must not reach its next owner
//! while a stale translation can still write to it.
#![allow(unsafe_code, reason = "reaches tables by their addresses")]

use aerostat_abi::units::{FRAME_SIZE, FrameNumber, HUGE_BYTES, HUGE_FRAMES};
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
use super::frame_contents::zero;
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
        let Some(entry) = self.page_entry_or_new(address, tables) else { return Err(block) };
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
        let entry = &mut self.root_mut()[index(address, 3)];
        // SAFETY: the entry is one of these tables, which are borrowed exclusively.
        let Some(upper) = (unsafe { descend(entry, TableLevel::Upper, tables) }) else { return Err(table) };
        let flags = MAPPED | PageTableFlags::NO_EXECUTE | PageTableFlags::HUGE_PAGE;
        let first = FrameNumber::containing(address);
        let number = fill_table(table, |slot| (FrameNumber(first.0 + slot * HUGE_FRAMES), flags));
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
                let is_valid = |page: &PageTableEntry| page.flags().contains(PageTableFlags::PRESENT);
                if let Some(entry) = self.existing_slot_entry_mut(address) {
                    // SAFETY: the slot is a table of these tables, which are borrowed exclusively.
                    let table = unsafe { table_of(entry) };
                    if !table.iter().any(is_valid) {
                        entry.set_flags(entry.flags() - PageTableFlags::PRESENT);
                    }
                }
            }
        }
    }

    /// Calls `receive` with what [`Self::revoke`] revoked in the slot at `address` up to `end`, and
    /// what was evicted there, with the slot's table once it is empty.
    pub(crate) fn collect(&mut self, address: u64, end: u64, receive: &mut dyn FnMut(Collected)) {
        let Some(entry) = self.existing_slot_entry_mut(address) else { return };
        if entry.is_unused() {
            return;
        }
        if entry.flags().contains(PageTableFlags::HUGE_PAGE) {
            if is_revoked(entry) {
                // SAFETY: the entry owns a huge frame.
                receive(Collected::Page(unsafe { take(entry, BlockSize::Huge) }));
            }
            return;
        }
        // SAFETY: the slot is a table of these tables, which are borrowed exclusively.
        let table = unsafe { table_of(entry) };
        for page in (address..end).step_by(FRAME_SIZE) {
            let page = &mut table[index(page, 0)];
            if let Some(swap) = take_swap_entry(page) {
                receive(Collected::Evicted(swap));
            } else if is_revoked(page) {
                // SAFETY: the entry of a revoked page owns its frame.
                receive(Collected::Page(unsafe { take(page, BlockSize::Frame) }));
            }
        }
        let is_empty = table.iter().all(PageTableEntry::is_unused);
        if entry.flags().contains(PageTableFlags::PRESENT) {
            return; // some of its pages remain
        }
        if is_empty {
            // SAFETY: the entry owns the table's frame, and no reference to the table is left.
            receive(Collected::Table(unsafe { take(entry, BlockSize::Frame) }));
        } else {
            entry.set_flags(entry.flags() | PageTableFlags::PRESENT);
        }
    }

    fn root(&self) -> &PageTable {
        // SAFETY: by the requirements of `new` the root is a table, and these tables are borrowed.
        unsafe { &*table_at(self.root) }
    }

    fn root_mut(&mut self) -> &mut PageTable {
        // SAFETY: as in `root`; they are borrowed exclusively.
        unsafe { &mut *table_at(self.root) }
    }

    fn slot_entry(&self, address: u64) -> Option<&PageTableEntry> {
        let mut table = self.root();
        for level in [3, 2] {
            // SAFETY: the entry is one of these tables, which are borrowed.
            table = unsafe { table_below(&table[index(address, level)]) }?;
        }
        Some(&table[index(address, 1)])
    }

    fn existing_slot_entry_mut(&mut self, address: u64) -> Option<&mut PageTableEntry> {
        let mut table = self.root_mut();
        for level in [3, 2] {
            // SAFETY: the entry is one of these tables, which are borrowed exclusively.
            table = unsafe { table_below_mut(&mut table[index(address, level)]) }?;
        }
        Some(&mut table[index(address, 1)])
    }

    fn slot_entry_mut(&mut self, address: u64, tables: TableSource<'_>) -> Option<&mut PageTableEntry> {
        let mut table = self.root_mut();
        for level in [3, 2] {
            // SAFETY: the entry is one of these tables, which are borrowed exclusively.
            table = unsafe { descend(&mut table[index(address, level)], TableLevel::Upper, tables) }?;
        }
        Some(&mut table[index(address, 1)])
    }

    fn page_entry(&self, address: u64) -> Option<&PageTableEntry> {
        // SAFETY: the entry is one of these tables, which are borrowed.
        unsafe { table_below(self.slot_entry(address)?) }.map(|table| &table[index(address, 0)])
    }

    fn page_entry_mut(&mut self, address: u64) -> Option<&mut PageTableEntry> {
        // SAFETY: the entry is one of these tables, which are borrowed exclusively.
        unsafe { table_below_mut(self.existing_slot_entry_mut(address)?) }.map(|table| &mut table[index(address, 0)])
    }

    /// Returns the entry of the page at `address`, and creates the tables on the way to it.
    fn page_entry_or_new(&mut self, address: u64, tables: TableSource<'_>) -> Option<&mut PageTableEntry> {
        let slot = self.slot_entry_mut(address, tables)?;
        // SAFETY: the entry is one of these tables, which are borrowed exclusively.
        let table = unsafe { descend(slot, TableLevel::Pages, tables) }?;
        Some(&mut table[index(address, 0)])
    }
}

/// Returns the index of `address` in a table of the given level, 0 for pages to 3 for the root.
fn index(address: u64, level: u32) -> usize {
    usize::from(u16::try_from((address >> (12 + 9 * level)) & 511).unwrap_or(0))
}

/// Returns whether an entry refers to a table that is in force.
fn is_table(entry: &PageTableEntry) -> bool {
    let flags = entry.flags();
    flags.contains(PageTableFlags::PRESENT) && !flags.contains(PageTableFlags::HUGE_PAGE)
}

/// Returns the table below an entry, if there is one.
///
/// # Safety
/// The entry is part of the tables of a [`PageTables`] that is borrowed for as long.
unsafe fn table_below(entry: &PageTableEntry) -> Option<&PageTable> {
    // SAFETY: such an entry refers to a table of the same tables.
    is_table(entry).then(|| unsafe { &*table_at(frame_of(entry)) })
}

/// Returns the table below an entry, if there is one.
///
/// # Safety
/// The entry is part of the tables of a [`PageTables`] that is borrowed exclusively for as long.
unsafe fn table_below_mut(entry: &mut PageTableEntry) -> Option<&mut PageTable> {
    // SAFETY: such an entry refers to a table of the same tables.
    is_table(entry).then(|| unsafe { table_of(entry) })
}

/// Returns the table that an entry refers to, be it in force or revoked.
///
/// # Safety
/// The entry refers to a table, and is part of the tables of a [`PageTables`] that is borrowed
/// exclusively for as long.
unsafe fn table_of(entry: &mut PageTableEntry) -> &mut PageTable {
    // SAFETY: the table belongs to the same tables, so no other reference to it is alive.
    unsafe { &mut *table_at(frame_of(entry)) }
}

/// Returns the table below an entry, and creates it if the entry is empty.
///
/// # Safety
/// As for [`table_below_mut`].
unsafe fn descend<'a>(
    entry: &'a mut PageTableEntry,
    level: TableLevel,
    tables: TableSource<'_>,
) -> Option<&'a mut PageTable> {
    if entry.is_unused() {
        let table = tables(level)?;
        zero(&table);
        set(entry, table.into_number(), MAPPED);
    }
    // SAFETY: as the caller vouches.
    unsafe { table_below_mut(entry) }
}

/// Makes a table of a frame: `entry_of` returns what the entry at each place refers to. Returns the
/// frame's number, for the entry that will own it.
fn fill_table(table: Block, mut entry_of: impl FnMut(u64) -> (FrameNumber, PageTableFlags)) -> FrameNumber {
    debug_assert_eq!(table.size(), BlockSize::Frame);
    // SAFETY: the frame is owned, so no other code uses its memory, and any bits are a table.
    let entries = unsafe { &mut *table_at(table.first()) };
    for (place, entry) in (0..).zip(entries.iter_mut()) {
        let (frame, flags) = entry_of(place);
        set(entry, frame, flags);
    }
    table.into_number()
}

fn set(entry: &mut PageTableEntry, frame: FrameNumber, flags: PageTableFlags) {
    entry.set_addr(PhysAddr::new(frame.address()), flags);
}

fn frame_of(entry: &PageTableEntry) -> FrameNumber {
    FrameNumber::containing(entry.addr().as_u64())
}

/// Clears an entry and returns what it owned to the caller.
///
/// # Safety
/// The entry owns a block of this size. If that is a table, no reference to it is alive.
unsafe fn take(entry: &mut PageTableEntry, size: BlockSize) -> Block {
    let frame = frame_of(entry);
    entry.set_unused();
    // SAFETY: the entry owned it, and refers to it no more.
    unsafe { Block::from_raw(frame, size, Contents::Unknown) }
}

/// Returns where the identity map has the table in a frame.
fn table_at(frame: FrameNumber) -> *mut PageTable {
    core::ptr::with_exposed_provenance_mut(aerostat_abi::units::to_usize(frame.address()))
}

#[cfg(test)]
mod tests;
