//! The frame allocator as the kernel uses it, from any CPU: the [`FrameAllocator`] behind its lock,
//! and in front of it a [`FrameCache`] for each CPU.
//!
//! Pages are taken from frame caches and freed into them; everything else goes straight to the
//! allocator, and so do huge frames where the frame cache has none, or has one already. What frame
//! caches hold is free and committed like everything else: whoever is refused by the allocator
//! alone ([`Frames::exactly`]) has all frame caches emptied and asks again, so no answer depends on
//! who has cached what. Lock order: frame caches by their numbers, then the allocator.

use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::frame_state::HugeFrameWord;
use aerostat_abi::units::{FrameCount, FrameNumber};

use super::block::{Block, BlockSize, Contents};
use super::compaction::policy::Occupancy;
use super::frame_allocator::{FrameAllocator, FrameStatistics, Purpose};
use super::frame_cache::{BATCH, FrameCache};
use super::poison;
use super::sizing::Sizing;
use super::watermarks::Watermarks;
use crate::config::MAX_CPUS;
use crate::cpu;
use crate::sync::{SpinGuard, SpinLock};

/// All frames: empty, and so refusing everything, until [`Frames::start`].
#[derive(Debug)]
pub(crate) struct Frames {
    frame_caches: [CpuFrameCache; MAX_CPUS],
    pool: SpinLock<Pool>,
    /// Nothing is to be cached now; see [`FrameAllocator::is_tight`].
    is_tight: AtomicBool,
}

/// A frame cache in cache lines of its own, two of which the processor may fetch at once.
#[derive(Debug)]
#[repr(align(128))]
struct CpuFrameCache(SpinLock<FrameCache>);

#[derive(Debug)]
struct Pool {
    allocator: Option<FrameAllocator>,
    /// Frames of the machine.
    total: FrameCount,
    /// Whether there is anything to reclaim.
    can_reclaim: bool,
    /// What follows from the guest's size, and the balloon for which that is so.
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

    /// Recomputes whatever depends on the guest's size: called where that changes.
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
            frame_caches: [const { CpuFrameCache(SpinLock::new(FrameCache::EMPTY)) }; MAX_CPUS],
            pool: SpinLock::new(Pool::EMPTY),
            is_tight: AtomicBool::new(false),
        }
    }

    /// Gives it what it allocates from, on a machine of `total` frames.
    pub(crate) fn start(&self, allocator: FrameAllocator, total: FrameCount) {
        *self.pool.lock() = Pool { allocator: Some(allocator), total, ..Pool::EMPTY };
    }

    /// Pages can be reclaimed from now on.
    pub(crate) fn begin_reclaim(&self) {
        let mut pool = self.pool.lock();
        pool.can_reclaim = true;
        pool.resize();
    }

    /// Forgets everything: for the next test machine.
    #[cfg(test)]
    pub(crate) fn stop(&self) {
        if self.pool.lock().allocator.is_some() {
            self.exactly(|_| ());
        }
        *self.pool.lock() = Pool::EMPTY;
        self.is_tight.store(false, Ordering::Relaxed);
    }

    /// Frames drawn from commit charges that have ended since.
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

    /// Frames that would be open to a purpose if all offers were withdrawn.
    pub(crate) fn within_reach_of(&self, purpose: Purpose) -> FrameCount {
        FrameCount(self.exactly(|allocator| allocator.within_reach_of(purpose)))
    }

    /// A frame to move a page into; see [`FrameAllocator::replacement`].
    pub(crate) fn replacement(&self) -> Option<Block> {
        self.pool(FrameAllocator::replacement)?.map(poison::checked)
    }

    /// Takes a block back; the host still backs it.
    pub(crate) fn free(&self, block: Block) {
        poison::fill(&block);
        self.existing_pool(|allocator| allocator.free(block));
    }

    /// Takes the frame of a page back, which the next page on this CPU may get.
    pub(crate) fn free_page(&self, block: Block) {
        self.free_cached(block, FrameCache::put, FrameAllocator::free);
    }

    /// Takes a block back that was drawn from a commit charge and not used, or whose page was put
    /// elsewhere: the commit charge is made again.
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

    /// The same for a page table, whose frame is not for pages.
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

    /// Takes a block back that was for the balloon and that the host has not had.
    pub(crate) fn free_ballooned(&self, block: Block) {
        poison::fill(&block);
        self.existing_pool(|allocator| allocator.deflate(block, Contents::Unknown));
    }

    /// Takes a block of the balloon back that the host has had in between.
    pub(crate) fn free_unbacked(&self, block: Block) {
        self.existing_pool(|allocator| allocator.deflate(block, Contents::Zero));
    }

    /// Takes a frame back that counts as swap headroom.
    pub(crate) fn free_in_headroom(&self, block: Block) {
        poison::fill(&block);
        self.existing_pool(|allocator| allocator.free_in_headroom(block));
    }

    pub(crate) fn add_headroom(&self, frames: FrameCount) {
        self.existing_pool(|allocator| allocator.add_headroom(frames));
    }

    pub(crate) fn remove_headroom(&self, frames: FrameCount) {
        self.existing_pool(|allocator| allocator.remove_headroom(frames));
    }

    /// Commit charges `frames` frames.
    ///
    /// # Errors
    /// How many frames are missing; nothing is committed then.
    pub(crate) fn charge_commit(&self, frames: FrameCount) -> Result<(), FrameCount> {
        match self.pool(|allocator| allocator.charge_commit(frames)) {
            None => Err(frames),
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => self.exactly(|allocator| allocator.charge_commit(frames)),
        }
    }

    /// Takes back what is left of a commit charge.
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

    /// The words of all huge frames from address 0 on, for the monitor to see.
    pub(crate) fn states(&self) -> &'static [HugeFrameWord] {
        self.existing_pool(|allocator| allocator.states())
    }

    /// The monitor sees the words from now on, and may take what is offered.
    pub(crate) fn begin_offers(&self) {
        self.existing_pool(FrameAllocator::begin_offers);
    }

    /// Offers the monitor what can be spared by now.
    pub(crate) fn offer_spare(&self) {
        self.existing_pool(FrameAllocator::offer_spare);
    }

    /// A huge frame that the monitor has taken, for the balloon.
    pub(crate) fn collect_reclaimed(&self) -> Option<Block> {
        self.existing_pool(FrameAllocator::collect_reclaimed)
    }

    /// Frames that the monitor has taken and nobody has collected.
    pub(crate) fn taken(&self) -> FrameCount {
        self.pool(FrameAllocator::taken).unwrap_or_default()
    }

    /// Begins to vacate huge frames; see [`FrameAllocator::vacate`].
    pub(crate) fn vacate(&self, wanted: usize) -> usize {
        self.exactly(|allocator| allocator.vacate(wanted))
    }

    pub(crate) fn is_vacating(&self) -> bool {
        self.existing_pool(|allocator| allocator.is_vacating())
    }

    /// Whether what is in `frame` is to be moved.
    pub(crate) fn is_vacated(&self, frame: FrameNumber) -> bool {
        self.existing_pool(|allocator| allocator.is_vacated(frame))
    }

    pub(crate) fn end_vacating(&self) {
        self.existing_pool(FrameAllocator::end_vacating);
    }

    /// Frames in wholly free huge frames that the host backs.
    pub(crate) fn backed_free(&self) -> FrameCount {
        self.pool(|allocator| allocator.backed_free()).unwrap_or_default()
    }

    /// Huge frames that are wholly free, and how much of the others is in use.
    pub(crate) fn huge_frames(&self) -> (usize, Occupancy) {
        self.exactly(|allocator| (allocator.whole_huge_frames(), allocator.occupancy()))
    }

    /// What follows from the guest's size now.
    pub(crate) fn sizing(&self) -> Sizing {
        self.pool.lock().sizing
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        self.sizing().watermarks
    }

    /// Frames that the balloon has, as far as they are collected.
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

    /// Whether free frames are so few that some should be made.
    pub(crate) fn is_short(&self) -> bool {
        let low = {
            let pool = self.pool.lock();
            let Some(allocator) = &pool.allocator else { return false };
            if allocator.statistics().free >= pool.sizing.watermarks.low {
                return false; // whatever the frame caches hold
            }
            pool.sizing.watermarks.low
        };
        self.statistics().free < low
    }

    /// Whether so many frames can be handed out without making them few.
    pub(crate) fn can_spare(&self, frames: FrameCount) -> bool {
        let needed = self.watermarks().low.saturating_add(FrameCount(frames.0 - 1));
        let in_pool =
            self.pool.lock().allocator.as_ref().map_or(FrameCount::ZERO, |allocator| allocator.statistics().free);
        in_pool >= needed || self.statistics().free >= needed
    }

    /// Frames to be made free so that there are enough again; none while there are.
    pub(crate) fn missing_to_high(&self) -> FrameCount {
        let (free, watermarks) = (self.statistics().free, self.watermarks());
        if free < watermarks.low { watermarks.high.saturating_sub(free) } else { FrameCount::ZERO }
    }

    /// The metrics, frame caches included.
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
    /// The first disagreement, as a sentence.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        if self.pool.lock().allocator.is_none() {
            return Ok(());
        }
        self.exactly(|allocator| allocator.validate())
    }

    fn frame_cache(&self) -> &SpinLock<FrameCache> {
        // Should the thread be moved to another CPU meanwhile, it uses the frame cache of this one:
        // that has a lock, too.
        &self.frame_caches[cpu::index()].0
    }

    fn lock_frame_caches(&self) -> [SpinGuard<'_, FrameCache>; MAX_CPUS] {
        self.frame_caches.each_ref().map(|frame_cache| frame_cache.0.lock())
    }

    /// Asks the allocator alone; `None` before there is one.
    fn pool<R>(&self, act: impl FnOnce(&mut FrameAllocator) -> R) -> Option<R> {
        let mut pool = self.pool.lock();
        pool.allocator.as_ref()?;
        Some(self.act(&mut pool, act))
    }

    fn existing_pool<R>(&self, act: impl FnOnce(&mut FrameAllocator) -> R) -> R {
        self.act(&mut self.pool.lock(), act)
    }

    /// Asks the allocator when it has everything: with all frame caches empty, and locked.
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
