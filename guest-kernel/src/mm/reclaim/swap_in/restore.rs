//! The way back: a touched page that was evicted, or is about to be, is in memory again when
//! [`restore`] returns.
//!
//! What is on disk is read straight into the frames where it will be, with its neighbours on disk
//! while there are frames to spare ([`plan`](crate::mm::reclaim::swap_in::plan)): pages that were
//! written together are likely to be wanted together. Where that proves right, what follows is read
//! before it is touched ([`ahead`](crate::mm::reclaim::swap_in::read_ahead)). No lock is held while
//! the disk reads; afterwards each page is looked at again, and what is no longer wanted is
//! dropped.

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount};
use aerostat_reclaim_policy::{Age, Arrival, Policy, Refault};

use crate::mm::block::Block;
use crate::mm::fault::FaultError;
use crate::mm::frame_allocator::Purpose;
use crate::mm::page_table::{PageState, Restored};
use crate::mm::reclaim::scan::balance::PageKind;
use crate::mm::reclaim::swap::disk::DiskError;
use crate::mm::reclaim::swap::entry::{Stored, SwapEntry};
use crate::mm::reclaim::swap::slot_map::{Kept, SlotNumber};
use crate::mm::reclaim::swap_in::frames::{self as incoming, Caller, Frames};
use crate::mm::reclaim::swap_in::plan::{Plan, slot_of};
use crate::mm::reclaim::swap_in::read_ahead::take_in_ahead_for;
use crate::mm::reclaim::{RECLAIMER, Reclaimer, free_of_compressed_pool, page_in};
use crate::mm::{FRAMES, SPACE, Space};
use crate::time::Instant;

/// Brings the page at `at` back, if it is away.
///
/// # Errors
/// When there is no memory for it, or the disk can't read it.
pub(crate) fn restore(at: u64, caller: Caller) -> Result<(), FaultError> {
    let (start, before) = (Instant::now(), RECLAIMER.lock().statistics.restores);
    let result = bring_back(at, caller);
    let mut reclaimer = RECLAIMER.lock();
    let pages = reclaimer.statistics.restores - before;
    reclaimer.balance.restored(PageKind::Anonymous, pages, Instant::now().since(start));
    result
}

fn bring_back(at: u64, caller: Caller) -> Result<(), FaultError> {
    loop {
        let state = SPACE.lock().tables().map_or(PageState::Empty, |tables| tables.page_state(at));
        let PageState::Swapped(entry) = state else {
            if state == PageState::Leaving {
                RECLAIMER.lock().keep(at);
            }
            return Ok(());
        };
        match entry.stored {
            Stored::Filled(_) | Stored::Compressed(_) => return unpack(at, caller),
            Stored::OnDisk(slot) | Stored::CompressedOnDisk(slot, _) if take_in_ahead_for(at, slot, caller) => {}
            Stored::OnDisk(_) => return read(at, Purpose::Committed, caller).map(drop),
            // The group comes back into the compressed pool first, then the page out of it.
            Stored::CompressedOnDisk(..) if read(at, Purpose::CompressedPool, caller)? => {}
            Stored::CompressedOnDisk(..) | Stored::InFile => return Ok(()),
        }
    }
}

/// Brings a page back that is in memory, packed. If it is not there any more, the next fault will
/// see where it is.
fn unpack(at: u64, caller: Caller) -> Result<(), FaultError> {
    let block = caller.frame(Purpose::Committed)?;
    let result = RECLAIMER.lock().unpack(at, block, caller);
    let Err(NotUnpacked { block, reason }) = result else { return Ok(()) };
    FRAMES.free_committed(block);
    match reason {
        Reason::Elsewhere => Ok(()),
        Reason::Corrupt => Err(FaultError::Disk),
    }
}

/// A page that was not unpacked, and the frame that was to hold it.
pub(crate) struct NotUnpacked {
    pub(crate) block: Block,
    reason: Reason,
}

/// Why a page was not unpacked.
enum Reason {
    /// It is not in memory (any more).
    Elsewhere,
    /// It was on the disk, which has returned something else than it was given.
    Corrupt,
}

/// Reads the slot of the page at `at`, and those behind it that hold the same kind of thing: pages,
/// or groups of the compressed pool. Says whether there was anything to read.
fn read(at: u64, purpose: Purpose, caller: Caller) -> Result<bool, FaultError> {
    let first = caller.frame(purpose)?;
    let plan = RECLAIMER.lock().plan_read(at).filter(|plan| plan.purpose == purpose);
    let Some(plan) = plan else {
        incoming::free(first, purpose);
        return Ok(false); // somebody else was faster
    };
    let _stall = caller.stall();
    let mut frames = Frames::with(first, plan.least, plan.count, purpose, caller)?;
    let ticket = frames.begin_read(plan.disk, plan.first);
    RECLAIMER.lock().read_on(&plan);
    let mut result = incoming::finish_read(plan.disk, ticket);
    if result.is_err() && frames.count > plan.least {
        frames.free_from(plan.least); // a neighbour's sector may be the bad one
        result = frames.fill_from(plan.disk, plan.first);
    }
    let mut reclaimer = RECLAIMER.lock();
    let result = match result {
        Ok(()) => reclaimer.take_in(&plan, &mut frames, (caller == Caller::Fault).then_some(at)),
        Err(error) => reclaimer.note_read_error(&plan, error),
    };
    drop(reclaimer);
    result.map(|()| true).map_err(|DiskError| FaultError::Disk)
}

impl Reclaimer {
    /// Puts a page back into force that was on its way out.
    fn keep(&mut self, at: u64) {
        let mut space = SPACE.lock();
        let page = at..at + FRAME_BYTES;
        self.abandon_collapse(&mut space, &page);
        self.cancel(&page);
        if space.regions.find(at).is_some()
            && let Some(tables) = space.tables_mut()
        {
            tables.reinstate(at);
        }
    }

    /// Fills `block` with the contents of the page at `at`, which are in memory, and maps it, and
    /// neighbours of the page, too, while memory is plenty.
    fn unpack(&mut self, at: u64, block: Block, caller: Caller) -> Result<(), NotUnpacked> {
        let mut space = SPACE.lock();
        let Some(entry) = swapped(&space, at) else { return Err(NotUnpacked { block, reason: Reason::Elsewhere }) };
        self.unpack_into(&mut space, at, entry, block, caller == Caller::Fault)?;
        self.restore_neighbours(&mut space, at, entry);
        Ok(())
    }

    /// The same for one page.
    pub(crate) fn unpack_into(
        &mut self,
        space: &mut Space,
        at: u64,
        entry: SwapEntry,
        mut block: Block,
        is_touched: bool,
    ) -> Result<(), NotUnpacked> {
        let contents = page_in(&mut block);
        match entry.stored {
            Stored::Filled(pattern) => fill(contents, pattern),
            Stored::Compressed(place) => {
                if !self.compressed_pool.load(place, contents) {
                    let Some(swap) = &mut self.swap_disk else {
                        panic!("a page in the compressed pool was overwritten");
                    };
                    swap.errors += 1;
                    return Err(NotUnpacked { block, reason: Reason::Corrupt });
                }
            }
            Stored::OnDisk(_) | Stored::CompressedOnDisk(..) | Stored::InFile => {
                return Err(NotUnpacked { block, reason: Reason::Elsewhere });
            }
        }
        self.arrive(space, at, block, entry, is_touched);
        Ok(())
    }

    /// Maps a page that has come back.
    fn arrive(&mut self, space: &mut Space, at: u64, block: Block, entry: SwapEntry, is_touched: bool) {
        self.statistics.restores += 1;
        self.statistics.touched_restores += u64::from(is_touched);
        let age = self.welcome(PageKind::Anonymous, Some(entry), is_touched);
        let is_incompressible = matches!(entry.stored, Stored::OnDisk(_));
        if let Space { regions, tables: Some(tables) } = space
            && let Some(region) = regions.find_mut(at)
        {
            region.restores += 1;
            let access = region.access;
            tables.restore(at, block, Restored { age, is_incompressible, access });
        }
        space.regions.draw(at, FrameCount(1));
        self.forget(entry);
    }

    /// What the policy thinks of a page that arrives, whether somebody wants it or it comes along;
    /// `entry` tells of its eviction, if there was one.
    pub(crate) fn welcome(&mut self, kind: PageKind, entry: Option<SwapEntry>, is_touched: bool) -> Age {
        let count = self.eviction_count();
        let Some(hand) = self.hand(kind) else { return Age::default() };
        let arrival = match entry {
            _ if !is_touched => Arrival::Prefetch,
            None => Arrival::First,
            Some(entry) => {
                let (distance, resident) = (entry.distance(count), hand.resident_pages());
                Arrival::Refault(Refault { distance, resident, age: entry.age })
            }
        };
        let age = hand.policy.arrived(arrival);
        if let Arrival::Refault(Refault { distance, resident, .. }) = arrival
            && distance < resident / 2
        {
            self.statistics.refaults += 1;
            self.balance.refaulted(kind);
        }
        age
    }

    /// Puts what was read where it belongs, unless that has changed meanwhile; `touched` is the
    /// page that somebody waits for.
    pub(crate) fn take_in(&mut self, plan: &Plan, frames: &mut Frames, touched: Option<u64>) -> Result<(), DiskError> {
        let mut space = SPACE.lock();
        let mut place = 0;
        while place < frames.count {
            match self.still_kept(plan, place) {
                None => place += 1,
                Some(Kept::Page) => {
                    let page = plan.pages[place];
                    let is_there = slot_of(&space, page) == Some(plan.first.plus(place));
                    let entry = swapped(&space, page).filter(|_| is_there);
                    if let (Some(entry), Some(block)) = (entry, frames.take(place)) {
                        self.count_read(1);
                        self.arrive(&mut space, page, block, entry, touched == Some(page));
                    }
                    place += 1;
                }
                Some(Kept::Zspage { pages, slots }) => {
                    if place + slots > frames.count {
                        break; // there were not enough frames for all of it
                    }
                    self.count_read(slots);
                    let blocks = &mut frames.blocks[place..place + slots];
                    let adopted = self.adopt(&mut space, plan.first.plus(place), pages, blocks);
                    if place == 0 {
                        adopted?; // others are not wanted yet
                    }
                    place += slots;
                }
            }
        }
        Ok(())
    }

    fn count_read(&mut self, slots: usize) {
        if let Some(swap) = &mut self.swap_disk {
            swap.read += slots as u64;
        }
    }

    /// What is wanted could not be read: an error, unless it is not wanted any more.
    fn note_read_error(&mut self, plan: &Plan, error: DiskError) -> Result<(), DiskError> {
        let is_wanted = self.still_kept(plan, 0).is_some();
        match self.swap_disk.as_mut().filter(|_| is_wanted) {
            Some(swap) => {
                swap.errors += 1;
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// Makes a group of the compressed pool out of what was read from slots.
    fn adopt(
        &mut self,
        space: &mut Space,
        slot: SlotNumber,
        pages: u16,
        blocks: &mut [Option<Block>],
    ) -> Result<(), DiskError> {
        let tables = space.tables_mut().ok_or(DiskError)?;
        let on_disk = |index| Stored::CompressedOnDisk(slot, u8::try_from(index).unwrap_or(u8::MAX));
        let is_due = |index, page| matches!(tables.page_state(page), PageState::Swapped(entry) if entry.stored == on_disk(index));
        // A disk that returns something else than it was given is a broken one. What it holds stays
        // where it is: the next to want a page of it is told the same.
        let Some(group) = self.compressed_pool.adopt(blocks, pages, is_due, free_of_compressed_pool) else {
            self.swap_disk.iter_mut().for_each(|swap| swap.errors += 1);
            return Err(DiskError);
        };
        for (place, page) in self.compressed_pool.pages(group) {
            tables.move_swapped(page, on_disk(place.index()), Stored::Compressed(place));
        }
        self.statistics.pages_on_disk -= u64::from(pages.count_ones());
        if let Some(swap) = &mut self.swap_disk {
            swap.slots.empty(slot);
        }
        Ok(())
    }
}

/// Where the page at `at` is, if it was evicted and its region is still there.
pub(crate) fn swapped(space: &Space, at: u64) -> Option<SwapEntry> {
    let tables = space.regions.find(at).and(space.tables())?;
    match tables.page_state(at) {
        PageState::Swapped(entry) => Some(entry),
        PageState::Empty | PageState::Mapped | PageState::Leaving => None,
    }
}

fn fill(page: &mut [u8; FRAME_SIZE], pattern: u32) {
    for word in page.as_chunks_mut().0 {
        *word = pattern.to_le_bytes();
    }
}
