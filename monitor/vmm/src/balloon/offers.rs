//! Reclaims free memory without the guest's cooperation: the words that a guest shares say which
//! huge frames it offers, and a compare-and-swap reclaims one (see `aerostat_abi::frame_state`).
//!
//! The words are untrusted. The frame map decides whether a frame is memory and the guest's. A
//! guest that offers what it uses loses its contents and harms no other guest.

use std::ops::Range;

use aerostat_abi::batch::Entry;
use aerostat_abi::frame_state::HugeFrameWord;
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HUGE_ORDER, to_usize};

use crate::frame_map::FrameMap;
use crate::layout::GuestAddress;
use crate::memory::GuestMemory;

/// Huge frames that are reclaimed at once. While they are released, which takes half a millisecond,
/// the guest's calls wait.
pub(super) const CHUNK: usize = 64;

const WORD_BYTES: u64 = size_of::<HugeFrameWord>() as u64;

/// The words that a guest shares.
#[derive(Debug)]
pub(super) struct Offers {
    words: Range<u64>,
    /// Where the next search begins: behind the last frame that was reclaimed.
    cursor: u64,
}

impl Offers {
    /// Uses `huge_frames` words from guest-physical address `start` on; returns `None` where no
    /// words can lie.
    pub(super) fn new(start: u64, huge_frames: u64) -> Option<Self> {
        let end = start.checked_add(huge_frames * WORD_BYTES)?;
        start.is_multiple_of(WORD_BYTES).then_some(Self { words: start..end, cursor: 0 })
    }

    /// Returns the frames that the words lie in.
    pub(super) fn frames(&self) -> Range<FrameNumber> {
        FrameNumber::containing(self.words.start)..FrameNumber(FrameNumber::containing(self.words.end - 1).0 + 1)
    }

    /// Returns the frames that were reclaimed and that the guest has not noted, by its words.
    pub(super) fn not_noted(&self, memory: &GuestMemory) -> FrameCount {
        let words = self.words.clone().step_by(to_usize(WORD_BYTES));
        let reclaimed =
            words.filter(|&at| memory.shared_word(GuestAddress(at)).is_ok_and(|word| word.load().is_reclaimed()));
        FrameCount(reclaimed.count() as u64 * HUGE_FRAMES)
    }

    /// Reclaims up to `wanted` huge frames out of `map`. Those that the host backs come first, as
    /// reclaiming others frees nothing. The blocks are in ascending order.
    pub(super) fn accept(&mut self, wanted: usize, memory: &GuestMemory, map: &mut FrameMap) -> Vec<Range<usize>> {
        let mut reclaimed = Vec::with_capacity(wanted);
        for is_backed in [true, false] {
            let huge_frames = (self.words.end - self.words.start) / WORD_BYTES;
            for step in 0..huge_frames {
                if reclaimed.len() == wanted {
                    break;
                }
                let huge = (self.cursor + step) % huge_frames;
                let Ok(word) = memory.shared_word(GuestAddress(self.words.start + huge * WORD_BYTES)) else { break };
                let state = word.load();
                if !state.is_offered() || state.is_backed() != is_backed {
                    continue;
                }
                let entry = Entry::pending(FrameNumber(huge * HUGE_FRAMES), HUGE_ORDER);
                // The map comes first: what is not the guest's memory can't be reclaimed, whatever
                // its word says.
                let no_page = FrameNumber(u64::MAX);
                let Ok(block) = map.inflate(entry, no_page) else { continue };
                if word.reclaim().is_none() {
                    map.undo_inflate(&block); // the guest was faster
                    continue;
                }
                reclaimed.push(block);
                if reclaimed.len() == wanted {
                    self.cursor = huge + 1;
                }
            }
        }
        reclaimed.sort_unstable_by_key(|block| block.start);
        reclaimed
    }
}
