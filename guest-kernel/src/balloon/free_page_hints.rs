//! Free page hints: a host that migrates the guest learns which memory is free, and need not copy
//! it.
//!
//! Hinted huge frames belong to the hinter until the host is done, so that nothing is written to
//! them. They go back at once when a thread of the guest waits for memory: a page that is written
//! afterwards is copied like any other.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES, to_usize};
use allocator_api2::vec::Vec;

use super::free_pages::range_of;
use super::signals::SIGNALS;
use crate::drivers::balloon::device::{Lost, MAX_RANGES};
use crate::drivers::balloon::hint_session::{HintSession, HintStep, STOP};
use crate::drivers::balloon::start::Device;
use crate::mm::{Block, FRAMES, KernelHeap, slow_path};
use crate::time::Instant;

/// The most huge frames that are held.
const MAX_HELD: usize = 8192;
/// The part of the free memory that is not hinted, so that the guest can go on.
const KEPT_DIVISOR: u64 = 4;
/// The time in which the host notes a batch of hints.
const REST_NS: u64 = 1_000_000;

/// The hinter of free memory.
#[derive(Debug)]
pub(super) struct FreePageHinter {
    session: HintSession,
    held: Vec<Block, KernelHeap>,
    /// How many huge frames may be held in this answer.
    limit: usize,
}

impl FreePageHinter {
    pub(super) fn new() -> Self {
        Self { session: HintSession::default(), held: Vec::new_in(KernelHeap), limit: 0 }
    }

    /// Frees all that is held, as the session is over.
    pub(super) fn stop(&mut self) {
        self.release();
        self.session = HintSession::default();
    }

    /// Does what the host's command asks for. Returns when more is due, if it is.
    ///
    /// # Errors
    /// [`Lost`].
    pub(super) fn serve(&mut self, device: &mut Device, now: Instant) -> Result<Option<Instant>, Lost> {
        let Some(command) = device.hint_command() else { return Ok(None) };
        let is_needed = SIGNALS.wanted() > FrameCount::ZERO && !self.held.is_empty();
        if is_needed {
            self.release();
            self.limit = 0; // the rest of this answer is empty
        }
        if !device.has_noted_hints()? {
            return Ok(Some(now.after(REST_NS)));
        }
        let mut step = self.session.next(command);
        if step == HintStep::Hint {
            let count = self.take_free_memory();
            if count > 0 {
                device.hint(self.held[self.held.len() - count..].iter().map(range_of))?;
            } else {
                step = self.session.exhausted();
            }
        }
        match step {
            HintStep::Nothing => return Ok(None),
            HintStep::Begin(number) => {
                let free = FRAMES.backed_free().0 / HUGE_FRAMES;
                self.limit = (self.held.len() + to_usize(free - free.div_ceil(KEPT_DIVISOR))).min(MAX_HELD);
                device.send_hint_number(number)?;
            }
            HintStep::Hint => {}
            HintStep::End => device.send_hint_number(STOP)?,
            HintStep::Release => self.release(),
        }
        Ok(Some(now.after(REST_NS)))
    }

    /// Takes a batch of free huge frames. Returns how many.
    fn take_free_memory(&mut self) -> usize {
        let before = self.held.len();
        while self.held.len() < self.limit.min(before + MAX_RANGES)
            && self.held.try_reserve(1).is_ok()
            && let Some(block) = FRAMES.take_backed()
        {
            self.held.push(block);
        }
        self.publish();
        self.held.len() - before
    }

    fn release(&mut self) {
        let freed = FrameCount(self.held.len() as u64 * HUGE_FRAMES);
        while let Some(block) = self.held.pop() {
            FRAMES.free(block);
        }
        self.publish();
        if freed > FrameCount::ZERO {
            slow_path::frames_freed(freed);
        }
    }

    fn publish(&self) {
        SIGNALS.set_hinted(FrameCount(self.held.len() as u64 * HUGE_FRAMES));
    }
}
