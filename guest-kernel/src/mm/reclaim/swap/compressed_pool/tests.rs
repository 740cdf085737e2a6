//! The compressed pool alone, on the frames of a test machine.
#![allow(unsafe_code, reason = "a handle must name a stored page")]

use std::collections::BTreeMap;

use aerostat_abi::units::{FRAME_SIZE, FrameCount, FrameNumber, to_usize};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::Config as ProptestConfig;
use proptest::{prop_assert_eq, prop_oneof, proptest};

use super::{CompressedPool, CompressedPoolStatistics, Handle, Writeback};
use crate::mm::testing::TestMachine;
use crate::mm::{Block, BlockSize, FRAMES, Purpose};

fn drop_page(pool: &mut CompressedPool, handle: Handle) {
    // SAFETY: the tests drop a page once.
    unsafe { pool.drop_page(handle) };
}

/// Returns the page that the pool holds.
fn loaded(pool: &mut CompressedPool, handle: Handle) -> Option<[u8; FRAME_SIZE]> {
    let mut page = [0; FRAME_SIZE];
    // SAFETY: the tests load pages that they have stored and not dropped.
    unsafe { pool.load(handle, &mut page) }.then_some(page)
}

fn statistics(pages: u64, frames: u64) -> CompressedPoolStatistics {
    CompressedPoolStatistics { pages, frames: FrameCount(frames) }
}

/// Bytes of noise with which four pages take a zspage of three frames.
const MOSTLY_NOISE: usize = 2700;

/// A pool with one zspage of three frames that holds four pages, at the addresses 0x1000 to 0x4000.
fn pool_of_four() -> (CompressedPool, [Handle; 4]) {
    let mut pool = CompressedPool::new();
    let handles = [1, 2, 3, 4].map(|page| pool.store(page << 12, &noisy_page(MOSTLY_NOISE, page)).unwrap());
    assert_eq!(pool.statistics(), statistics(4, 3));
    (pool, handles)
}

/// Copies the frames of a zspage under writeback to new ones, as a disk would, and ends the write.
fn write_and_read(pool: &mut CompressedPool, writeback: Writeback) -> Vec<Option<Block>> {
    let copy = |frame: &FrameNumber| {
        let block = FRAMES.allocate(BlockSize::Frame, Purpose::CompressedPool).unwrap();
        let [from, to] = [*frame, block.first()].map(|frame| to_usize(frame.address()));
        // SAFETY: both frames belong to the test, and the arena maps them at their own addresses.
        unsafe {
            core::ptr::copy_nonoverlapping(
                core::ptr::with_exposed_provenance::<u8>(from),
                core::ptr::with_exposed_provenance_mut::<u8>(to),
                FRAME_SIZE,
            );
        }
        Some(block)
    };
    let blocks = writeback.frames().as_slice().iter().map(copy).collect();
    pool.end_writeback(writeback);
    blocks
}

fn free_all(blocks: Vec<Option<Block>>) {
    blocks.into_iter().flatten().for_each(|block| FRAMES.free_in_headroom(block));
}

#[test]
fn a_zspage_that_is_read_back_is_packed_into_as_many_frames_as_pages() {
    let machine = TestMachine::start(8);
    let free = machine.statistics().free;
    for wanted in [0b1111_u16, 0b1011, 0b1001, 0b0100] {
        let (mut pool, _) = pool_of_four();
        let writeback = pool.begin_writeback().unwrap();
        let mut blocks = write_and_read(&mut pool, writeback);
        assert_eq!(pool.statistics(), statistics(0, 0));
        let is_due = |index: usize, page: u64| page == (index as u64 + 1) << 12;
        let handles: Vec<_> = pool.adopt(&mut blocks, wanted, &is_due).expect("it is what was written").collect();
        let pages = u64::from(wanted.count_ones());
        assert_eq!((pool.statistics(), pool.validate()), (statistics(pages, pages.min(3)), Ok(())));
        for (handle, page) in handles {
            assert_eq!(loaded(&mut pool, handle), Some(noisy_page(MOSTLY_NOISE, page >> 12)));
            drop_page(&mut pool, handle);
        }
        assert_eq!(machine.statistics().free, free);
    }
}

#[test]
fn a_zspage_without_all_wanted_pages_is_not_adopted() {
    let machine = TestMachine::start(8);
    let free = machine.statistics().free;
    let (mut pool, handles) = pool_of_four();
    drop_page(&mut pool, handles[1]);
    let writeback = pool.begin_writeback().unwrap();
    let mut blocks = write_and_read(&mut pool, writeback);
    // A page that was dropped before the write, one that never was there, and no page at all.
    for wanted in [0b0111, 0b1_0001, 0] {
        assert!(pool.adopt(&mut blocks, wanted, &|_, _| true).is_none(), "{wanted:#b}");
        assert_eq!(blocks.iter().flatten().count(), 3, "the blocks are still the caller's");
    }
    assert!(pool.adopt(&mut blocks, 0b1101, &|index, _| index != 2).is_none(), "a page is not due");
    assert!(pool.adopt(&mut blocks[..2], 0b1101, &|_, _| true).is_none(), "a frame is missing");
    assert_eq!((pool.statistics(), pool.validate()), (statistics(0, 0), Ok(())));
    free_all(blocks);
    assert_eq!(machine.statistics().free, free);
}

#[test]
fn a_zspage_that_loses_pages_during_a_write_that_fails_is_packed() {
    let machine = TestMachine::start(8);
    let free = machine.statistics().free;
    let (mut pool, handles) = pool_of_four();
    let writeback = pool.begin_writeback().unwrap();
    drop_page(&mut pool, handles[0]);
    drop_page(&mut pool, handles[2]);
    assert_eq!(pool.statistics(), statistics(2, 3), "the disk reads the frames");
    pool.cancel_writeback(writeback);
    assert_eq!((pool.statistics(), pool.validate()), (statistics(2, 2), Ok(())));
    for (handle, page) in [(handles[1], 2), (handles[3], 4)] {
        assert_eq!(loaded(&mut pool, handle), Some(noisy_page(MOSTLY_NOISE, page)));
        drop_page(&mut pool, handle);
    }
    assert_eq!(machine.statistics().free, free);
}

#[test]
fn a_zspage_that_loses_all_pages_during_a_write_that_fails_is_freed() {
    let machine = TestMachine::start(8);
    let free = machine.statistics().free;
    let (mut pool, handles) = pool_of_four();
    let writeback = pool.begin_writeback().unwrap();
    handles.into_iter().for_each(|handle| drop_page(&mut pool, handle));
    pool.cancel_writeback(writeback);
    assert_eq!((pool.statistics(), machine.statistics().free), (statistics(0, 0), free));
}

#[test]
fn a_zspage_is_packed_before_it_is_written() {
    let _machine = TestMachine::start(8);
    let mut pool = CompressedPool::new();
    let handle = pool.store(0x1000, &noisy_page(MOSTLY_NOISE, 1)).unwrap();
    assert_eq!(pool.statistics(), statistics(1, 3), "a class is being filled");
    let writeback = pool.begin_writeback().unwrap();
    assert_eq!((pool.statistics(), writeback.frames().as_slice().len()), (statistics(1, 1), 1));
    assert_eq!(loaded(&mut pool, handle), Some(noisy_page(MOSTLY_NOISE, 1)));
    pool.end_writeback(writeback);
    assert_eq!(pool.statistics(), statistics(0, 0));
}

/// A step of the property below.
#[derive(Clone, Debug)]
enum Step {
    /// Store a page with so many bytes that don't compress.
    Store { noise: usize, seed: u64 },
    /// Drop one of those stored.
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let store = (0..3400_usize, any::<u64>()).prop_map(|(noise, seed)| Step::Store { noise, seed });
    vec(prop_oneof![2 => store, 1 => any::<usize>().prop_map(Step::Drop)], 1..120)
}

/// Returns a page that begins with `noise` bytes that don't compress.
fn noisy_page(noise: usize, mut seed: u64) -> [u8; FRAME_SIZE] {
    let mut page = [b' '; FRAME_SIZE];
    for byte in &mut page[..noise] {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = seed.to_le_bytes()[7];
    }
    page
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_page_is_kept_until_it_is_dropped(steps in steps()) {
        let machine = TestMachine::start(8);
        let free = machine.statistics().free;
        let mut pool = CompressedPool::new();
        let mut kept = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Store { noise, seed } => {
                    let page = noisy_page(noise, seed);
                    if let Ok(handle) = pool.store(0x1000 * number as u64, &page) {
                        kept.insert(number, (handle, page));
                    }
                }
                Step::Drop(choice) if !kept.is_empty() => {
                    let key = *kept.keys().nth(choice % kept.len()).unwrap();
                    let (handle, _) = kept.remove(&key).unwrap();
                    drop_page(&mut pool, handle);
                }
                Step::Drop(_) => {}
            }
            for (handle, page) in kept.values() {
                prop_assert_eq!(loaded(&mut pool, *handle), Some(*page));
            }
            let frames = free.saturating_sub(machine.statistics().free);
            prop_assert_eq!(pool.validate(), Ok(()));
            prop_assert_eq!((pool.statistics().pages, pool.statistics().frames), (kept.len() as u64, frames));
        }
        for (handle, _) in kept.into_values() {
            drop_page(&mut pool, handle);
        }
        prop_assert_eq!(machine.statistics().free, free);
    }
}
