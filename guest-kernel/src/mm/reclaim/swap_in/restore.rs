//! Restoring a page: a touched page that was evicted, or is about to be, is in memory again when
//! [`restore`] returns.

use super::ReadUnderWay;
use super::caller::Caller;
use super::install::NotLoaded;
use super::read_ahead::Progress;
use super::read_frames::{self, ReadFrames};
use crate::mm::fault::FaultError;
use crate::mm::frame_allocator::Purpose;
use crate::mm::page_table::PageState;
use crate::mm::reclaim::RECLAIMER;
use crate::mm::reclaim::scan::balance::PageKind;
use crate::mm::reclaim::swap::LoadError;
use crate::mm::reclaim::swap::disk::DiskError;
use crate::mm::reclaim::swap::entry::Stored;
use crate::mm::reclaim::swap::slot_map::SlotNumber;
use crate::mm::{FRAMES, SPACE};
use crate::time::Instant;

/// Restores the page at `at`, if it was evicted or is being evicted.
///
/// # Errors
/// [`FaultError`] when there is no memory for the page, or the disk can't read it.
pub(crate) fn restore(at: u64, caller: Caller) -> Result<(), FaultError> {
    let (start, before) = (Instant::now(), RECLAIMER.lock().scanner.tally().restores);
    let result = swap_in(at, caller);
    let mut reclaimer = RECLAIMER.lock();
    let pages = reclaimer.scanner.tally().restores - before;
    reclaimer.scanner.note_restore_time(PageKind::Anonymous, pages, Instant::now().since(start));
    result
}

fn swap_in(at: u64, caller: Caller) -> Result<(), FaultError> {
    loop {
        let state = SPACE.lock().tables().map_or(PageState::Empty, |tables| tables.page_state(at));
        let PageState::Swapped(entry) = state else {
            if state == PageState::Leaving {
                RECLAIMER.lock().keep(at);
            }
            return Ok(());
        };
        match entry.stored {
            Stored::Filled(_) | Stored::Compressed(_) => return load(at, caller),
            Stored::OnDisk(slot) | Stored::CompressedOnDisk(slot, _) if use_read_ahead(at, slot, caller) => {}
            Stored::OnDisk(_) => return read(at, Purpose::Committed, caller).map(drop),
            // The zspage is read into the compressed pool first, then the page is loaded from it.
            Stored::CompressedOnDisk(..) if read(at, Purpose::CompressedPool, caller)? => {}
            Stored::CompressedOnDisk(..) | Stored::InFile => return Ok(()),
        }
    }
}

/// Loads a page whose contents are in memory. If they are not any more, the access faults again.
fn load(at: u64, caller: Caller) -> Result<(), FaultError> {
    let block = caller.frame(Purpose::Committed)?;
    let result = RECLAIMER.lock().load(at, block, caller);
    let Err(NotLoaded { block, error }) = result else { return Ok(()) };
    FRAMES.free_committed(block);
    match error {
        LoadError::Elsewhere => Ok(()),
        LoadError::Corrupt => Err(FaultError::Disk),
    }
}

/// Reads the slot of the page at `at`, and slots behind it that hold the same kind of thing: pages,
/// or zspages. Returns whether there was anything to read.
fn read(at: u64, purpose: Purpose, caller: Caller) -> Result<bool, FaultError> {
    let first = caller.frame(purpose)?;
    let plan = RECLAIMER.lock().plan_read(at).filter(|plan| plan.purpose == purpose);
    let Some(plan) = plan else {
        read_frames::free(first, purpose);
        return Ok(false); // another thread was faster
    };
    let _stall = caller.stall();
    let mut frames = ReadFrames::with(first, plan.least, plan.count, purpose, caller)?;
    let _under_way = ReadUnderWay::begin(plan.disk);
    let ticket = frames.begin_read(plan.disk, plan.first);
    RECLAIMER.lock().read_on(&plan);
    let mut result = read_frames::finish_read(plan.disk, ticket);
    if result.is_err() && frames.len() > plan.least {
        frames.free_from(plan.least); // a neighbour's sector may be the bad one
        result = frames.read(plan.disk, plan.first);
    }
    let mut reclaimer = RECLAIMER.lock();
    let result = match result {
        Ok(()) => reclaimer.install(&plan, &mut frames, caller.touched(at)),
        Err(error) => reclaimer.read_error(&plan, error),
    };
    drop(reclaimer);
    result.map(|()| true).map_err(|DiskError| FaultError::Disk)
}

/// Waits for the read ahead of a slot, for the page at `at`, and installs it. Returns `false` when
/// the slot is not read ahead.
fn use_read_ahead(at: u64, slot: SlotNumber, caller: Caller) -> bool {
    let mut stall = None;
    let mut has_waited = false;
    loop {
        let progress = RECLAIMER.lock().install_read_ahead(at, slot, caller);
        match progress {
            Progress::None => return has_waited,
            Progress::Ended => return true,
            Progress::UnderWay(disk, ticket) => {
                stall = stall.or_else(|| caller.stall());
                disk.wait(ticket);
                has_waited = true;
            }
        }
    }
}
