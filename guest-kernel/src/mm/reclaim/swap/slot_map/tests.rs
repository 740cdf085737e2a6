//! The slot map against a model.

use super::{CLUSTER, SlotContents, SlotMap, SlotNumber};
use crate::mm::bump::BumpAllocator;
use aerostat_abi::metadata;
use proptest::collection::vec;
use proptest::{prop_assert, prop_assert_eq, proptest};
use std::collections::BTreeMap;

fn map(slots: usize) -> SlotMap {
    SlotMap::new(slots, &mut BumpAllocator::leaked(SlotMap::words(slots)))
}

#[test]
fn the_monitor_knows_what_the_slot_map_takes() {
    for slots in [0, 63, 64, 1 << 18, (1 << 20) + 12_345, 1 << 24, 1 << 30] {
        assert_eq!(metadata::swap_words(slots), SlotMap::words(SlotMap::usable(slots)) as u64, "{slots} slots");
    }
}

#[test]
fn runs_come_from_whole_clusters_and_end_at_their_borders() {
    let mut map = map(2 * CLUSTER);
    assert_eq!(map.take_run(1, 40), Some((SlotNumber(0), 40)));
    assert_eq!(map.take_run(1, 40), Some((SlotNumber(64), 40)));
    assert_eq!(map.take_run(1, 40), Some((SlotNumber(40), 24)), "no cluster is whole");
    map.free_slot(SlotNumber(3));
    assert_eq!(map.take_run(1, 40), Some((SlotNumber(3), 1)));
    assert_eq!(map.take_run(1, 40), Some((SlotNumber(104), 24)));
    assert_eq!((map.take_run(1, 1), map.used()), (None, 2 * CLUSTER));
}

#[test]
fn a_run_is_found_behind_single_slots() {
    let mut map = map(3 * CLUSTER);
    while map.take_run(1, CLUSTER).is_some() {}
    for slot in [3, 5, 64, 66, 100, 101, 102, 150] {
        map.free_slot(SlotNumber(slot));
    }
    assert_eq!(map.take_run(4, 64), None);
    assert_eq!(map.take_run(3, 64), Some((SlotNumber(100), 3)));
    assert_eq!((map.take_run(2, 64), map.take_run(1, 64)), (None, Some((SlotNumber(3), 1))));
    map.free_slot(SlotNumber(63));
    assert_eq!(map.take_run(2, 64), None, "a run lies within one cluster");
}

#[test]
fn a_zspage_is_sparse_while_it_has_fewer_pages_than_slots() {
    let mut map = map(CLUSTER);
    let (first, _) = map.take_run(1, 2).unwrap();
    map.record(first, SlotContents::Zspage { pages: 0b111, slots: 2 });
    let (second, _) = map.take_run(1, 3).unwrap();
    map.record(second, SlotContents::Zspage { pages: 0b1111, slots: 3 });
    let (page, _) = map.take_run(1, 1).unwrap();
    map.record(page, SlotContents::Page);
    assert_eq!(map.first_sparse(), None);
    map.drop_page_of_zspage(second, 0);
    map.drop_page_of_zspage(first, 0);
    assert_eq!(map.first_sparse(), None, "as many pages as slots");
    map.drop_page_of_zspage(second, 1);
    assert_eq!(map.first_sparse(), Some(second));
    map.skip_sparse(second);
    assert_eq!(map.first_sparse(), None, "it can't be read");
    map.drop_page_of_zspage(first, 1);
    assert_eq!(map.first_sparse(), Some(first));
    map.clear(first);
    assert_eq!(map.first_sparse(), Some(second), "it may be tried again");
    map.drop_page_of_zspage(second, 2);
    map.drop_page_of_zspage(second, 3);
    assert_eq!((map.first_sparse(), map.used()), (None, 1));
}

#[test]
fn slots_are_free_when_their_last_page_is_dropped() {
    let mut map = map(CLUSTER);
    let (slot, _) = map.take_run(1, 3).unwrap();
    map.record(slot, SlotContents::Zspage { pages: 0b101, slots: 3 });
    let (_, version) = map.contents(slot).unwrap();
    assert_eq!((map.contents(slot.plus(1)), map.contents(slot.plus(2))), (None, None));
    map.drop_page_of_zspage(slot, 0);
    assert_eq!((map.contents(slot), map.used()), (Some((SlotContents::Zspage { pages: 0b100, slots: 3 }, version)), 3));
    map.drop_page_of_zspage(slot, 2);
    assert_eq!((map.contents(slot), map.used()), (None, 0));
    assert_eq!(map.take_run(1, 1), Some((slot, 1)));
    map.record(slot, SlotContents::Page);
    assert!(
        map.contents(slot).is_some_and(|(contents, now)| contents == SlotContents::Page && now != version),
        "another use"
    );
}

#[test]
fn a_retired_slot_is_never_handed_out() {
    let mut map = map(CLUSTER);
    let (slot, _) = map.take_run(1, 1).unwrap();
    map.retire(slot);
    assert_eq!((map.capacity(), map.used()), (CLUSTER - 1, 0));
    assert_eq!(map.take_run(1, CLUSTER), Some((SlotNumber(1), CLUSTER - 1)));
    assert_eq!(map.take_run(1, 1), None);
}

#[test]
fn used_slots_survive_a_full_disk() {
    let mut map = map(2 * CLUSTER);
    let (slot, _) = map.take_run(1, 10).unwrap();
    assert_eq!(map.retire_free(), 2 * CLUSTER - 10);
    assert_eq!((map.capacity(), map.used(), map.take_run(1, 1)), (10, 10, None));
    map.free_slot(slot);
    assert_eq!((map.take_run(1, CLUSTER), map.take_run(1, 1)), (Some((slot, 1)), None));
}

proptest! {
    #[test]
    fn no_slot_is_handed_out_twice(
        clusters in 1_usize..8,
        steps in vec((0_u8..4, 1_usize..80, 0_usize..1000), 1..200)
    ) {
        let mut map = map(clusters * CLUSTER);
        let mut taken = BTreeMap::new();
        for (action, most, choice) in steps {
            if action < 2 {
                let Some((first, length)) = map.take_run(1, most) else {
                    prop_assert_eq!(map.used(), map.capacity());
                    continue;
                };
                prop_assert!(length >= 1 && length <= most);
                let mut place = 0;
                while place < length {
                    let slots = if choice % 2 == 0 { 1 } else { (choice % 3 + 1).min(length - place) };
                    let zspage = SlotContents::Zspage { pages: 0b11, slots };
                    let contents = if choice % 2 == 0 { SlotContents::Page } else { zspage };
                    map.record(first.plus(place), contents);
                    prop_assert_eq!(taken.insert(first.plus(place), (contents, slots)), None);
                    place += slots;
                }
            } else if let Some((&slot, &(contents, _))) = taken.iter().nth(choice % taken.len().max(1)) {
                prop_assert_eq!(map.contents(slot).map(|(contents, _)| contents), Some(contents));
                match contents {
                    SlotContents::Page => map.drop_page(slot),
                    SlotContents::Zspage { .. } => (0..2).for_each(|index| map.drop_page_of_zspage(slot, index)),
                }
                taken.remove(&slot);
            }
            prop_assert_eq!(map.used(), taken.values().map(|(_, slots)| slots).sum::<usize>());
        }
    }
}
