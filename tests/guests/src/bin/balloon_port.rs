//! Opens the balloon port twice, pins memory and frees it, whole and in parts, and then uses all
//! memory of the guest. The initial balloon is not part of that memory, with or without a driver.
//! The guest keeps the memory until the test ends it.

#![no_std]
#![no_main]

extern crate alloc;

use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES};
use aerostat_guest::app::memory::Pinned;
use aerostat_guest::app::{self, Outcome, balloon_port};
use alloc::vec::Vec;

aerostat_guest::app!(main);

const MIB: usize = 1 << 20;
const PIECE_BYTES: usize = 2 * MIB;
/// How much the heap may grow for the lists of blocks.
const HEAP_FRAMES: u64 = 2 * HUGE_FRAMES;
/// Memory that is left for the list of pieces.
const KEPT: FrameCount = FrameCount::from_mib(4);

fn main() -> Outcome {
    match run() {
        Ok(_pieces) => {
            log::info!("balloon port: ok");
            loop {
                app::sleep(1000);
            }
        }
        Err(what) => {
            log::error!("balloon port: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<Vec<Vec<u8>>, &'static str> {
    // SAFETY: this guest makes no call through the port.
    let open = || unsafe { balloon_port::open() };
    let (first, second) = (open(), open());
    if second.is_some() {
        return Err("the port was opened twice");
    }
    log::info!("balloon port: {}", if first.is_some() { "opened" } else { "refused" });
    if balloon_port::claim_initial(FrameNumber(HUGE_FRAMES), BlockSize::Huge).is_some() {
        return Err("memory in use was claimed as a part of the initial balloon");
    }
    pin()?;
    let pieces = use_up();
    app::validate().map(|()| pieces)
}

/// Pins all huge frames and frees them, every other one in single frames, one of which is held
/// longer.
fn pin() -> Result<(), &'static str> {
    let before = app::memory().free.0;
    let mut pinned = Vec::new();
    pinned.try_reserve_exact(512).map_err(|_| "no memory")?;
    while pinned.len() < pinned.capacity()
        && let Ok(block) = Pinned::allocate(BlockSize::Huge)
    {
        pinned.push(block);
    }
    if pinned.len() < 8 || !pinned.iter().all(|block| block.first().is_aligned(9)) {
        return Err("there are no huge frames to pin");
    }
    if app::memory().free.0 + pinned.len() as u64 * HUGE_FRAMES > before {
        return Err("pinned memory is still free");
    }
    let mut held = Vec::new();
    for (index, block) in pinned.into_iter().enumerate() {
        if index % 2 == 0 {
            held.extend(block.split().nth(index));
        }
    }
    app::validate()?;
    drop(held);
    if app::memory().free.0 + HEAP_FRAMES < before { Err("memory that was pinned is not free again") } else { Ok(()) }
}

/// Touches memory until no more is available; returns it.
fn use_up() -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    while app::memory().available > KEPT {
        let mut piece: Vec<u8> = Vec::new();
        if piece.try_reserve_exact(PIECE_BYTES).is_err() {
            break;
        }
        piece.resize(PIECE_BYTES, 1);
        pieces.push(piece);
    }
    log::info!("balloon port: used {} MiB", pieces.len() * PIECE_BYTES / MIB);
    pieces
}
