//! Nearly all memory holds data, one page of text and one of noise in turn. Pages have to be
//! compressed or written to the swap disk before their frames can leave.

use aerostat_abi::units::{FrameCount, to_usize};
use aerostat_guest::app::{self, Instant, memory::Mapping};

use crate::{PAGE_BYTES, log, stay};

#[path = "../../text.rs"]
mod text;

/// Frames that stay free.
const FREE: FrameCount = FrameCount::from_mib(64);
/// Frames that the guest evicts by itself: as many as the host asks for in the other part.
const EVICTED: FrameCount = FrameCount::from_mib(256);

/// Fills memory and leaves eviction to the balloon.
pub(crate) fn prepare() -> Result<(), &'static str> {
    let _data = data()?;
    stay()
}

/// Fills memory and evicts without the balloon.
pub(crate) fn measure() -> Result<(), &'static str> {
    let _data = data()?;
    let start = Instant::now();
    let freed = app::reclaim(EVICTED);
    log("reclaimed", Instant::now().since(start), freed.0);
    Ok(())
}

/// Fills memory with data.
pub(crate) fn data() -> Result<Mapping, &'static str> {
    let bytes = to_usize(app::memory().free.saturating_sub(FREE).bytes());
    let mut memory = Mapping::anonymous(bytes).map_err(|_| "no memory")?;
    for (number, page) in memory.chunks_exact_mut(PAGE_BYTES).enumerate() {
        if number % 2 == 0 {
            text::fill(page, number);
        } else {
            fill_with_noise(page, number);
        }
    }
    let _ = app::reclaim(FrameCount(1)); // splits and ages pages, so that the next call only evicts
    Ok(memory)
}

/// Fills a page with words that do not compress: those of SplitMix64 (Steele, Lea and Flood, "Fast
/// splittable pseudorandom number generators", 2014).
fn fill_with_noise(page: &mut [u8], number: usize) {
    for (place, word) in page.chunks_exact_mut(8).enumerate() {
        let mut mixed = ((number << 9 | place) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ mixed >> 31).to_le_bytes());
    }
}
