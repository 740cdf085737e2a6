//! Free memory that changes hands without the guest: the words that a guest shares say which huge
//! frames it offers, and a compare-and-swap takes one (see `aerostat_abi::frame_state`).
//!
//! What the words say is the guest's word only. That a frame is memory and the guest's is for the
//! frame map to say; a guest that offers what it uses loses what is in it, and nobody else does.

use std::ops::Range;

use aerostat_abi::batch::Entry;
use aerostat_abi::frame_state::HugeFrameWord;
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HUGE_ORDER, to_usize};

use crate::vmm::frame_map::FrameMap;
use crate::vmm::layout::GuestAddress;
use crate::vmm::memory::GuestMemory;

/// Huge frames taken in one go. While they are released, half a millisecond, a call of the guest's
/// waits.
pub(super) const CHUNK: usize = 64;

const WORD_BYTES: u64 = size_of::<HugeFrameWord>() as u64;

/// The words that a guest shares.
#[derive(Debug)]
pub(super) struct Offers {
    words: Range<u64>,
    /// Where the next search begins: behind the last frame that was taken.
    cursor: u64,
}

impl Offers {
    /// `huge_frames` words from guest-physical address `start` on; `None` where they can't be
    /// words.
    pub(super) fn new(start: u64, huge_frames: u64) -> Option<Self> {
        let end = start.checked_add(huge_frames * WORD_BYTES)?;
        start.is_multiple_of(WORD_BYTES).then_some(Self { words: start..end, cursor: 0 })
    }

    /// The frames that the words lie in.
    pub(super) fn frames(&self) -> Range<FrameNumber> {
        FrameNumber::containing(self.words.start)..FrameNumber(FrameNumber::containing(self.words.end - 1).0 + 1)
    }

    /// Frames that were taken and that the guest has not noted, by its words.
    pub(super) fn not_noted(&self, memory: &GuestMemory) -> FrameCount {
        let words = self.words.clone().step_by(to_usize(WORD_BYTES));
        let taken =
            words.filter(|&at| memory.shared_word(GuestAddress(at)).is_ok_and(|word| word.load().is_reclaimed()));
        FrameCount(taken.count() as u64 * HUGE_FRAMES)
    }

    /// Takes up to `wanted` huge frames out of `map`, those that the host backs before others, as
    /// taking others frees nothing. The blocks come in ascending order.
    pub(super) fn accept(&mut self, wanted: usize, memory: &GuestMemory, map: &mut FrameMap) -> Vec<Range<usize>> {
        let mut taken = Vec::with_capacity(wanted);
        for is_backed in [true, false] {
            let huge_frames = (self.words.end - self.words.start) / WORD_BYTES;
            for step in 0..huge_frames {
                if taken.len() == wanted {
                    break;
                }
                let huge = (self.cursor + step) % huge_frames;
                let Ok(word) = memory.shared_word(GuestAddress(self.words.start + huge * WORD_BYTES)) else { break };
                let state = word.load();
                if !state.is_offered() || state.is_backed() != is_backed {
                    continue;
                }
                let entry = Entry::pending(FrameNumber(huge * HUGE_FRAMES), HUGE_ORDER);
                // The map first: what is no memory of the guest's can't be taken, whatever its word
                // says.
                let no_page = FrameNumber(u64::MAX);
                let Ok(block) = map.inflate(entry, no_page) else { continue };
                if word.take().is_none() {
                    map.undo_inflate(&block); // the guest was faster
                    continue;
                }
                taken.push(block);
                if taken.len() == wanted {
                    self.cursor = huge + 1;
                }
            }
        }
        taken.sort_unstable_by_key(|block| block.start);
        taken
    }
}
