//! Page tables against a model of what is mapped where, in tables made of ordinary memory.
#![allow(unsafe_code, reason = "makes page tables of leaked memory")]

use std::collections::BTreeMap;
use std::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameNumber, HUGE_BYTES, HUGE_FRAMES, to_usize};
use proptest::collection::vec;
use proptest::prelude::Strategy;
use proptest::test_runner::{Config as ProptestConfig, TestCaseError};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};
use x86_64::structures::paging::PageTable;

use super::image::Image;
use super::{
    Access, Block, BlockSize, Collected, PageTableEntry, PageTableFlags, PageTables, Slot, TableLevel, frame_of,
};
use crate::mm::testing::block;

impl PageTables {
    /// Does what the CPU does when it walks to a page that is mapped.
    pub(crate) fn mark_accessed(&mut self, address: u64) {
        if let Some(entry) = self.existing_slot_entry_mut(address) {
            entry.set_flags(entry.flags() | PageTableFlags::ACCESSED);
        }
        if let Some(entry) = self.page_entry_mut(address) {
            entry.set_flags(entry.flags() | PageTableFlags::ACCESSED);
        }
    }

    /// Returns the frame behind `address`, if one is mapped.
    pub(crate) fn translate(&self, address: u64) -> Option<FrameNumber> {
        match self.slot(address) {
            Slot::Empty => None,
            Slot::Huge => {
                let first = frame_of(self.slot_entry(address)?);
                Some(FrameNumber(first.0 + address % HUGE_BYTES / FRAME_BYTES))
            }
            Slot::Table => {
                let entry = self.page_entry(address)?;
                entry.flags().contains(PageTableFlags::PRESENT).then(|| frame_of(entry))
            }
        }
    }
}

impl PageTables {
    /// Returns whether a write to `address` finds a page that allows it.
    pub(crate) fn is_writable(&self, address: u64) -> bool {
        self.leaf(address).is_some_and(|entry| entry.flags().contains(PageTableFlags::WRITABLE))
    }

    /// Marks the page at `address` as the CPU does when it is written to.
    pub(crate) fn mark_written(&mut self, address: u64) {
        let entry = match self.slot(address) {
            Slot::Huge => self.existing_slot_entry_mut(address),
            Slot::Empty | Slot::Table => self.page_entry_mut(address),
        };
        let entry = entry.expect("the page is mapped");
        entry.set_flags(entry.flags() | PageTableFlags::DIRTY | PageTableFlags::ACCESSED);
    }

    /// The entry that maps `address`.
    fn leaf(&self, address: u64) -> Option<&PageTableEntry> {
        let entry = if self.slot(address) == Slot::Huge { self.slot_entry(address) } else { self.page_entry(address) };
        entry.filter(|entry| entry.flags().contains(PageTableFlags::PRESENT))
    }
}

/// Slots in two different tables of slots and in two different top-level entries.
const SLOTS: [u64; 5] = [0x4000_0000_0000, 0x4000_0020_0000, 0x4000_3fe0_0000, 0x4000_4000_0000, 0x4180_0000_0000];
/// Tables above the tables of pages that those slots need, the root aside.
const UPPER_TABLES: usize = 5;
/// What is mapped is never touched, so its frames need not exist.
const FIRST_DATA_FRAME: u64 = 1 << 20;

/// Makes tables of leaked memory, until it is told to refuse.
#[derive(Default)]
struct TablePool {
    made: Vec<FrameNumber>,
    free: Vec<FrameNumber>,
    is_empty: bool,
}

impl TablePool {
    /// A table full of junk, to see that it is cleared.
    fn take(&mut self) -> Option<Block> {
        if self.is_empty {
            return None;
        }
        let frame = self.free.pop().unwrap_or_else(|| {
            let table = Box::leak(Box::new(PageTable::new()));
            let frame = FrameNumber::containing(core::ptr::from_mut(table).expose_provenance() as u64);
            self.made.push(frame);
            frame
        });
        let pointer = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(frame.address()));
        // SAFETY: the frame is a leaked table, and no code uses it now.
        unsafe { pointer.write_bytes(0xa5, FRAME_SIZE) };
        Some(block(frame, BlockSize::Frame))
    }

    fn live(&self) -> usize {
        self.made.len() - self.free.len()
    }
}

/// Tables, the pool they come from, and what they are meant to map.
struct Fixture {
    tables: PageTables,
    pool: TablePool,
    /// By address, whether valid or revoked.
    mapped: BTreeMap<u64, (FrameNumber, BlockSize)>,
    next_data_frame: u64,
    upper_tables: usize,
}

/// How a mapping is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tables {
    AtHand,
    Missing,
}

impl Fixture {
    fn new() -> Self {
        let root = Box::leak(Box::new(PageTable::new()));
        let root = FrameNumber::containing(core::ptr::from_mut(root).expose_provenance() as u64);
        // SAFETY: a fresh table of leaked memory, reachable at its own address, as are those that
        // the pool makes.
        let tables = unsafe { PageTables::new(root) };
        let pool = TablePool::default();
        Self { tables, pool, mapped: BTreeMap::new(), next_data_frame: FIRST_DATA_FRAME, upper_tables: 0 }
    }

    /// Maps a new block. Returns whether that was possible.
    fn map(&mut self, address: u64, size: BlockSize, tables: Tables) -> bool {
        let first = FrameNumber(self.next_data_frame);
        self.next_data_frame += HUGE_FRAMES;
        self.pool.is_empty = tables == Tables::Missing;
        let upper_tables = &mut self.upper_tables;
        let mut source = |level| {
            let table = self.pool.take()?;
            *upper_tables += usize::from(level == TableLevel::Upper);
            Some(table)
        };
        let block = block(first, size);
        let result = match size {
            BlockSize::Huge => self.tables.map_huge(address, block, Access::ReadWrite, &mut source),
            BlockSize::Frame => self.tables.map_page(address, block, Access::ReadWrite, &mut source),
        };
        match result {
            Ok(()) => self.mapped.insert(address, (first, size)).is_none(),
            Err(block) => {
                assert_eq!(block.into_number(), first, "the block that was refused comes back");
                false
            }
        }
    }

    /// Revokes and collects what is mapped in `range`, which lies in one slot; returns the data
    /// frames that came back.
    fn unmap(&mut self, range: &Range<u64>) -> Vec<(FrameNumber, BlockSize)> {
        self.tables.revoke(range.start, range.end);
        let pages = range.clone().step_by(FRAME_SIZE);
        assert!(pages.clone().all(|page| !self.tables.is_mapped(page)), "revoked");
        let mut returned = Vec::new();
        self.tables.collect(range.start, range.end, &mut |block| {
            let (Collected::Page(block) | Collected::Table(block)) = block else { panic!("nothing was evicted") };
            let size = block.size();
            returned.push((block.into_number(), size));
        });
        let (data, tables): (Vec<_>, Vec<_>) =
            returned.into_iter().partition(|(frame, _)| !self.pool.made.contains(frame));
        self.pool.free.extend(tables.into_iter().map(|(frame, _)| frame));
        for page in pages {
            self.mapped.remove(&page);
        }
        data
    }

    /// What the model has in the slot that begins at `slot`.
    fn expected_slot(&self, slot: u64) -> Slot {
        match self.mapped.range(slot..slot + HUGE_BYTES).next() {
            None => Slot::Empty,
            Some((_, (_, BlockSize::Huge))) => Slot::Huge,
            Some((_, (_, BlockSize::Frame))) => Slot::Table,
        }
    }

    fn expected_frame(&self, page: u64) -> Option<FrameNumber> {
        let slot = page - page % HUGE_BYTES;
        let huge = self.mapped.get(&slot).filter(|(_, size)| *size == BlockSize::Huge);
        let in_huge = huge.map(|(first, _)| FrameNumber(first.0 + (page - slot) / FRAME_BYTES));
        in_huge.or_else(|| self.mapped.get(&page).map(|(frame, _)| *frame))
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for slot in SLOTS {
            prop_assert_eq!(self.tables.slot(slot + 5), self.expected_slot(slot));
            for page in (slot..slot + HUGE_BYTES).step_by(FRAME_SIZE) {
                prop_assert_eq!(self.tables.translate(page), self.expected_frame(page));
                prop_assert_eq!(self.tables.is_mapped(page + 4095), self.expected_frame(page).is_some());
            }
        }
        let page_tables = SLOTS.iter().filter(|&&slot| self.tables.slot(slot) == Slot::Table).count();
        prop_assert_eq!(self.pool.live(), page_tables + self.upper_tables, "a table was lost or kept");
        prop_assert!(self.upper_tables <= UPPER_TABLES);
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    MapHuge { slot: usize, tables: Tables },
    MapPages { slot: usize, pages: Range<u64>, tables: Tables },
    Unmap { slot: usize, pages: Range<u64> },
    UnmapSlot(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slot = || 0..SLOTS.len();
    let tables =
        || prop_oneof![4 => proptest::strategy::Just(Tables::AtHand), 1 => proptest::strategy::Just(Tables::Missing)];
    // Runs at both ends of a slot and in the middle, so that runs meet.
    let pages = || {
        prop_oneof![0_u64..40, 480_u64..512]
            .prop_flat_map(|start| (start + 1..=(start + 40).min(HUGE_FRAMES)).prop_map(move |end| start..end))
    };
    let step = prop_oneof![
        2 => (slot(), tables()).prop_map(|(slot, tables)| Step::MapHuge { slot, tables }),
        4 => (slot(), pages(), tables()).prop_map(|(slot, pages, tables)| Step::MapPages { slot, pages, tables }),
        3 => (slot(), pages()).prop_map(|(slot, pages)| Step::Unmap { slot, pages }),
        2 => slot().prop_map(Step::UnmapSlot),
    ];
    vec(step, 1..30)
}

fn apply(fixture: &mut Fixture, step: Step) -> Result<(), TestCaseError> {
    match step {
        Step::MapHuge { slot, tables } => {
            let is_empty = fixture.expected_slot(SLOTS[slot]) == Slot::Empty;
            let is_mapped = fixture.map(SLOTS[slot], BlockSize::Huge, tables);
            prop_assert!(is_mapped == is_empty || tables == Tables::Missing && !is_mapped);
        }
        Step::MapPages { slot, pages, tables } => {
            for address in pages.map(|page| SLOTS[slot] + page * FRAME_BYTES) {
                let is_free = fixture.expected_frame(address).is_none();
                let has_table = fixture.expected_slot(SLOTS[slot]) == Slot::Table;
                let is_mapped = fixture.map(address, BlockSize::Frame, tables);
                prop_assert_eq!(is_mapped, is_free && (has_table || tables == Tables::AtHand));
            }
        }
        Step::Unmap { slot, pages } => {
            // A huge page is only ever unmapped as a whole.
            if fixture.expected_slot(SLOTS[slot]) != Slot::Huge {
                unmap(fixture, SLOTS[slot] + pages.start * FRAME_BYTES..SLOTS[slot] + pages.end * FRAME_BYTES)?;
            }
        }
        Step::UnmapSlot(slot) => unmap(fixture, SLOTS[slot]..SLOTS[slot] + HUGE_BYTES)?,
    }
    Ok(())
}

fn unmap(fixture: &mut Fixture, range: Range<u64>) -> Result<(), TestCaseError> {
    let expected: Vec<_> = fixture.mapped.range(range.clone()).map(|(_, block)| *block).collect();
    prop_assert_eq!(fixture.unmap(&range), expected, "what was mapped comes back, and nothing else");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn maps_what_was_asked_and_returns_what_was_mapped(steps in steps()) {
        let mut fixture = Fixture::new();
        for step in steps {
            apply(&mut fixture, step)?;
            fixture.check()?;
        }
        for slot in SLOTS {
            unmap(&mut fixture, slot..slot + HUGE_BYTES)?;
        }
        fixture.check()?;
        prop_assert_eq!(fixture.pool.live(), fixture.upper_tables, "tables of pages go when they are empty");
    }
}

#[test]
fn nothing_is_collected_that_was_not_revoked() {
    let mut fixture = Fixture::new();
    assert!(fixture.map(SLOTS[0], BlockSize::Huge, Tables::AtHand));
    assert!(fixture.map(SLOTS[1], BlockSize::Frame, Tables::AtHand));
    for slot in SLOTS {
        fixture.tables.collect(slot, slot + HUGE_BYTES, &mut |block| {
            panic!("{block:?} is in force");
        });
    }
    fixture.check().unwrap();
}

#[test]
fn a_revoked_page_is_invalid_but_its_slot_is_in_use_until_collected() {
    let mut fixture = Fixture::new();
    assert!(fixture.map(SLOTS[0], BlockSize::Huge, Tables::AtHand));
    assert!(fixture.map(SLOTS[1], BlockSize::Frame, Tables::AtHand));
    for slot in [SLOTS[0], SLOTS[1]] {
        fixture.tables.revoke(slot, slot + HUGE_BYTES);
        assert!(!fixture.tables.is_mapped(slot));
        assert!(!fixture.map(slot, BlockSize::Frame, Tables::AtHand), "its old frame may still be written to");
    }
    assert!(!fixture.map(SLOTS[0], BlockSize::Huge, Tables::AtHand));
    assert_eq!(fixture.unmap(&(SLOTS[0]..SLOTS[0] + HUGE_BYTES)).len(), 1);
    assert_eq!(fixture.unmap(&(SLOTS[1]..SLOTS[1] + HUGE_BYTES)).len(), 1);
    assert!(fixture.map(SLOTS[0], BlockSize::Huge, Tables::AtHand));
}

#[test]
fn pages_are_writable_by_ring_3_marked_as_used_and_hold_no_code() {
    let mut fixture = Fixture::new();
    assert!(fixture.map(SLOTS[0], BlockSize::Huge, Tables::AtHand));
    assert!(fixture.map(SLOTS[1], BlockSize::Frame, Tables::AtHand));
    let wanted = PageTableFlags::PRESENT
        | PageTableFlags::WRITABLE
        | PageTableFlags::USER_ACCESSIBLE
        | PageTableFlags::ACCESSED
        | PageTableFlags::DIRTY
        | PageTableFlags::NO_EXECUTE;
    let huge = fixture.tables.slot_entry(SLOTS[0]).unwrap().flags();
    let page = fixture.tables.page_entry(SLOTS[1]).unwrap().flags();
    assert_eq!((huge, page), (wanted | PageTableFlags::HUGE_PAGE, wanted));
}

#[test]
fn a_gibibyte_of_the_identity_map_takes_one_table() {
    const GIB: u64 = 3 << 30;
    let mut fixture = Fixture::new();
    let table = fixture.pool.take().unwrap();
    let result = fixture.tables.map_identity_gib(GIB, table, &mut |_| fixture.pool.take());
    assert!(result.map_err(Block::into_number).is_ok());
    assert_eq!(fixture.pool.live(), 2, "its own, and one above");
    for address in (GIB..GIB + (1 << 30)).step_by(to_usize(HUGE_BYTES)) {
        assert_eq!(fixture.tables.translate(address + 0x3456), Some(FrameNumber::containing(address + 0x3456)));
    }
    assert!(!fixture.tables.is_mapped(GIB - 1) && !fixture.tables.is_mapped(GIB + (1 << 30)));
}

#[test]
fn the_first_gibibyte_is_mapped_anew_as_the_image_requires() {
    let mut fixture = Fixture::new();
    let table = fixture.pool.take().unwrap();
    let before = fixture.tables.map_identity_gib(0, table, &mut |_| fixture.pool.take());
    assert!(before.map_err(Block::into_number).is_ok());
    let image = Image { code_end: 0x20_3000, constants_end: 0x20_5000, end: 0x30_0000 };
    let end = FrameNumber::containing(16 << 20);
    fixture.tables.map_first_gib(&image, end, &mut || fixture.pool.take().unwrap());
    assert_eq!(fixture.pool.live(), 5, "the two of before, one of slots, and one each for the first two slots");
    let right = |address| {
        let flags = fixture.tables.page_entry(address).map(PageTableEntry::flags);
        flags.map(|flags| [PageTableFlags::WRITABLE, PageTableFlags::NO_EXECUTE].map(|flag| flags.contains(flag)))
    };
    let [code, constants, data] = [[false, false], [false, true], [true, true]].map(Some);
    for (address, wanted) in [
        (0x10_0000, data),
        (0x1f_f000, data),
        (0x20_0000, code),
        (0x20_2000, code),
        (0x20_3000, constants),
        (0x20_5000, data),
        (0x3f_f000, data),
    ] {
        assert_eq!(right(address), wanted, "{address:#x}");
        assert_eq!(fixture.tables.translate(address), Some(FrameNumber::containing(address)));
    }
    assert!(!fixture.tables.is_mapped(0) && !fixture.tables.is_mapped(0xf_f000), "a null pointer is an error");
    assert_eq!(fixture.tables.slot(0x40_0000), Slot::Huge);
    assert!(fixture.tables.slot_entry(0x40_0000).unwrap().flags().contains(PageTableFlags::NO_EXECUTE));
    assert!(fixture.tables.is_mapped((16 << 20) - 1) && !fixture.tables.is_mapped(16 << 20));
}

#[test]
fn a_gibibyte_without_a_table_above_returns_its_own_table() {
    let mut fixture = Fixture::new();
    let table = fixture.pool.take().unwrap();
    let first = table.first();
    let result = fixture.tables.map_identity_gib(1 << 30, table, &mut |_| None);
    assert_eq!(result.map_err(Block::into_number), Err(first));
}
