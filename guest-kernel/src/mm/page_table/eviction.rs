//! What reclaim does to page tables: ages pages, splits huge ones, and replaces translations by
//! [`SwapEntry`]s and back.
//!
//! A page that is being evicted is first *revoked*: not present, its frame still in the entry.
//! After a TLB flush it is replaced by a swap entry or reinstated: at once, or, when it goes to
//! disk, once it has been written. A fault on a page that is still being evicted reinstates it.

use aerostat_abi::units::{FRAME_SIZE, FrameNumber};
use aerostat_reclaim_policy::{Age, Verdict};
use x86_64::PhysAddr;
use x86_64::structures::paging::PageTableFlags;
use x86_64::structures::paging::page_table::PageTableEntry;

use super::{Access, DATA, MAPPED, PageTables, Slot, TableSource, fill_table, frame_of, set, take};
use crate::mm::block::{Block, BlockSize};
use crate::mm::reclaim::swap::entry::{AGE_MASK, Stored, SwapEntry};

/// The bits that a page table entry leaves to software and that hold a page's age: 52 to 58 (Intel
/// SDM vol. 3, 4.5.4).
const AGE_SHIFT: u32 = 52;
const AGE_FIELD: u64 = (AGE_MASK as u64) << AGE_SHIFT;

/// Another software bit: compressing the page has failed since it was last seen dirty.
const INCOMPRESSIBLE: PageTableFlags = PageTableFlags::BIT_9;

/// Another software bit: the application does not need the page's contents, unless the entry is
/// dirty and so the page has been written since.
pub(super) const DISCARDABLE: PageTableFlags = PageTableFlags::BIT_10;

/// Another software bit: the page is sampled ([`crate::mm::activity`]), and had not been accessed
/// since at the last visit. Linux's `PG_idle` of idle page tracking.
const SAMPLED: PageTableFlags = PageTableFlags::BIT_11;

/// Another software bit: the page was accessed before its accessed bit was cleared to sample it.
/// Linux's `PG_young`.
const YOUNG: PageTableFlags = PageTableFlags::BIT_59;

/// What a 4 KiB page's entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageState {
    /// Never touched.
    Empty,
    /// In memory.
    Mapped,
    /// In memory, but being evicted: its translation is revoked.
    Leaving,
    /// Evicted.
    Swapped(SwapEntry),
}

/// A page that is being evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RevokedPage {
    pub(crate) frame: FrameNumber,
    pub(crate) age: Age,
    /// Compressing it has failed, and it has not been written to since.
    pub(crate) is_incompressible: bool,
    /// The application does not need its contents.
    pub(crate) is_discardable: bool,
}

/// How a page is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) age: Age,
    /// The page was stored uncompressed, because it does not compress.
    pub(crate) is_incompressible: bool,
    /// The access that its region allows.
    pub(crate) access: Access,
}

/// What a visit changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Visited {
    /// The page was in memory.
    pub(crate) is_mapped: bool,
    /// The TLB may hold what the tables no longer say.
    pub(crate) is_stale: bool,
    /// The page's translation is revoked: the caller must evict the page or reinstate it.
    pub(crate) is_revoked: bool,
}

impl PageTables {
    /// Returns what the entry of the page at `address` says.
    pub(crate) fn page_state(&self, address: u64) -> PageState {
        match self.slot(address) {
            Slot::Empty => PageState::Empty,
            Slot::Huge => PageState::Mapped,
            Slot::Table => match self.page_entry(address) {
                Some(entry) if entry.flags().contains(PageTableFlags::PRESENT) => PageState::Mapped,
                Some(entry) if is_revoked(entry) => PageState::Leaving,
                Some(entry) => SwapEntry::decode(raw(entry)).map_or(PageState::Empty, PageState::Swapped),
                None => PageState::Empty,
            },
        }
    }

    /// Ages the huge page at `address`: clears its accessed bit, and stores the age that `age`
    /// returns. Returns whether it was accessed; then the TLB must be flushed.
    pub(crate) fn visit_huge(&mut self, address: u64, age: &mut dyn FnMut(Age, bool) -> Age) -> bool {
        let Some(entry) = self.existing_slot_entry_mut(address) else { return false };
        let accessed = was_accessed(entry);
        let age = age(age_of(entry), accessed);
        keep(entry, age);
        accessed
    }

    /// Ages the page at `address`, if it is in memory: stores the age that `age` returns, or
    /// revokes the translation. A page whose contents are not needed is revoked without calling
    /// `age`.
    pub(crate) fn visit_page(&mut self, address: u64, age: &mut dyn FnMut(Age, bool) -> Verdict) -> Visited {
        let Some(entry) = self.page_entry_mut(address) else { return Visited::default() };
        let flags = entry.flags();
        if !flags.contains(PageTableFlags::PRESENT) {
            return Visited::default();
        }
        let accessed = was_accessed(entry);
        let verdict = if settle_discard(entry) { Verdict::Evict } else { age(age_of(entry), accessed) };
        match verdict {
            Verdict::Keep(age) => {
                keep(entry, age);
                Visited { is_mapped: true, is_stale: accessed, is_revoked: false }
            }
            Verdict::Evict => {
                entry.set_flags(entry.flags() - PageTableFlags::PRESENT);
                Visited { is_mapped: true, is_stale: true, is_revoked: true }
            }
        }
    }

    /// Begins to sample the page at `address`, huge or not: clears its accessed bit, and remembers
    /// for the next visit that it was set. Returns whether it was; then the TLB must be flushed. An
    /// entry is written only where it changes, as a host may have to intercept the write.
    pub(crate) fn begin_sample(&mut self, address: u64) -> bool {
        let entry = match self.slot(address) {
            Slot::Empty => None,
            Slot::Huge => self.existing_slot_entry_mut(address),
            Slot::Table => self.page_entry_mut(address),
        };
        let Some(entry) = entry.filter(|entry| entry.flags().contains(PageTableFlags::PRESENT)) else { return false };
        let flags = entry.flags();
        let was_accessed = flags.contains(PageTableFlags::ACCESSED);
        let before = if was_accessed { (flags - PageTableFlags::ACCESSED) | YOUNG } else { flags };
        let marked = before | SAMPLED;
        if marked != flags {
            entry.set_flags(marked);
        }
        was_accessed
    }

    /// Returns whether a page has been accessed since it was last sampled, or `None` if it is not
    /// in memory. One that was evicted and is in memory again has been accessed.
    pub(crate) fn was_touched(&self, address: u64) -> Option<bool> {
        let entry = match self.slot(address) {
            Slot::Empty => None,
            Slot::Huge => self.slot_entry(address),
            Slot::Table => self.page_entry(address),
        };
        let flags = entry.map(PageTableEntry::flags).filter(|flags| flags.contains(PageTableFlags::PRESENT))?;
        Some(flags.contains(PageTableFlags::ACCESSED) || !flags.contains(SAMPLED))
    }

    /// Stores the age that `age` returns for the page at `address`, and clears its accessed bit;
    /// does neither where it returns none, or the page is not in memory. Returns whether the TLB
    /// may hold what the tables no longer say.
    pub(crate) fn age_page(&mut self, address: u64, age: &mut dyn FnMut(Age, bool) -> Option<Age>) -> bool {
        let Some(entry) = self.page_entry_mut(address) else { return false };
        let accessed = was_accessed(entry);
        let is_mapped = entry.flags().contains(PageTableFlags::PRESENT);
        let Some(age) = is_mapped.then(|| age(age_of(entry), accessed)).flatten() else { return false };
        keep(entry, age);
        accessed
    }

    /// Splits the huge page at `address` into a table of pages, in `table`. Each page inherits age
    /// and accessed bit.
    ///
    /// # Errors
    /// Returns the block when there is no huge page.
    pub(crate) fn split(&mut self, address: u64, table: Block) -> Result<(), Block> {
        if self.slot(address) != Slot::Huge {
            return Err(table);
        }
        let Some(entry) = self.existing_slot_entry_mut(address) else { return Err(table) };
        let first = frame_of(entry);
        let flags = entry.flags() - PageTableFlags::HUGE_PAGE;
        let number = fill_table(table, |page| (FrameNumber(first.0 + page), flags));
        set(entry, number, MAPPED);
        Ok(())
    }

    /// Returns the page at `address`, if its translation is revoked.
    pub(crate) fn revoked_page(&self, address: u64) -> Option<RevokedPage> {
        let entry = self.page_entry(address).filter(|entry| is_revoked(entry))?;
        let is_unchanged = !entry.flags().contains(PageTableFlags::DIRTY);
        Some(RevokedPage {
            frame: frame_of(entry),
            age: age_of(entry),
            is_incompressible: entry.flags().contains(INCOMPRESSIBLE) && is_unchanged,
            is_discardable: entry.flags().contains(DISCARDABLE) && is_unchanged,
        })
    }

    /// Notes that the contents of the pages of the slot at `address`, up to `end`, are not needed
    /// until they are written to. The caller must flush the TLB: the CPU sets a dirty bit only
    /// where the TLB does not say that it is set. A huge page is marked as a whole.
    pub(crate) fn mark_discardable(&mut self, address: u64, end: u64) {
        match self.slot(address) {
            Slot::Empty => {}
            Slot::Huge => {
                if let Some(entry) = self.existing_slot_entry_mut(address) {
                    entry.set_flags((entry.flags() - PageTableFlags::DIRTY) | DISCARDABLE);
                }
            }
            Slot::Table => {
                for page in (address..end).step_by(FRAME_SIZE) {
                    let in_force = |entry: &&mut PageTableEntry| entry.flags().contains(PageTableFlags::PRESENT);
                    if let Some(entry) = self.page_entry_mut(page).filter(in_force) {
                        entry.set_flags((entry.flags() - PageTableFlags::DIRTY) | DISCARDABLE);
                    }
                }
            }
        }
    }

    /// Returns whether the contents of the huge page at `address` are not needed.
    pub(crate) fn is_huge_discardable(&mut self, address: u64) -> bool {
        self.slot(address) == Slot::Huge && self.existing_slot_entry_mut(address).is_some_and(settle_discard)
    }

    /// Removes the swap entry of the evicted page at `address`: it reads as zero from now on.
    pub(crate) fn take_swapped(&mut self, address: u64) -> Option<SwapEntry> {
        take_swap_entry(self.page_entry_mut(address)?)
    }

    /// Removes the revoked page at `address`: it reads as zero from now on. The caller gets its
    /// frame.
    pub(crate) fn discard_revoked(&mut self, address: u64) -> Option<Block> {
        let entry = self.page_entry_mut(address).filter(|entry| is_revoked(entry))?;
        // SAFETY: the entry of a revoked page owns its frame.
        Some(unsafe { take(entry, BlockSize::Frame) })
    }

    /// Notes that the revoked page at `address` does not compress. That holds until it is written
    /// to.
    pub(crate) fn note_incompressible(&mut self, address: u64) {
        if let Some(entry) = self.page_entry_mut(address).filter(|entry| is_revoked(entry)) {
            entry.set_flags((entry.flags() - PageTableFlags::DIRTY - DISCARDABLE) | INCOMPRESSIBLE);
        }
    }

    /// Makes a revoked translation valid again.
    pub(crate) fn reinstate(&mut self, address: u64) {
        if let Some(entry) = self.page_entry_mut(address).filter(|entry| is_revoked(entry)) {
            let age = age_of(entry);
            entry.set_flags(entry.flags() | PageTableFlags::PRESENT);
            keep(entry, age);
        }
    }

    /// Notes that an evicted page's contents have moved. Returns whether they were where the caller
    /// expected.
    pub(crate) fn move_swapped(&mut self, address: u64, from: Stored, to: Stored) -> bool {
        let Some(page) = self.page_entry_mut(address) else { return false };
        let Some(entry) = SwapEntry::decode(raw(page)).filter(|entry| entry.stored == from) else { return false };
        set_raw(page, SwapEntry { stored: to, ..entry }.encode());
        true
    }

    /// Notes where a revoked page's contents are now, as `swap` says for its age. The caller gets
    /// its frame.
    pub(crate) fn replace_revoked(&mut self, address: u64, swap: impl FnOnce(Age) -> SwapEntry) -> Option<Block> {
        let entry = self.page_entry_mut(address).filter(|entry| is_revoked(entry))?;
        let swap = swap(age_of(entry));
        // SAFETY: the entry of a revoked page owns its frame.
        let block = unsafe { take(entry, BlockSize::Frame) };
        set_raw(entry, swap.encode());
        Some(block)
    }

    /// Maps `block`, which holds the contents of the evicted page at `address`.
    pub(crate) fn restore(&mut self, address: u64, block: Block, restored: Restored) {
        debug_assert!(matches!(self.page_state(address), PageState::Swapped(_)));
        if let Some(entry) = self.page_entry_mut(address) {
            let mut flags = restored.access.data_flags();
            flags.set(PageTableFlags::DIRTY, !restored.is_incompressible);
            flags.set(INCOMPRESSIBLE, restored.is_incompressible);
            set(entry, block.into_number(), with_age(flags, restored.age));
        }
    }
}

impl PageTables {
    /// Maps `block` at `address` for reading, in place of an empty entry or of one that says that
    /// the page is in its file.
    ///
    /// # Errors
    /// Returns the block when a table is missing.
    pub(crate) fn map_file_page(
        &mut self,
        address: u64,
        block: Block,
        age: Age,
        tables: TableSource<'_>,
    ) -> Result<(), Block> {
        let Some(entry) = self.page_entry_or_new(address, tables) else { return Err(block) };
        let flags = DATA - PageTableFlags::WRITABLE - PageTableFlags::DIRTY;
        set(entry, block.into_number(), with_age(flags, age));
        Ok(())
    }
}

/// Removes the swap entry from a page table entry, if it holds one.
pub(super) fn take_swap_entry(entry: &mut PageTableEntry) -> Option<SwapEntry> {
    let swap = SwapEntry::decode(raw(entry))?;
    entry.set_unused();
    Some(swap)
}

/// Returns whether the contents of a mapped page are not needed. A page that was written after it
/// was discarded is needed from then on.
fn settle_discard(entry: &mut PageTableEntry) -> bool {
    let flags = entry.flags();
    if flags.contains(DISCARDABLE) && flags.contains(PageTableFlags::DIRTY) {
        entry.set_flags(flags - DISCARDABLE);
        return false;
    }
    flags.contains(DISCARDABLE)
}

/// Returns whether the page was accessed since its last visit.
fn was_accessed(entry: &PageTableEntry) -> bool {
    entry.flags().intersects(PageTableFlags::ACCESSED | YOUNG)
}

/// Returns whether the entry holds a frame without mapping it.
pub(super) fn is_revoked(entry: &PageTableEntry) -> bool {
    !entry.flags().contains(PageTableFlags::PRESENT) && entry.flags().contains(PageTableFlags::USER_ACCESSIBLE)
}

/// Keeps a page: clears its accessed bit and stores a new age. If the page is sampled, it counts as
/// accessed.
fn keep(entry: &mut PageTableEntry, age: Age) {
    let mut flags = entry.flags() - YOUNG;
    if flags.contains(PageTableFlags::ACCESSED) {
        flags -= PageTableFlags::ACCESSED | SAMPLED;
    }
    entry.set_flags(with_age(flags, age));
}

fn with_age(flags: PageTableFlags, age: Age) -> PageTableFlags {
    let bits = flags.bits() & !AGE_FIELD | (u64::from(age.0) << AGE_SHIFT & AGE_FIELD);
    PageTableFlags::from_bits_retain(bits)
}

fn age_of(entry: &PageTableEntry) -> Age {
    Age(u8::try_from((entry.flags().bits() & AGE_FIELD) >> AGE_SHIFT).unwrap_or(0))
}

/// Returns the entry's 64 bits; the crate's type splits them into an address and flags.
fn raw(entry: &PageTableEntry) -> u64 {
    entry.addr().as_u64() | entry.flags().bits()
}

fn set_raw(entry: &mut PageTableEntry, value: u64) {
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    entry.set_addr(PhysAddr::new(value & ADDRESS), PageTableFlags::from_bits_retain(value & !ADDRESS));
}
