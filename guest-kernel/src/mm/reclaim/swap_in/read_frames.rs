//! Frames that a disk reads into. The pages are mapped with the same frames: nothing is copied.
#![allow(unsafe_code, reason = "holds frames by their numbers, as the disk takes them")]

use aerostat_abi::units::{FRAME_SIZE, FrameNumber, to_usize};

use super::caller::Caller;
use crate::config::MAX_READ_AHEAD;
use crate::mm::block::{Block, BlockSize, Contents};
use crate::mm::frame_allocator::Purpose;
use crate::mm::reclaim::RECLAIMER;
use crate::mm::reclaim::swap::disk::{Direction, Disk, DiskError, MAX_TRANSFER, Ticket};
use crate::mm::reclaim::swap::slot_map::SlotNumber;
use crate::mm::{FRAMES, OutOfMemory, fault};

const _: () = assert!(MAX_READ_AHEAD <= MAX_TRANSFER && MAX_READ_AHEAD <= 64);

/// The owned frames of a read. Those that have not been taken are freed when the value is dropped.
#[derive(Debug)]
pub(crate) struct ReadFrames {
    frames: [FrameNumber; MAX_READ_AHEAD],
    /// The places whose frames have not been taken, a bit each.
    owned: u64,
    purpose: Purpose,
    count: usize,
}

impl ReadFrames {
    /// Returns frames for a read: `first`, as many as are needed to have `least`, and as many more
    /// as can be spared, up to `most`.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there are fewer than `least`.
    pub(crate) fn with(
        first: Block,
        least: usize,
        most: usize,
        purpose: Purpose,
        caller: Caller,
    ) -> Result<Self, OutOfMemory> {
        let mut frames = Self { frames: [FrameNumber(0); MAX_READ_AHEAD], owned: 0, purpose, count: 0 };
        frames.push(first);
        while frames.count < least {
            frames.push(caller.frame(purpose)?);
        }
        while frames.count < most
            && let Some(block) = fault::spare_block(BlockSize::Frame, purpose)
        {
            frames.push(block);
        }
        // Frames that follow each other are one part of a request.
        frames.frames[..frames.count].sort_unstable_by_key(|frame| frame.0);
        Ok(frames)
    }

    fn push(&mut self, block: Block) {
        self.frames[self.count] = block.into_number();
        self.owned |= 1 << self.count;
        self.count += 1;
    }

    /// Returns how many slots are read.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Takes the frame at a place, if it has not been taken.
    pub(crate) fn take(&mut self, place: usize) -> Option<Block> {
        let bit = 1_u64.checked_shl(u32::try_from(place).ok()?).filter(|bit| self.owned & bit != 0)?;
        self.owned &= !bit;
        // SAFETY: the bit said that the frame is owned, and is cleared.
        Some(unsafe { Block::from_raw(self.frames[place], BlockSize::Frame, Contents::Unknown) })
    }

    /// Returns the contents of the frame at a place, if it has not been taken.
    pub(crate) fn contents_mut(&mut self, place: usize) -> Option<&mut [u8; FRAME_SIZE]> {
        if place >= self.count || self.owned & 1 << place == 0 {
            return None;
        }
        let pointer =
            core::ptr::with_exposed_provenance_mut::<[u8; FRAME_SIZE]>(to_usize(self.frames[place].address()));
        // SAFETY: this value owns the frame, which is mapped nowhere; the identity map reaches it.
        // The caller has no read under way, as it has the value to itself.
        Some(unsafe { &mut *pointer })
    }

    /// Frees the frames from `place` on.
    pub(crate) fn free_from(&mut self, place: usize) {
        for place in place..self.count {
            if let Some(block) = self.take(place) {
                free(block, self.purpose);
            }
        }
        self.count = self.count.min(place);
    }

    /// Reads the slots of a disk from `first` on into the frames.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(crate) fn read(&self, disk: &dyn Disk, first: SlotNumber) -> Result<(), DiskError> {
        finish_read(disk, self.begin_read(disk, first))
    }

    /// Begins to read the slots of a disk from `first` on into the frames. Waits while the disk's
    /// queue is full.
    pub(crate) fn begin_read(&self, disk: &dyn Disk, first: SlotNumber) -> Ticket {
        begin_read(disk, first, &self.frames[..self.count])
    }

    /// Does the same, but returns `None` when the disk's queue is full.
    pub(crate) fn submit_read(&self, disk: &dyn Disk, first: SlotNumber) -> Option<Ticket> {
        disk.submit(Direction::Read, first, &self.frames[..self.count])
    }
}

impl Drop for ReadFrames {
    fn drop(&mut self) {
        self.free_from(0);
    }
}

/// Begins to read slots into `frames`. Waits while the disk's queue is full.
pub(crate) fn begin_read(disk: &dyn Disk, first: SlotNumber, frames: &[FrameNumber]) -> Ticket {
    loop {
        if let Some(ticket) = disk.submit(Direction::Read, first, frames) {
            return ticket;
        }
        // The queue is full of transfers whose results have not been asked for. No thread asks for
        // those of writes and of reads ahead, so this one does.
        RECLAIMER.lock().finish_transfers();
        disk.wait_for_room();
    }
}

/// Waits until a read has ended.
///
/// # Errors
/// [`DiskError`].
pub(crate) fn finish_read(disk: &dyn Disk, ticket: Ticket) -> Result<(), DiskError> {
    loop {
        match disk.result(ticket) {
            Some(result) => return result,
            None => disk.wait(ticket),
        }
    }
}

/// Frees a frame that was allocated for a purpose and not used.
pub(crate) fn free(block: Block, purpose: Purpose) {
    match purpose {
        Purpose::CompressedPool | Purpose::File => FRAMES.free_in_headroom(block),
        _ => FRAMES.free_committed(block),
    }
}
