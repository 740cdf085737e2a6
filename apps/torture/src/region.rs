//! A region of pages, and what should be in each of them.
#![allow(unsafe_code, reason = "allocates zeroed memory that may be refused")]

use alloc::alloc::alloc_zeroed;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::slice_from_raw_parts_mut;

use crate::contents::{Contents, PAGE_WORDS};
use crate::random::Random;

/// Pages and their contents. Large ones are regions of the kernel's, small ones lie in the heap.
#[derive(Debug)]
pub(crate) struct Region {
    words: Box<[u64]>,
    pages: Vec<Contents>,
}

impl Region {
    /// Pages that nobody has touched; `None` when there is no memory for them.
    pub(crate) fn new(pages: usize) -> Option<Self> {
        let mut contents = Vec::new();
        contents.try_reserve_exact(pages).ok()?;
        contents.resize(pages, Contents::Untouched);
        Some(Self { words: zeroed(pages * PAGE_WORDS)?, pages: contents })
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// A run of at most `most` pages, anywhere.
    pub(crate) fn random_run(&self, most: usize, random: &mut Random) -> Range<usize> {
        let start = random.below(self.pages());
        start..self.pages().min(start + 1 + random.below(most))
    }

    /// Words in these pages that are not as they were left.
    pub(crate) fn wrong_words(&self, run: Range<usize>) -> u64 {
        run.map(|page| {
            let words = &self.words[page * PAGE_WORDS..(page + 1) * PAGE_WORDS];
            let wrong = self.pages[page].wrong_words(words);
            if wrong > 0 {
                log::error!("{wrong} words of the page at {:p} are not {:x?}", words.as_ptr(), self.pages[page]);
            }
            wrong
        })
        .sum()
    }

    /// Writes something new to these pages.
    pub(crate) fn rewrite(&mut self, run: Range<usize>, random: &mut Random) {
        for page in run {
            self.pages[page] = Contents::random(random);
            self.pages[page].write(&mut self.words[page * PAGE_WORDS..(page + 1) * PAGE_WORDS]);
        }
    }
}

fn zeroed(words: usize) -> Option<Box<[u64]>> {
    let layout = Layout::array::<u64>(words).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the layout is not of size zero.
    let pointer = unsafe { alloc_zeroed(layout) }.cast::<u64>();
    if pointer.is_null() {
        return None;
    }
    // SAFETY: just allocated with the layout of so many words, all of them zero, and nobody else's.
    Some(unsafe { Box::from_raw(slice_from_raw_parts_mut(pointer, words)) })
}
