//! The ledger of the application `balloon`, with blocks that were never given: every block is in it once and comes out once, whole where that
//! may be, and in parts where a range or a count asks for less.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../../../../apps/balloon/src/ledger.rs"]
mod ledger;

use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES};
use aerostat_balloon_driver::Ledger as _;
use aerostat_guest::app::memory::Pinned;
use aerostat_guest::app::{self, Outcome};
use alloc::vec::Vec;

use ledger::Ledger;

aerostat_guest::app!(main);

const BLOCKS: usize = 6;

fn main() -> Outcome {
    match run() {
        Ok(()) => {
            log::info!("balloon ledger: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("balloon ledger: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<(), &'static str> {
    let mut ledger = Ledger::new(app::memory().total).map_err(|_| "no room for a ledger")?;
    let blocks: Vec<Pinned> = (0..BLOCKS).filter_map(|_| Pinned::allocate(BlockSize::Huge).ok()).collect();
    let mut firsts: Vec<FrameNumber> = blocks.iter().map(Pinned::first).collect();
    firsts.sort_unstable();
    let [lowest, second, .., highest] = firsts[..] else { return Err("there is no memory to pin") };
    blocks.into_iter().rev().for_each(|block| ledger.put(block));
    let is_whole = firsts.iter().all(|first| ledger.contains(*first, BlockSize::Huge));
    expect(is_whole && ledger.contains(at(second, 5), BlockSize::Frame), "a block is not in it")?;
    expect(ledger.size().0 == firsts.len() as u64 * HUGE_FRAMES, "its size is wrong")?;

    let part = ledger.take_within(at(second, 100)..at(second, 102)).ok_or("a part of a block is not to be had")?;
    expect((part.first(), part.size()) == (at(second, 100), BlockSize::Frame), "another part was taken")?;
    expect(!ledger.contains(second, BlockSize::Huge) && !ledger.contains(part.first(), BlockSize::Frame), "it stayed")?;
    expect([0, 99, 101, 511].iter().all(|&rest| ledger.contains(at(second, rest), BlockSize::Frame)), "the rest went")?;
    let whole = ledger.take_within(lowest..at(highest, HUGE_FRAMES)).ok_or("nothing is in all of the range")?;
    expect((whole.first(), whole.size()) == (lowest, BlockSize::Huge), "the lowest was not taken first, or not whole")?;
    expect(ledger.take_within(lowest..at(lowest, HUGE_FRAMES)).is_none(), "it was taken twice")?;

    expect(ledger.take(FrameCount::ZERO).is_none(), "a block of no frames")?;
    expect(size_of_taken(&mut ledger, HUGE_FRAMES) == Some(BlockSize::Huge), "nothing was taken whole")?;
    expect(size_of_taken(&mut ledger, HUGE_FRAMES - 1) == Some(BlockSize::Frame), "too much was taken")?;
    let mut left = ledger.size().0;
    while size_of_taken(&mut ledger, 1).is_some() {
        left -= 1;
    }
    expect(left == 0 && ledger.size() == FrameCount::ZERO, "not all frames came out one by one")?;
    drop((part, whole));
    app::validate()
}

fn expect(holds: bool, complaint: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(complaint) }
}

/// The frame so many behind `first`.
fn at(first: FrameNumber, frames: u64) -> FrameNumber {
    FrameNumber(first.0 + frames)
}

/// Takes a block of at most so many frames and frees it.
fn size_of_taken(ledger: &mut Ledger, frames: u64) -> Option<BlockSize> {
    ledger.take(FrameCount(frames)).map(|block| block.size())
}
