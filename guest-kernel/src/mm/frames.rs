//! The frame allocator as the kernel uses it, from any CPU: the [`FrameAllocator`] behind its lock,
//! and a [`FrameCache`] in front of it for each CPU.
//!
//! Frames for pages are taken from the frame caches and freed into them. Everything else goes
//! straight to the allocator, and so do huge frames when the cache has none, or has one already.
//! The frames and commit charges in the caches count as free and committed like all others: when
//! the allocator alone refuses a request ([`Frames::exactly`]), all frame caches are emptied and
//! the request is repeated, so no answer depends on what is cached where. Lock order: frame caches
//! by their numbers, then the allocator.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::frame_state::HugeFrameWord;
use aerostat_abi::units::{FrameCount, FrameNumber, HugeFrameNumber};

use super::block::{Backing, Block, BlockSize, HugeRun};
use super::compaction::policy::Occupancy;
use super::frame_allocator::{FrameAllocator, FrameStatistics, Purpose};
use super::frame_cache::{BATCH, FrameCache};
use super::poison;
use super::sizing::Sizing;
use super::watermarks::Watermarks;
use crate::arch::x86_64::cpu;
use crate::config::MAX_CPUS;
use crate::sync::{LockRank, SpinGuard, SpinLock};

/// All frames of the machine. It is empty, and refuses every request, until [`Frames::start`].
#[derive(Debug)]
pub(crate) struct Frames {
    frame_caches: [CpuFrameCache; MAX_CPUS],
    pool: SpinLock<Pool>,
    /// Whether nothing must be cached now; see [`FrameAllocator::is_tight`].
    is_tight: AtomicBool,
}

/// A frame cache in cache lines of its own; the processor may fetch two at once.
#[derive(Debug)]
#[repr(align(128))]
struct CpuFrameCache(SpinLock<FrameCache>);

#[derive(Debug)]
struct Pool {
    allocator: Option<FrameAllocator>,
    /// Frames of the machine.
    total: FrameCount,
    /// Whether pages can be reclaimed.
    can_reclaim: bool,
    /// What follows from the guest's size, and the size of the balloon for which it was computed.
    sizing: Sizing,
    sized_for: FrameCount,
}

impl Pool {
    const EMPTY: Self = Self {
        allocator: None,
        total: FrameCount::ZERO,
        can_reclaim: false,
        sizing: Sizing::NONE,
        sized_for: FrameCount::ZERO,
    };

    /// Recomputes what depends on the guest's size. Called where that changes.
    fn resize(&mut self) {
        self.sized_for = self.allocator.as_ref().map_or(FrameCount::ZERO, FrameAllocator::ballooned);
        let size = self.total.saturating_sub(self.sized_for);
        self.sizing = if self.can_reclaim { Sizing::of(size) } else { Sizing::NONE };
    }

    fn existing(&mut self) -> &mut FrameAllocator {
        self.allocator.as_mut().expect("a block or a commit charge can only have come from an existing allocator")
    }
}

impl Frames {
    pub(crate) const fn new() -> Self {
        Self {
            frame_caches: [const { CpuFrameCache(SpinLock::new(LockRank::FrameCache, FrameCache::EMPTY)) }; MAX_CPUS],
            pool: SpinLock::new(LockRank::FrameAllocator, Pool::EMPTY),
            is_tight: AtomicBool::new(false),
        }
    }

    /// Sets the allocator to allocate from, on a machine of `total` frames.
    pub(crate) fn start(&self, allocator: FrameAllocator, total: FrameCount) {
        *self.pool.lock() = Pool { allocator: Some(allocator), total, ..Pool::EMPTY };
    }

    /// Notes that memory which the host does not back may hold anything.
    pub(crate) fn distrust_unbacked(&self) {
        self.existing_pool(FrameAllocator::distrust_unbacked);
    }

    /// Notes that pages can be reclaimed from now on.
    pub(crate) fn begin_reclaim(&self) {
        let mut pool = self.pool.lock();
        pool.can_reclaim = true;
        pool.resize();
    }

    /// Forgets everything, for the next test machine.
    #[cfg(test)]
    pub(crate) fn stop(&self) {
        if self.pool.lock().allocator.is_some() {
            self.exactly(|_| ());
        }
        *self.pool.lock() = Pool::EMPTY;
        self.is_tight.store(false, Ordering::Relaxed);
    }

    /// Returns the number of frames drawn from commit charges that were uncharged since.
    #[cfg(test)]
    pub(crate) fn ended_in_use(&self) -> FrameCount {
        self.exactly(|allocator| allocator.ended_in_use())
    }

    /// Hands out a block, or `None` when no block of that size is open to that purpose.
    pub(crate) fn allocate(&self, size: BlockSize, purpose: Purpose) -> Option<Block> {
        let cached = if purpose == Purpose::Committed { self.take_cached(size) } else { None };
        cached.or_else(|| self.take(size, purpose)).map(poison::checked)
    }

    fn take_cached(&self, size: BlockSize) -> Option<Block> {
        if self.is_tight.load(Ordering::Relaxed) {
            return None;
        }
        let mut frame_cache = self.frame_cache().lock();
        if size == BlockSize::Huge {
            return frame_cache.take_committed_huge();
        }
        frame_cache.take_committed().or_else(|| {
            self.pool(|allocator| allocator.fill(&mut frame_cache))?;
            frame_cache.take_committed()
        })
    }

    fn take(&self, size: BlockSize, purpose: Purpose) -> Option<Block> {
        let block = self.pool(|allocator| allocator.allocate(size, purpose))?;
        block.or_else(|| self.exactly(|allocator| allocator.allocate(size, purpose)))
    }

    /// Hands out a frame for a page table; see [`FrameAllocator::allocate_table`].
    pub(crate) fn allocate_table(&self, purpose: Purpose) -> Option<Block> {
        let block = self.pool(|allocator| allocator.allocate_table(purpose))?;
        block.or_else(|| self.exactly(|allocator| allocator.allocate_table(purpose))).map(poison::checked)
    }

    /// Hands out one particular block, if it is free and open to that purpose.
    pub(crate) fn claim(&self, first: FrameNumber, size: BlockSize, purpose: Purpose) -> Option<Block> {
        let block = self.pool(|allocator| allocator.claim_block(first, size, purpose))?;
        block.or_else(|| self.exactly(|allocator| allocator.claim_block(first, size, purpose)))
    }

    /// Hands out these huge frames for the balloon; see [`FrameAllocator::claim_run`].
    pub(crate) fn claim_run(&self, run: Range<HugeFrameNumber>) -> Option<HugeRun> {
        self.pool(|allocator| allocator.claim_run(run))?
    }

    /// Returns the lowest huge frame, from `from` on, that has frames that are free and in no frame
    /// cache.
    pub(crate) fn next_free(&self, from: HugeFrameNumber) -> Option<HugeFrameNumber> {
        self.pool(|allocator| allocator.next_free(from))?
    }

    /// Returns how many frames would be open to a purpose if all offers were withdrawn.
    pub(crate) fn within_reach_of(&self, purpose: Purpose) -> FrameCount {
        FrameCount(self.exactly(|allocator| allocator.within_reach_of(purpose)))
    }

    /// Returns a frame to move a page into; see [`FrameAllocator::replacement`].
    pub(crate) fn replacement(&self) -> Option<Block> {
        self.pool(FrameAllocator::replacement)?.map(poison::checked)
    }

    /// Frees a block that the host still backs.
    pub(crate) fn free(&self, block: Block) {
        poison::fill(&block);
        self.existing_pool(|allocator| allocator.free(block));
    }

    /// Frees the frame of a page into this CPU's cache.
    pub(crate) fn free_page(&self, block: Block) {
        self.free_cached(block, FrameCache::put, FrameAllocator::free);
    }

    /// Frees a block that was drawn from a commit charge and not used, or whose page was evicted.
    /// The commit is charged for it again.
    pub(crate) fn free_committed(&self, block: Block) {
        match block.size() {
            BlockSize::Frame => self.free_cached(block, FrameCache::put_committed, FrameAllocator::free_committed),
            BlockSize::Huge => self.free_committed_huge(block),
        }
    }

    fn free_committed_huge(&self, block: Block) {
        poison::fill(&block);
        let is_tight = self.is_tight.load(Ordering::Relaxed);
        let refused = if is_tight { Err(block) } else { self.frame_cache().lock().put_committed_huge(block) };
        if let Err(block) = refused {
            self.existing_pool(|allocator| allocator.free_committed(block));
        }
    }

    /// Does the same for a page table, whose frame must not be used for pages.
    pub(crate) fn free_committed_table(&self, table: Block) {
        poison::fill(&table);
        self.existing_pool(|allocator| allocator.free_committed(table));
    }

    fn free_cached(&self, block: Block, put: fn(&mut FrameCache, Block), free: fn(&mut FrameAllocator, Block)) {
        poison::fill(&block);
        if block.size() == BlockSize::Huge || self.is_tight.load(Ordering::Relaxed) {
            return self.existing_pool(|allocator| free(allocator, block));
        }
        let mut frame_cache = self.frame_cache().lock();
        if frame_cache.is_full() {
            self.existing_pool(|allocator| allocator.drain(&mut frame_cache, BATCH));
        }
        put(&mut frame_cache, block);
    }

    /// Frees a block that was allocated for the balloon and never reached the host.
    pub(crate) fn free_ballooned(&self, block: Block) {
        poison::fill(&block);
        self.existing_pool(|allocator| allocator.deflate(block, Backing::Backed));
    }

    /// Frees a block of the balloon that the host had in between.
    pub(crate) fn free_unbacked(&self, block: Block) {
        self.existing_pool(|allocator| allocator.deflate(block, Backing::Unbacked));
    }

    /// Hands out a free huge frame that the host backs; see [`FrameAllocator::take_backed`].
    pub(crate) fn take_backed(&self) -> Option<Block> {
        self.pool(FrameAllocator::take_backed)?
    }

    /// Frees a block that was reported to the host, which does not back it any more.
    pub(crate) fn free_reported(&self, block: Block) {
        self.existing_pool(|allocator| allocator.free_reported(block));
    }

    /// Frees a frame that counts as swap headroom.
    pub(crate) fn free_in_headroom(&self, block: Block) {
        self.free_all_in_headroom(core::iter::once(block));
    }

    /// Does the same with many blocks at once. `blocks` takes no lock.
    pub(crate) fn free_all_in_headroom(&self, blocks: impl Iterator<Item = Block>) {
        self.existing_pool(|allocator| {
            for block in blocks {
                poison::fill(&block);
                allocator.free_in_headroom(block);
            }
        });
    }

    pub(crate) fn add_headroom(&self, frames: FrameCount) {
        self.existing_pool(|allocator| allocator.add_headroom(frames));
    }

    pub(crate) fn remove_headroom(&self, frames: FrameCount) {
        self.existing_pool(|allocator| allocator.remove_headroom(frames));
    }

    /// Charges `frames` frames to the commit.
    ///
    /// # Errors
    /// Returns how many frames are missing; nothing is charged then.
    pub(crate) fn charge_commit(&self, frames: FrameCount) -> Result<(), FrameCount> {
        match self.pool(|allocator| allocator.charge_commit(frames)) {
            None => Err(frames),
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => self.exactly(|allocator| allocator.charge_commit(frames)),
        }
    }

    /// Uncharges what is left of a commit charge.
    pub(crate) fn uncharge_commit(&self, frames: FrameCount) {
        let is_here = |allocator: &mut FrameAllocator| frames <= allocator.statistics().committed;
        let is_ended = self.existing_pool(|allocator| {
            let is_here = is_here(allocator);
            if is_here {
                allocator.uncharge_commit(frames);
            }
            is_here
        });
        if !is_ended {
            self.exactly(|allocator| allocator.uncharge_commit(frames));
        }
    }

    /// Returns the state words of all huge frames from address 0 on, for the monitor to see.
    pub(crate) fn states(&self) -> &'static [HugeFrameWord] {
        self.existing_pool(|allocator| allocator.states())
    }

    /// Notes that the monitor sees the state words from now on and may reclaim what is offered.
    pub(crate) fn begin_offers(&self) {
        self.existing_pool(FrameAllocator::begin_offers);
    }

    /// Offers the monitor the huge frames that can be spared by now.
    pub(crate) fn offer_spare(&self) {
        self.existing_pool(FrameAllocator::offer_spare);
    }

    /// Returns a huge frame that the host has reclaimed, for the balloon.
    pub(crate) fn collect_reclaimed(&self) -> Option<Block> {
        self.existing_pool(FrameAllocator::collect_reclaimed)
    }

    /// Returns the number of frames that the host has reclaimed and the driver has not collected.
    pub(crate) fn reclaimed_by_host(&self) -> FrameCount {
        self.pool(FrameAllocator::reclaimed_by_host).unwrap_or_default()
    }

    /// Begins to vacate huge frames; see [`FrameAllocator::vacate`].
    pub(crate) fn vacate(&self, wanted: usize) -> usize {
        self.exactly(|allocator| allocator.vacate(wanted))
    }

    pub(crate) fn is_vacating(&self) -> bool {
        self.existing_pool(|allocator| allocator.is_vacating())
    }

    /// Returns whether the page in `frame` must be moved.
    pub(crate) fn is_vacated(&self, frame: FrameNumber) -> bool {
        self.existing_pool(|allocator| allocator.is_vacated(frame))
    }

    pub(crate) fn end_vacating(&self) {
        self.existing_pool(FrameAllocator::end_vacating);
    }

    /// Returns the number of frames in wholly free huge frames that the host backs.
    pub(crate) fn backed_free(&self) -> FrameCount {
        self.pool(|allocator| allocator.backed_free()).unwrap_or_default()
    }

    /// Returns the number of wholly free huge frames, and how much of the others is in use.
    pub(crate) fn huge_frames(&self) -> (usize, Occupancy) {
        self.exactly(|allocator| (allocator.whole_huge_frames(), allocator.occupancy()))
    }

    /// Returns what follows from the guest's current size.
    pub(crate) fn sizing(&self) -> Sizing {
        self.pool.lock().sizing
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        self.sizing().watermarks
    }

    /// Returns the number of frames in the balloon that the driver has collected.
    pub(crate) fn ballooned(&self) -> FrameCount {
        self.pool.lock().sized_for
    }

    #[cfg(test)]
    pub(crate) fn set_sizing(&self, change: impl FnOnce(&mut Sizing)) {
        change(&mut self.pool.lock().sizing);
    }

    #[cfg(test)]
    pub(crate) fn set_watermarks(&self, watermarks: Watermarks) {
        self.set_sizing(|sizing| sizing.watermarks = watermarks);
    }

    /// Returns whether free frames are so few that reclaim should start.
    pub(crate) fn is_short(&self) -> bool {
        let low = {
            let pool = self.pool.lock();
            let Some(allocator) = &pool.allocator else { return false };
            if allocator.statistics().free >= pool.sizing.watermarks.low {
                return false; // no matter what the frame caches hold
            }
            pool.sizing.watermarks.low
        };
        self.statistics().free < low
    }

    /// Returns whether so many frames can be handed out without making free frames few.
    pub(crate) fn can_spare(&self, frames: FrameCount) -> bool {
        let needed = self.watermarks().low.saturating_add(FrameCount(frames.0 - 1));
        let in_pool =
            self.pool.lock().allocator.as_ref().map_or(FrameCount::ZERO, |allocator| allocator.statistics().free);
        in_pool >= needed || self.statistics().free >= needed
    }

    /// Returns how many frames to reclaim so that there are enough again; zero while there are
    /// enough.
    pub(crate) fn missing_to_high(&self) -> FrameCount {
        let (free, watermarks) = (self.statistics().free, self.watermarks());
        if free < watermarks.low { watermarks.high.saturating_sub(free) } else { FrameCount::ZERO }
    }

    /// Returns the metrics, frame caches included.
    pub(crate) fn statistics(&self) -> FrameStatistics {
        let frame_caches = self.lock_frame_caches();
        let free = frame_caches.iter().map(|frame_cache| frame_cache.frames()).sum();
        let committed = frame_caches.iter().map(|frame_cache| frame_cache.commit_charges()).sum();
        let pool = self.pool.lock();
        pool.allocator
            .as_ref()
            .map_or_else(FrameStatistics::default, |allocator| allocator.statistics_with(free, committed))
    }

    /// Recounts the accounts, frame caches included.
    ///
    /// # Errors
    /// Returns the first disagreement, as a sentence.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        if self.pool.lock().allocator.is_none() {
            return Ok(());
        }
        self.exactly(|allocator| allocator.validate())
    }

    fn frame_cache(&self) -> &SpinLock<FrameCache> {
        // If the thread moves to another CPU meanwhile, it uses the frame cache of this CPU, which
        // is safe because each cache has a lock.
        &self.frame_caches[cpu::index()].0
    }

    fn lock_frame_caches(&self) -> [SpinGuard<'_, FrameCache>; MAX_CPUS] {
        self.frame_caches.each_ref().map(|frame_cache| frame_cache.0.lock())
    }

    /// Calls `act` with the allocator alone; `None` before there is one.
    fn pool<R>(&self, act: impl FnOnce(&mut FrameAllocator) -> R) -> Option<R> {
        let mut pool = self.pool.lock();
        pool.allocator.as_ref()?;
        Some(self.act(&mut pool, act))
    }

    fn existing_pool<R>(&self, act: impl FnOnce(&mut FrameAllocator) -> R) -> R {
        self.act(&mut self.pool.lock(), act)
    }

    /// Asks the allocator with all frame caches emptied and locked, so that it has every free
    /// frame.
    fn exactly<R>(&self, act: impl FnOnce(&mut FrameAllocator) -> R) -> R {
        let mut frame_caches = self.lock_frame_caches();
        let mut pool = self.pool.lock();
        let allocator = pool.existing();
        for frame_cache in &mut frame_caches {
            allocator.drain(frame_cache, usize::MAX);
            if let Some(block) = frame_cache.take_committed_huge() {
                allocator.free_committed(block);
            }
        }
        self.act(&mut pool, act)
    }

    fn act<R>(&self, pool: &mut Pool, act: impl FnOnce(&mut FrameAllocator) -> R) -> R {
        let allocator = pool.existing();
        let result = act(allocator);
        let (is_tight, ballooned) = (allocator.is_tight(), allocator.ballooned());
        if is_tight != self.is_tight.load(Ordering::Relaxed) {
            self.is_tight.store(is_tight, Ordering::Relaxed);
        }
        if ballooned != pool.sized_for {
            pool.resize();
        }
        result
    }
}

#[cfg(test)]
mod tests;
