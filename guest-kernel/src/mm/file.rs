//! Files: regions whose pages are on a disk and are read when they are touched.
//!
//! The mapped file is the guest's whole data disk, for reading; its contents are up to the
//! application. Evicting such a page costs nothing, as the disk still has it: the reclaimer drops
//! it ([`super::reclaim`]). So only the page tables and a small working set are committed for the
//! region, and frames that hold its pages count as swap headroom.
//!
//! Pages are read straight into the frames where they stay. The pages behind them are read with
//! them while frames can be spared, and more of them the longer a thread reads sequentially. No
//! lock is held during a read.

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, HUGE_BYTES, to_usize};
use aerostat_reclaim_policy::Name;

use super::address_space::{self, RegionKind};
use super::fault::{self, FaultError};
use super::frame_allocator::Purpose;
use super::page_table::PageState;
use super::reclaim::swap::disk::{Disk, DiskError};
use super::reclaim::swap::slot_map::SlotNumber;
use super::reclaim::swap_in::ReadUnderWay;
use super::reclaim::swap_in::caller::Caller;
use super::reclaim::swap_in::read_frames::{self, ReadFrames};
use super::reclaim::swap_in::window::ReadSequence;
use super::reclaim::{self, RECLAIMER, Reclaimer};
use super::{CommitCharge, OutOfMemory, SPACE, background};
use crate::config::FILE_WORKING_SET;
use crate::layout::APP_REGIONS;
use crate::sync::{LockRank, SpinLock};
use crate::time::Instant;

/// The mapped file.
#[derive(Clone, Copy)]
struct Mapped {
    disk: &'static dyn Disk,
    bytes: u64,
    start: u64,
}

static MAPPED: SpinLock<Option<Mapped>> = SpinLock::new(LockRank::MappedFile, None);

static READ_AHEAD: SpinLock<ReadSequence> = SpinLock::new(LockRank::FileReadAhead, ReadSequence::new());

/// Maps the `bytes` bytes of `disk` for reading. The rest of the last page reads as zero. Returns
/// the address of the first byte. There is one such region, and it is never unmapped.
///
/// # Errors
/// [`OutOfMemory`] when there is no memory for its page tables and a small working set.
pub(crate) fn map(disk: &'static dyn Disk, bytes: u64, policy: Name) -> Result<u64, OutOfMemory> {
    if let Some(mapped) = &*MAPPED.lock() {
        return Ok(mapped.start);
    }
    let whole = bytes.next_multiple_of(FRAME_BYTES);
    let tables = FrameCount(whole.div_ceil(HUGE_BYTES));
    let commit_charge = CommitCharge::of(tables.saturating_add(FILE_WORKING_SET), whole)?;
    reclaim::start::start_dropping_files(policy);
    let start = address_space::map_committed_as(RegionKind::File, APP_REGIONS, commit_charge)?;
    *MAPPED.lock() = Some(Mapped { disk, bytes, start });
    Ok(start)
}

/// Reads the page at `at` of the file region, and some behind it.
///
/// # Errors
/// [`FaultError`] when there is no memory for the page, or the disk can't read it.
pub(super) fn read(at: u64, caller: Caller) -> Result<(), FaultError> {
    let Some(mapped) = *MAPPED.lock() else { return Ok(()) }; // no thread knows the address yet
    let slot = SlotNumber(u32::try_from((at - mapped.start) / FRAME_BYTES).map_err(|_| FaultError::Disk)?);
    let first = caller.frame(Purpose::File)?;
    let count = absent_pages(at, &mapped);
    if count == 0 {
        read_frames::free(first, Purpose::File);
        return Ok(()); // another thread was faster
    }
    let _stall = caller.stall();
    let start = Instant::now();
    let mut frames = ReadFrames::with(first, 1, count, Purpose::File, caller)?;
    mapped.clear_tail(at, &mut frames);
    let _under_way = ReadUnderWay::begin(mapped.disk);
    let mut result = frames.read(mapped.disk, slot);
    if result.is_err() && frames.len() > 1 {
        frames.free_from(1); // the bad sector may be a neighbour's
        result = frames.read(mapped.disk, slot);
    }
    if result.is_ok() {
        let mut reclaimer = RECLAIMER.lock();
        let pages = at..at + frames.len() as u64 * FRAME_BYTES;
        let mapped = install_pages(&mut reclaimer, at, &mut frames);
        let is_due = reclaimer.note_file_read(&pages, mapped, Instant::now().since(start));
        drop(reclaimer);
        if is_due {
            background::wake();
        }
    }
    result.map_err(|DiskError| FaultError::Disk)
}

impl Mapped {
    /// Zeroes the part of the last page beyond the end of the file, before the disk reads the rest.
    fn clear_tail(&self, at: u64, frames: &mut ReadFrames) {
        let end = self.start + self.bytes;
        let last = end - end % FRAME_BYTES;
        let place = last.checked_sub(at).map(|distance| to_usize(distance / FRAME_BYTES));
        if let Some(contents) = place.filter(|_| end != last).and_then(|place| frames.contents_mut(place)) {
            contents.fill(0);
        }
    }
}

/// Returns how many pages to read from `at` on: up to the first that is in memory, within a slot of
/// the page tables.
fn absent_pages(at: u64, mapped: &Mapped) -> usize {
    let space = SPACE.lock();
    let end = (mapped.start + mapped.bytes).next_multiple_of(FRAME_BYTES).min((at + 1).next_multiple_of(HUGE_BYTES));
    let mut read_ahead = READ_AHEAD.lock();
    let most = read_ahead.window_at(at).slots();
    let is_absent = |page: &u64| {
        let state = space.tables().map(|tables| tables.page_state(*page));
        matches!(state, Some(PageState::Empty | PageState::Swapped(_)))
    };
    let count = (at..end).step_by(FRAME_SIZE).take(most).take_while(is_absent).count();
    read_ahead.has_read_to(at + count as u64 * FRAME_BYTES);
    count
}

/// Maps the pages that were read, unless another thread has mapped them meanwhile. Returns how many
/// were mapped.
fn install_pages(reclaimer: &mut Reclaimer, at: u64, frames: &mut ReadFrames) -> u64 {
    let mut space = SPACE.lock();
    let mut installed = 0;
    for place in 0..frames.len() {
        let page = at + place as u64 * FRAME_BYTES;
        let Some(tables) = space.tables_mut() else { break };
        let entry = match tables.page_state(page) {
            PageState::Empty => None,
            PageState::Swapped(entry) => Some(entry),
            PageState::Mapped | PageState::Leaving => continue,
        };
        let Some(block) = frames.take(place) else { break };
        let age = reclaimer.file_page_arrives(entry, place == 0);
        let mut drawn = 0;
        match tables.map_file_page(page, block, age, &mut fault::table_source(&mut drawn)) {
            Ok(()) => installed += 1,
            Err(block) => read_frames::free(block, Purpose::File),
        }
        space.regions.draw(page, FrameCount(drawn));
    }
    installed
}

/// Forgets the mapped file, because each test machine begins without files.
#[cfg(test)]
pub(super) fn restart() {
    *MAPPED.lock() = None;
}

#[cfg(test)]
mod tests;
