//! Tests the page list of the application `balloon`, with blocks that are not ballooned. Every
//! block is in it once and comes out once: whole if it fits the range or count, in parts if that
//! asks for less.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../../../../apps/balloon/src/page_list.rs"]
mod page_list;

use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES};
use aerostat_balloon_driver::PageList as _;
use aerostat_guest::app::memory::Pinned;
use aerostat_guest::app::{self, Outcome};
use alloc::vec::Vec;

use page_list::PageList;

aerostat_guest::app!(main);

const BLOCKS: usize = 6;

fn main() -> Outcome {
    match run() {
        Ok(()) => {
            log::info!("balloon page list: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("balloon page list: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<(), &'static str> {
    let mut page_list = PageList::new(app::memory().total).map_err(|_| "no room for a page list")?;
    let blocks: Vec<Pinned> = (0..BLOCKS).filter_map(|_| Pinned::allocate(BlockSize::Huge).ok()).collect();
    let mut firsts: Vec<FrameNumber> = blocks.iter().map(Pinned::first).collect();
    firsts.sort_unstable();
    let [lowest, second, .., highest] = firsts[..] else { return Err("there is no memory to pin") };
    blocks.into_iter().rev().for_each(|block| page_list.insert(block));
    let is_whole = firsts.iter().all(|first| page_list.contains(*first, BlockSize::Huge));
    expect(is_whole && page_list.contains(at(second, 5), BlockSize::Frame), "a block is not in it")?;
    expect(page_list.size().0 == firsts.len() as u64 * HUGE_FRAMES, "its size is wrong")?;

    let part =
        page_list.remove_within(at(second, 511)..at(second, HUGE_FRAMES)).ok_or("the end of a block was not found")?;
    expect((part.first(), part.size()) == (at(second, 511), BlockSize::Frame), "another part was taken")?;
    expect(
        !page_list.contains(second, BlockSize::Huge) && !page_list.contains(part.first(), BlockSize::Frame),
        "the part is still in the list",
    )?;
    expect(
        [0, 1, 509, 510].iter().all(|&rest| page_list.contains(at(second, rest), BlockSize::Frame)),
        "the rest of the block is not in the list",
    )?;
    let head = page_list.remove_within(highest..at(highest, 1)).ok_or("the beginning of a block was not found")?;
    expect((head.first(), head.size()) == (highest, BlockSize::Frame), "more than the beginning was taken")?;
    let whole = page_list.remove_within(lowest..at(highest, HUGE_FRAMES)).ok_or("nothing is in all of the range")?;
    expect((whole.first(), whole.size()) == (lowest, BlockSize::Huge), "the lowest was not taken first, or not whole")?;
    expect(page_list.remove_within(lowest..at(lowest, HUGE_FRAMES)).is_none(), "it was taken twice")?;

    expect(page_list.remove(FrameCount::ZERO).is_none(), "a block of no frames")?;
    expect(size_of_taken(&mut page_list, HUGE_FRAMES) == Some(BlockSize::Huge), "nothing was taken whole")?;
    expect(size_of_taken(&mut page_list, HUGE_FRAMES - 1) == Some(BlockSize::Frame), "too much was taken")?;
    let mut left = page_list.size().0;
    while size_of_taken(&mut page_list, 1).is_some() {
        left -= 1;
    }
    expect(left == 0 && page_list.size() == FrameCount::ZERO, "not all frames came out one by one")?;
    drop((part, head, whole));
    app::validate()
}

fn expect(holds: bool, complaint: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(complaint) }
}

/// Returns the frame so many after `first`.
fn at(first: FrameNumber, frames: u64) -> FrameNumber {
    FrameNumber(first.0 + frames)
}

/// Takes a block of at most so many frames and frees it; returns its size.
fn size_of_taken(page_list: &mut PageList, frames: u64) -> Option<BlockSize> {
    page_list.remove(FrameCount(frames)).map(|block| block.size())
}
