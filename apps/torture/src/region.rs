//! A region of memory and the expected contents of each of its pages.

use alloc::vec::Vec;
use core::ops::Range;

use aerostat_guest::app::memory::{Mapping, ReadOnlyMapping};

use crate::contents::{Contents, PAGE_BYTES};
use crate::random::Random;

/// Pages and their contents.
#[derive(Debug)]
pub(crate) struct Region {
    /// `None` only while its protection changes.
    memory: Option<Memory>,
    pages: Vec<Contents>,
}

#[derive(Debug)]
enum Memory {
    /// In the heap, between smaller allocations.
    Heap(Vec<u8>),
    Mapped(Mapping),
    Protected(ReadOnlyMapping),
}

impl Region {
    /// Makes a region that is an untouched mapping; `None` if there is no memory for it.
    pub(crate) fn mapped(pages: usize) -> Option<Self> {
        Self::of(pages, || Mapping::anonymous(pages * PAGE_BYTES).ok().map(Memory::Mapped))
    }

    /// Makes a region in the heap.
    pub(crate) fn in_heap(pages: usize) -> Option<Self> {
        Self::of(pages, || {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(pages * PAGE_BYTES).ok()?;
            bytes.resize(pages * PAGE_BYTES, 0);
            Some(Memory::Heap(bytes))
        })
    }

    fn of(pages: usize, memory: impl FnOnce() -> Option<Memory>) -> Option<Self> {
        let mut contents = Vec::new();
        contents.try_reserve_exact(pages).ok()?;
        contents.resize(pages, Contents::Untouched);
        Some(Self { memory: Some(memory()?), pages: contents })
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Returns a random run of at most `most` pages.
    pub(crate) fn random_run(&self, most: usize, random: &mut Random) -> Range<usize> {
        let start = random.below(self.pages());
        start..self.pages().min(start + 1 + random.below(most))
    }

    /// Returns the number of words in these pages that have changed.
    pub(crate) fn wrong_words(&self, run: Range<usize>) -> u64 {
        let bytes = self.bytes();
        run.map(|page| {
            let page_bytes = &bytes[page * PAGE_BYTES..(page + 1) * PAGE_BYTES];
            let wrong = self.pages[page].wrong_words(page_bytes);
            if wrong > 0 {
                log::error!("{wrong} words of the page at {:p} are not {:x?}", page_bytes.as_ptr(), self.pages[page]);
            }
            wrong
        })
        .sum()
    }

    /// Writes new contents to these pages.
    pub(crate) fn rewrite(&mut self, run: Range<usize>, random: &mut Random) {
        self.unprotect();
        let bytes = match &mut self.memory {
            Some(Memory::Heap(bytes)) => bytes,
            Some(Memory::Mapped(mapping)) => &mut **mapping,
            Some(Memory::Protected(_)) | None => return,
        };
        for page in run {
            self.pages[page] = Contents::random(random);
            self.pages[page].write(&mut bytes[page * PAGE_BYTES..(page + 1) * PAGE_BYTES]);
        }
    }

    /// Discards these pages.
    pub(crate) fn discard(&mut self, run: Range<usize>) {
        self.unprotect();
        if let Some(Memory::Mapped(mapping)) = &mut self.memory {
            mapping.discard(run.start * PAGE_BYTES..run.end * PAGE_BYTES);
            self.pages[run].fill(Contents::Untouched);
        }
    }

    /// Prefetches these pages.
    pub(crate) fn prefetch(&self, run: &Range<usize>) {
        let range = run.start * PAGE_BYTES..run.end * PAGE_BYTES;
        match &self.memory {
            Some(Memory::Mapped(mapping)) => drop(mapping.prefetch(range)),
            Some(Memory::Protected(mapping)) => drop(mapping.prefetch(range)),
            Some(Memory::Heap(_)) | None => {}
        }
    }

    /// Makes a mapping read-only until the next write.
    pub(crate) fn protect(&mut self) {
        self.memory = self.memory.take().map(|memory| match memory {
            Memory::Mapped(mapping) => Memory::Protected(mapping.into_read_only()),
            other => other,
        });
    }

    fn unprotect(&mut self) {
        self.memory = self.memory.take().map(|memory| match memory {
            Memory::Protected(mapping) => Memory::Mapped(mapping.into_writable()),
            other => other,
        });
    }

    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Some(Memory::Heap(bytes)) => bytes,
            Some(Memory::Mapped(mapping)) => mapping,
            Some(Memory::Protected(mapping)) => mapping,
            None => &[],
        }
    }
}
