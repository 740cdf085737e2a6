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
    assert_eq!(map.take_run(40), Some((SlotNumber(0), 40)));
    assert_eq!(map.take_run(40), Some((SlotNumber(64), 40)));
    assert_eq!(map.take_run(40), Some((SlotNumber(40), 24)), "no cluster is whole");
    map.free_slot(SlotNumber(3));
    assert_eq!(map.take_run(40), Some((SlotNumber(3), 1)));
    assert_eq!(map.take_run(40), Some((SlotNumber(104), 24)));
    assert_eq!((map.take_run(1), map.used()), (None, 2 * CLUSTER));
}

#[test]
fn slots_are_free_when_their_last_page_is_dropped() {
    let mut map = map(CLUSTER);
    let (slot, _) = map.take_run(3).unwrap();
    map.record(slot, SlotContents::Zspage { pages: 0b101, slots: 3 });
    let (_, version) = map.contents(slot).unwrap();
    assert_eq!((map.contents(slot.plus(1)), map.contents(slot.plus(2))), (None, None));
    map.drop_page_of_zspage(slot, 0);
    assert_eq!((map.contents(slot), map.used()), (Some((SlotContents::Zspage { pages: 0b100, slots: 3 }, version)), 3));
    map.drop_page_of_zspage(slot, 2);
    assert_eq!((map.contents(slot), map.used()), (None, 0));
    assert_eq!(map.take_run(1), Some((slot, 1)));
    map.record(slot, SlotContents::Page);
    assert!(
        map.contents(slot).is_some_and(|(contents, now)| contents == SlotContents::Page && now != version),
        "another use"
    );
}

#[test]
fn a_retired_slot_is_never_handed_out() {
    let mut map = map(CLUSTER);
    let (slot, _) = map.take_run(1).unwrap();
    map.retire(slot);
    assert_eq!((map.capacity(), map.used()), (CLUSTER - 1, 0));
    assert_eq!(map.take_run(CLUSTER), Some((SlotNumber(1), CLUSTER - 1)));
    assert_eq!(map.take_run(1), None);
}

#[test]
fn used_slots_survive_a_full_disk() {
    let mut map = map(2 * CLUSTER);
    let (slot, _) = map.take_run(10).unwrap();
    assert_eq!(map.retire_free(), 2 * CLUSTER - 10);
    assert_eq!((map.capacity(), map.used(), map.take_run(1)), (10, 10, None));
    map.free_slot(slot);
    assert_eq!((map.take_run(CLUSTER), map.take_run(1)), (Some((slot, 1)), None));
}

proptest! {
    #[test]
    fn no_slot_is_handed_out_twice(clusters in 1_usize..8, steps in vec((0_u8..4, 1_usize..80, 0_usize..1000), 1..200)) {
        let mut map = map(clusters * CLUSTER);
        let mut taken = BTreeMap::new();
        for (action, most, choice) in steps {
            if action < 2 {
                let Some((first, length)) = map.take_run(most) else {
                    prop_assert_eq!(map.used(), map.capacity());
                    continue;
                };
                prop_assert!(length >= 1 && length <= most);
                let mut place = 0;
                while place < length {
                    let slots = if choice % 2 == 0 { 1 } else { (choice % 3 + 1).min(length - place) };
                    let contents = if choice % 2 == 0 { SlotContents::Page } else { SlotContents::Zspage { pages: 0b11, slots } };
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
