//! A growing sequence whose elements never move. They are in blocks of 2 MiB, each an allocation of
//! its own, and have numbers of 32 bits.

use alloc::vec::Vec;
use core::ops::Range;

use crate::IndexError;
use crate::watch::{Area, Watch};

/// Bytes of a block: the size of a huge page.
const BLOCK_BYTES: usize = 2 << 20;

/// A growing sequence of elements.
#[derive(Debug)]
pub(crate) struct Blocks<T, W> {
    blocks: Vec<Vec<T>>,
    area: Area,
    watch: W,
}

impl<T: Copy + Default, W: Watch> Blocks<T, W> {
    /// Elements of a block: a power of two, so that bits of an element's number select the block
    /// and the place in it.
    const PER_BLOCK: usize = {
        assert!(size_of::<T>().is_power_of_two());
        BLOCK_BYTES / size_of::<T>()
    };

    pub(crate) fn new(area: Area, watch: W) -> Self {
        Self { blocks: Vec::new(), area, watch }
    }

    /// Returns the bytes of all blocks.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    /// Appends `count` elements, at most a whole block, in one block; returns the number of the
    /// first. If the rest of the last block is too small for them, it stays unused.
    pub(crate) fn allocate(&mut self, count: usize) -> Result<u32, IndexError> {
        if self.blocks.last().is_none_or(|block| block.len() + count > Self::PER_BLOCK) {
            self.add_block()?;
        }
        let block = self.blocks.len() - 1;
        let elements = &mut self.blocks[block];
        let first = block * Self::PER_BLOCK + elements.len();
        elements.resize(elements.len() + count, T::default());
        self.touched(first, count);
        // Never fails, as `add_block` keeps the count of all elements within 32 bits.
        u32::try_from(first).map_err(|_| IndexError::TooLarge)
    }

    fn add_block(&mut self) -> Result<(), IndexError> {
        let end = (self.blocks.len() + 1) * Self::PER_BLOCK;
        u32::try_from(end).map_err(|_| IndexError::TooLarge)?;
        let mut block = Vec::new();
        block.try_reserve_exact(Self::PER_BLOCK).map_err(|_| IndexError::OutOfMemory)?;
        self.blocks.try_reserve(1).map_err(|_| IndexError::OutOfMemory)?;
        self.blocks.push(block);
        Ok(())
    }

    pub(crate) fn get(&self, number: u32) -> &T {
        let number = number as usize;
        self.touched(number, 1);
        &self.blocks[number / Self::PER_BLOCK][number % Self::PER_BLOCK]
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> &mut T {
        let number = number as usize;
        self.touched(number, 1);
        &mut self.blocks[number / Self::PER_BLOCK][number % Self::PER_BLOCK]
    }

    /// Returns elements that were allocated together.
    pub(crate) fn slice(&self, first: u32, count: usize) -> &[T] {
        let range = Self::in_block(first, count);
        self.touched(first as usize, count);
        &self.blocks[first as usize / Self::PER_BLOCK][range]
    }

    /// Returns elements that were allocated together.
    pub(crate) fn slice_mut(&mut self, first: u32, count: usize) -> &mut [T] {
        let range = Self::in_block(first, count);
        self.touched(first as usize, count);
        &mut self.blocks[first as usize / Self::PER_BLOCK][range]
    }

    fn in_block(first: u32, count: usize) -> Range<usize> {
        let start = first as usize % Self::PER_BLOCK;
        start..start + count
    }

    #[inline]
    fn touched(&self, first: usize, count: usize) {
        self.watch.touched(self.area, first * size_of::<T>(), count * size_of::<T>());
    }
}
