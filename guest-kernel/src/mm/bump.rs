//! Cuts one stretch of zeroed memory into the slices that hold the frame metadata.
//!
//! What is written as a whole comes from the front, next to the image, where the host has small
//! pages. What a large machine hardly touches comes from the end: there each touch may cost a huge
//! page.
#![allow(unsafe_code, reason = "some of the words are atomics")]

use aerostat_abi::frame_state::HugeFrameWord;

/// What is left of the stretch.
#[derive(Debug)]
pub(crate) struct BumpAllocator {
    rest: &'static mut [u64],
}

impl BumpAllocator {
    /// Allocates from `words`, which must be zero: zero means "empty" and "untouched" to the
    /// structures in them.
    pub(crate) fn new(words: &'static mut [u64]) -> Self {
        Self { rest: words }
    }

    /// Returns the next `words` words.
    ///
    /// # Panics
    /// Panics when the stretch is too short, because too little was reserved.
    pub(crate) fn take(&mut self, words: usize) -> &'static mut [u64] {
        let (taken, rest) = core::mem::take(&mut self.rest).split_at_mut(words);
        self.rest = rest;
        taken
    }

    /// Returns the last `words` words, for what is touched only where it is used.
    ///
    /// # Panics
    /// As [`Self::take`].
    pub(crate) fn take_sparse(&mut self, words: usize) -> &'static mut [u64] {
        let rest = core::mem::take(&mut self.rest);
        let (rest, taken) = rest.split_at_mut(rest.len() - words);
        self.rest = rest;
        taken
    }

    /// Returns the state words of `huge_frames` huge frames, out of [`Self::state_words`] words.
    pub(crate) fn take_states(&mut self, huge_frames: usize) -> &'static [HugeFrameWord] {
        let words = self.take(Self::state_words(huge_frames)).as_mut_ptr().cast::<HugeFrameWord>();
        // SAFETY: two of the atomics are as large as a word and need no stricter alignment, any
        // bits are one, and this is the only reference to these words there ever is.
        unsafe { core::slice::from_raw_parts(words, huge_frames) }
    }

    /// Returns how many words hold the state words of `huge_frames` huge frames: two share one.
    pub(crate) const fn state_words(huge_frames: usize) -> usize {
        huge_frames.div_ceil(2)
    }

    /// Returns an allocator over leaked heap memory.
    #[cfg(test)]
    pub(crate) fn leaked(words: usize) -> Self {
        Self::new(Box::leak(vec![0; words].into_boxed_slice()))
    }
}

const _: () = assert!(2 * size_of::<HugeFrameWord>() == size_of::<u64>());
