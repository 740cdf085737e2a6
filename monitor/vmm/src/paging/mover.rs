//! Moves huge frames between guest memory, the swap cache and the file. Shared by the threads of
//! host paging and the balloon device.
//!
//! Each step that changes where contents are happens under the table's lock, and takes some
//! microseconds. Transfers of the file happen without it. A thread that holds it touches no guest
//! memory, and waits for nothing: what the thread that serves faults needs is always had soon.
//!
//! The order in which a huge frame leaves is what keeps every write: it is registered first, so a
//! page that has left can't be replaced by a new one, and then its pages move as a whole. An access
//! in between waits for the lock and moves them back.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use aerostat_abi::units::{FRAME_SIZE, FrameCount};
use aerostat_link::message::StartHostSwap;
use rustix::fd::OwnedFd;
use rustix::mm::Advice;

use super::area::{Area, Slot};
use super::contents::{Kept, transfers};
use super::frame_mask::FrameMask;
use super::swap_file::SwapFile;
use super::table::{Cached, Fault, Gone, Table, ToRead, Written};
use super::userfault::{Span, Userfault};
use crate::lock::lock;
use crate::memory::GuestMemory;
use crate::page_sizes::HugeIndex;
use crate::shared_registers::SharedRegisters;

/// Huge frames that the swap cache holds.
pub(super) const CACHE_SLOTS: usize = 32;
/// The only slot of the area that a thread reads to.
const STAGING: Slot = Slot(0);
/// How often what the kernel refuses for lack of memory is tried, once a millisecond.
const MOST_TRIES: u32 = 5_000;

/// Host paging of one guest.
#[derive(Debug)]
pub(crate) struct Paging {
    memory: Arc<GuestMemory>,
    registers: Arc<SharedRegisters>,
    userfault: Userfault,
    file: SwapFile,
    /// Mapped when the first limit arrives.
    cache: OnceLock<Area>,
    table: Mutex<Table>,
    /// Whether a huge frame has a record. Set under the balloon device's lock.
    is_in_use: AtomicBool,
    limit: Mutex<Option<FrameCount>>,
    /// The limit has changed, or the guest has grown by what came back.
    changed: Condvar,
    /// Why the guest can't go on.
    failure: OnceLock<String>,
    /// Wakes the main thread.
    work_left: Arc<OwnedFd>,
}

/// Whether a huge frame has left guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    Left,
    Refused,
}

impl Paging {
    /// Prepares paging to `file`. Costs a guest that is never paged nothing more. `work_left` wakes
    /// the main thread.
    pub(crate) fn new(
        memory: Arc<GuestMemory>,
        registers: Arc<SharedRegisters>,
        (host_swap, file, userfault): (&StartHostSwap, OwnedFd, Userfault),
        work_left: Arc<OwnedFd>,
    ) -> io::Result<Self> {
        let paging = Self {
            memory,
            registers,
            userfault,
            file: SwapFile::new(File::from(file), host_swap.faults.clone())?,
            cache: OnceLock::new(),
            table: Mutex::new(Table::new((0..CACHE_SLOTS).map(Slot))),
            is_in_use: AtomicBool::new(false),
            limit: Mutex::new(None),
            changed: Condvar::new(),
            failure: OnceLock::new(),
            work_left,
        };
        paging.publish(&lock(&paging.table));
        Ok(paging)
    }

    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    pub(super) const fn userfault(&self) -> &Userfault {
        &self.userfault
    }

    /// Returns the limit of resident memory.
    pub(super) fn limit(&self) -> Option<FrameCount> {
        *lock(&self.limit)
    }

    /// Sets the limit of resident memory.
    pub(super) fn set_limit(&self, limit: Option<FrameCount>) {
        *lock(&self.limit) = limit;
        self.changed.notify_one();
    }

    /// Has the pager check the guest's size soon.
    pub(super) fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits for another limit than `limit`, or a notification, for so long at most; `None`: until
    /// there is one.
    pub(super) fn wait(&self, limit: Option<FrameCount>, patience: Option<Duration>) {
        let now = lock(&self.limit);
        if *now != limit {
            return;
        }
        // A spurious wakeup makes the pager check once more.
        match patience {
            Some(patience) => {
                drop(self.changed.wait_timeout(now, patience).unwrap_or_else(PoisonError::into_inner));
            }
            None => drop(self.changed.wait(now).unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Returns why the guest can't go on, if it can't.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Has the main thread end the process: contents are lost or can't be brought back.
    pub(super) fn fail(&self, why: String) {
        let _ = self.failure.set(why);
        // Full only where the main thread has not read it for ever.
        let _ = rustix::io::write(&self.work_left, &1_u64.to_ne_bytes());
    }

    /// Maps the swap cache. Called once, before anything moves.
    pub(super) fn map_cache(&self) -> io::Result<()> {
        let area = Area::new(CACHE_SLOTS, Advice::Normal)?;
        // SAFETY: only this module uses the area, and touches frames only that have pages.
        unsafe { self.userfault.register(area.span())? };
        let _ = self.cache.set(area);
        Ok(())
    }

    /// Returns whether any of the guest may be out of its memory.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is_in_use.load(Ordering::Acquire)
    }

    /// Returns whether it is worth trying to move a huge frame out.
    pub(super) fn may_leave(&self, huge: HugeIndex) -> bool {
        lock(&self.table).may_leave(huge) && self.memory.is_any_resident(&huge.frames())
    }

    /// Moves these frames of a huge frame, which are the guest's, into the swap cache. The caller
    /// holds the balloon device's lock, and no device transfers to or from guest memory.
    pub(crate) fn move_out(&self, huge: HugeIndex, frames: FrameMask) -> Departure {
        let Some(cache) = self.cache.get() else { return Departure::Refused };
        let mut table = lock(&self.table);
        let Some(slot) = table.admit(huge, frames) else { return Departure::Refused };
        let cached = Cached { huge, slot, frames };
        // SAFETY: the thread that serves faults needs no guest memory.
        if unsafe { self.userfault.register(self.span(huge)) }.is_err() {
            table.returned(&cached);
            return Departure::Refused;
        }
        self.is_in_use.store(true, Ordering::Release);
        for run in frames.runs() {
            let from = self.frames(huge, &run);
            // SAFETY: while a guest runs there are no references to its memory but to the words
            // that it shares, which the balloon device leaves out; and none to a free slot.
            if unsafe { self.userfault.move_pages(from, cache.frame(slot, run.start)) }.is_err() {
                // Pinned, or no memory for page tables. What has moved goes back.
                self.move_back(&mut table, cache, &cached);
                return Departure::Refused;
            }
        }
        Departure::Left
    }

    /// Does what an access of the guest requires; returns what has to be read. Does nothing for an
    /// address that is not in guest memory.
    pub(super) fn serve(&self, huge: HugeIndex) -> Option<ToRead> {
        let mut table = lock(&self.table);
        match table.fault(huge) {
            Fault::Wake => {
                // It fails only where there is nothing to wake.
                let _ = self.userfault.wake(self.span(huge));
            }
            Fault::Wait => {}
            Fault::Return(cached) => {
                table.protect(huge);
                if let Some(cache) = self.cache.get() {
                    self.move_back(&mut table, cache, &cached);
                }
            }
            Fault::Read(to_read) => {
                table.protect(huge);
                return Some(to_read);
            }
        }
        None
    }

    /// Writes what is longest in the swap cache. Returns whether there was anything.
    ///
    /// # Errors
    /// The file can't be written. The huge frame is in guest memory again.
    pub(super) fn write_oldest(&self) -> io::Result<bool> {
        let Some(cache) = self.cache.get() else { return Ok(false) };
        let Some(cached) = lock(&self.table).begin_write() else { return Ok(false) };
        let kept = self.write(cache, &cached);
        let mut table = lock(&self.table);
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => {
                if let Some(cached) = table.cancel_write(cached.huge) {
                    self.move_back(&mut table, cache, &cached);
                }
                return Err(error);
            }
        };
        let written = table.end_write(cached.huge, kept);
        if let Written::Wanted(cached) = written {
            table.protect(cached.huge);
            self.move_back(&mut table, cache, &cached);
            return Ok(true);
        }
        // SAFETY: the slot is still this call's until the lock is released, and nothing borrows
        // from it.
        unsafe { cache.release(cached.slot) };
        if written == Written::Gone {
            self.unregister(cached.huge);
        }
        self.publish(&table);
        Ok(true)
    }

    /// Writes a huge frame to the file; returns what was kept of it.
    fn write(&self, cache: &Area, cached: &Cached) -> io::Result<Kept> {
        let Cached { huge, slot, frames } = *cached;
        let present = cache.present(slot)?.and(&frames);
        // SAFETY: nothing writes to the slot until the write is done: a fault only notes that the
        // huge frame is wanted, and no transfer was in progress when it left guest memory.
        let kept = Kept::decide(&present, |frame| unsafe { cache.words(slot, frame) });
        for run in transfers(&kept.stored, &present) {
            let start = cache.frame(slot, run.start);
            let first = huge.frames().start;
            // SAFETY: the run lies in the slot, and all of it has pages.
            unsafe { self.file.write(first + run.start..first + run.end, start)? };
        }
        Ok(kept)
    }

    /// Begins to read the next huge frame that is out, from `from` on.
    pub(super) fn begin_next_read(&self, from: HugeIndex) -> Option<ToRead> {
        let mut table = lock(&self.table);
        let huge = table.next_out(from)?;
        table.begin_read(huge)
    }

    /// Reads a huge frame and moves it into guest memory.
    ///
    /// # Errors
    /// The file can't be read. The huge frame is still out.
    pub(super) fn bring_in(&self, to_read: &ToRead, staging: &Area) -> io::Result<()> {
        let ToRead { huge, stored } = *to_read;
        let first = huge.frames().start;
        for run in transfers(&stored, &FrameMask::ALL) {
            // SAFETY: the area is this thread's, and the run lies in it.
            let read = unsafe { self.file.read(first + run.start..first + run.end, staging.frame(STAGING, run.start)) };
            if let Err(error) = read {
                lock(&self.table).cancel_read(huge);
                return Err(error);
            }
        }
        let mut table = lock(&self.table);
        let (frames, filled) = table.end_read(huge);
        for filled in filled {
            for frame in filled.frames.filter(|&frame| frames.contains(frame)) {
                // SAFETY: the area is this thread's.
                unsafe { staging.fill(STAGING, frame, filled.word) };
            }
        }
        self.fill_in(huge, frames, (staging, STAGING));
        // SAFETY: nothing borrows from the area.
        unsafe { staging.release(STAGING) };
        self.publish(&table);
        Ok(())
    }

    /// Moves everything back that is in the swap cache and not being written.
    pub(super) fn empty_cache(&self) {
        let Some(cache) = self.cache.get() else { return };
        loop {
            let mut table = lock(&self.table);
            let Some(cached) = table.any_cached() else { return };
            self.move_back(&mut table, cache, &cached);
        }
    }

    /// Returns how many huge frames are in the swap cache.
    pub(super) fn cached(&self) -> usize {
        lock(&self.table).cached()
    }

    /// Frees the file's space, if nothing is out; returns whether nothing is. The caller holds the
    /// balloon device's lock, so nothing leaves meanwhile.
    pub(super) fn end_use(&self) -> bool {
        let table = lock(&self.table);
        let is_empty = table.is_empty();
        if is_empty {
            self.is_in_use.store(false, Ordering::Release);
        }
        is_empty
    }

    /// Gives the file's space back. Nothing is out, and the caller is what could move anything out.
    pub(super) fn clear_file(&self) -> io::Result<()> {
        self.file.clear()
    }

    /// Forgets the contents of frames of these indexes, which are not the guest's any more. The
    /// caller holds the balloon device's lock, and releases the frames next.
    pub(crate) fn forget<'a>(&self, ranges: impl Iterator<Item = &'a Range<usize>>) {
        if !self.is_in_use() {
            return;
        }
        let mut table = lock(&self.table);
        for range in ranges {
            for Gone { huge, slot } in table.forget(range) {
                if let (Some(cache), Some(slot)) = (self.cache.get(), slot) {
                    // SAFETY: the slot is free, and nothing borrows from it.
                    unsafe { cache.release(slot) };
                }
                self.unregister(huge);
            }
        }
        self.publish(&table);
    }

    /// Moves a huge frame from the swap cache back into guest memory, and wakes who waits for it.
    fn move_back(&self, table: &mut MutexGuard<'_, Table>, cache: &Area, cached: &Cached) {
        table.returned(cached);
        self.fill_in(cached.huge, cached.frames, (cache, cached.slot));
        // SAFETY: the slot is free, and nothing borrows from it. What is left in it was forgotten.
        unsafe { cache.release(cached.slot) };
    }

    /// Moves frames from a slot into guest memory, and ends the registration of the huge frame.
    fn fill_in(&self, huge: HugeIndex, frames: FrameMask, (area, slot): (&Area, Slot)) {
        for run in frames.runs() {
            let (mut start, end) = (run.start, run.end);
            let mut tries = 0;
            while start < end {
                let from = Span { start: area.frame(slot, start), bytes: (end - start) * FRAME_SIZE };
                let to = self.frames(huge, &(start..end));
                // SAFETY: there are no references to guest memory, nor to the slot.
                let Err((moved, error)) = (unsafe { self.userfault.move_pages(from, to.start) }) else { break };
                start += moved / FRAME_SIZE;
                tries += 1;
                if tries == MOST_TRIES {
                    self.fail(format!("the host can't bring the guest's memory back: {error}"));
                    return;
                }
                // Memory for page tables is short.
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.unregister(huge);
    }

    fn unregister(&self, huge: HugeIndex) {
        if let Err(error) = self.userfault.unregister(self.span(huge)) {
            // The address space has too many parts to be joined again; accesses are still served.
            let _ = (error, self.userfault.wake(self.span(huge)));
        }
    }

    fn publish(&self, table: &Table) {
        self.registers.page().set_paging(&table.facts());
    }

    fn span(&self, huge: HugeIndex) -> Span {
        let frames = huge.frames();
        self.frames(huge, &(0..frames.len()))
    }

    /// Returns where frames of a huge frame are, by their numbers in it.
    fn frames(&self, huge: HugeIndex, run: &Range<usize>) -> Span {
        let first = huge.frames().start;
        Span { start: self.memory.host_address((first + run.start) * FRAME_SIZE), bytes: run.len() * FRAME_SIZE }
    }
}
