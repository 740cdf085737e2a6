//! The sampler on a machine of ordinary memory. Only the tests' own accesses set accessed bits.

use core::sync::atomic::Ordering;

use aerostat_abi::units::{FRAME_BYTES, HUGE_BYTES, HUGE_FRAMES};
use aerostat_reclaim_policy::{Age, Verdict};

use super::{Estimate, LATEST, Sampler, ages};
use crate::config::{ACTIVITY_PERIOD_NS, LONGEST_ACTIVITY_PERIOD_NS};
use crate::layout::APP_REGIONS;
use crate::mm::testing::TestMachine;
use crate::mm::{SPACE, map_region, unmap_region};

/// A machine whose sampler has found nothing yet, nor leaves anything: other tests read the ages of
/// scans.
struct Sampled(TestMachine);

impl Sampled {
    fn start(huge_frames: u64) -> Self {
        Self(TestMachine::start(huge_frames))
    }
}

impl Drop for Sampled {
    fn drop(&mut self) {
        LATEST.store(Estimate::NONE.encode(), Ordering::Relaxed);
    }
}

#[test]
fn the_part_that_is_touched_is_active() {
    let machine = Sampled::start(20);
    let start = map_region(APP_REGIONS, 16 * HUGE_BYTES).unwrap();
    let slots: Vec<u64> = (0..16).map(|slot| start + slot * HUGE_BYTES).collect();
    slots.iter().for_each(|&slot| machine.0.access(slot));
    let mut sampler = Sampler::new();
    assert_eq!(ages(0), None);
    sampler.next_period(|| {});
    assert_eq!(ages(0), None, "no period has ended");
    slots[..4].iter().for_each(|&slot| machine.0.access(slot));
    assert_eq!(sampler.next_period(|| {}), ACTIVITY_PERIOD_NS);
    assert_eq!(ages(7), Some([4 * HUGE_FRAMES, 0, 0, 12 * HUGE_FRAMES + 7]));
    assert_eq!(sampler.next_period(|| {}), 2 * ACTIVITY_PERIOD_NS, "nothing is in use");
    assert_eq!(ages(0), Some([0, 0, 0, 16 * HUGE_FRAMES]));
    let periods: Vec<u64> = (0..9).map(|_| sampler.next_period(|| {})).collect();
    assert_eq!(periods.last(), Some(&LONGEST_ACTIVITY_PERIOD_NS));
    unmap_region(start);
    sampler.next_period(|| {});
    assert_eq!(ages(0), None, "nothing is in memory");
}

#[test]
fn pages_of_tables_are_sampled_in_proportion() {
    let machine = Sampled::start(8);
    // The end of the region is no whole slot, so it has a table of pages.
    let start = map_region(APP_REGIONS, HUGE_BYTES / 2).unwrap();
    let pages = |count: u64| (0..count).map(move |page| start + page * FRAME_BYTES);
    pages(256).for_each(|page| machine.0.access(page));
    let mut sampler = Sampler::new();
    sampler.next_period(|| {});
    pages(64).for_each(|page| machine.0.access(page));
    sampler.next_period(|| {});
    assert_eq!(ages(0), Some([64, 0, 0, 192]));
    unmap_region(start);
}

/// Visits a huge page and a page as reclaim does; returns whether each was found accessed.
fn visit(huge: u64, page: u64) -> [bool; 2] {
    let mut space = SPACE.lock();
    let tables = space.tables_mut().unwrap();
    let mut seen = [false; 2];
    tables.visit_huge(huge, &mut |age, accessed| {
        seen[0] = accessed;
        age
    });
    tables.visit_page(page, &mut |_, accessed| {
        seen[1] = accessed;
        Verdict::Keep(Age(0))
    });
    seen
}

#[test]
fn reclaim_and_the_sampler_do_not_hide_accesses_from_each_other() {
    let machine = Sampled::start(8);
    let start = map_region(APP_REGIONS, HUGE_BYTES + 32 * FRAME_BYTES).unwrap();
    let pages: Vec<u64> = (0..32).map(|page| start + HUGE_BYTES + page * FRAME_BYTES).collect();
    let touch = || {
        machine.0.access(start);
        pages.iter().for_each(|&page| machine.0.access(page));
    };
    touch();
    let mut sampler = Sampler::new();
    sampler.next_period(|| {});
    assert!(pages.iter().all(|&page| visit(start, page)[1]), "the visit learns of a bit that was cleared");
    assert_eq!(visit(start, pages[0]), [false; 2], "once");
    touch();
    pages.iter().for_each(|&page| _ = visit(start, page));
    sampler.next_period(|| {});
    assert_eq!(ages(0).unwrap()[3], 0, "the sampler learns of bits that visits cleared");
    sampler.next_period(|| {});
    assert_eq!(ages(0).unwrap()[0], 0, "once");
    unmap_region(start);
}
