//! Sessions: opened with HELLO, brought to one view of the balloon with LIST, and ended by either
//! side.
//!
//! Ballooned frames stay ballooned when a session ends. So after HELLO the driver compares the
//! monitor's list with its page list, one page of the list at a time. A frame that only the page
//! list has is the guest's. A frame that only the list has is put into the page list if it is free,
//! like the initial balloon when the guest starts. Otherwise the guest uses it, and the driver asks
//! the monitor to deflate it. If the monitor refuses, the frame is *disputed*: the driver counts it
//! as ballooned, and asks again when the target allows more.

use core::ops::Range;

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES, HUGE_ORDER, MAX_ORDER};

use super::{Driver, Next, Step, refusal};
use crate::backoff::Backoff;
use crate::sides::{Block as _, Listed, Memory, Monitor, PageList};
use crate::state::{Failure, StallReason};

/// The most disputed frames in one call.
const DISPUTED_AT_ONCE: usize = 64;

/// How far a session is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The monitor answers HELLO only.
    Ended,
    /// The driver has compared the monitor's list up to a frame.
    Listing {
        /// The first frame that is not compared yet.
        from: FrameNumber,
    },
    /// Both sides agree on what is in the balloon.
    Open,
}

/// The session between driver and monitor.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) stage: Stage,
    backoff: Backoff,
    /// Frames that the monitor counts as ballooned although they are not in the page list.
    pub(super) disputed: FrameCount,
}

impl Session {
    pub(super) fn new() -> Self {
        Self { stage: Stage::Ended, backoff: Backoff::default(), disputed: FrameCount::ZERO }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Ends the session after a failure. Returns when to try again.
    pub(super) fn fail(&mut self, now_ns: u64) -> u64 {
        self.stage = Stage::Ended;
        self.backoff.failed(now_ns)
    }

    /// Notes that the monitor moved memory in this session.
    pub(super) fn succeeded(&mut self) {
        self.backoff.succeeded();
    }

    /// Begins to compare the monitor's list.
    pub(super) fn list_again(&mut self) {
        self.stage = Stage::Listing { from: FrameNumber(0) };
    }
}

/// Frames to deflate that are not in the page list, as a batch.
struct Disputed {
    entries: [Entry; DISPUTED_AT_ONCE],
    count: usize,
}

impl<L: PageList> Driver<L> {
    /// Makes the next call on the way to an open session.
    pub(super) fn open_session(&mut self, step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>) -> Next {
        if let Some(until_ns) = self.session.backoff.pending(step.memory.now_ns()) {
            return self.wait(StallReason::HostSilent, until_ns);
        }
        match self.session.stage {
            Stage::Ended => self.negotiate(step),
            Stage::Listing { from } => self.compare(from, step),
            Stage::Open => Next::Continue,
        }
    }

    fn negotiate(&mut self, step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>) -> Next {
        let now_ns = step.memory.now_ns();
        let reply = step.monitor.negotiate();
        self.note_reply(reply, now_ns);
        match reply.map(|reply| reply.status) {
            Some(Status::Ok) => {
                self.metrics.sessions += 1;
                self.session.list_again();
                return Next::Continue;
            }
            // The monitor is in a session that another driver opened.
            Some(Status::SessionExists) => drop(step.monitor.reset()),
            _ => {}
        }
        let until_ns = self.session.fail(now_ns);
        self.wait(refusal(reply), until_ns)
    }

    /// Compares one page of the monitor's list, from frame `from` on.
    fn compare(&mut self, from: FrameNumber, step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>) -> Next {
        if from == FrameNumber(0) {
            self.session.disputed = FrameCount::ZERO;
        }
        let mut entries = [Entry::pending(FrameNumber(0), 0); CAPACITY];
        let listed = step.monitor.list(from, &mut entries);
        let now_ns = step.memory.now_ns();
        self.note_reply(listed.map(|listed| listed.reply), now_ns);
        if self.session.stage == Stage::Ended {
            return Next::Continue;
        }
        let Some(listed) = listed.filter(|listed| listed.reply.status == Status::Ok) else {
            let until_ns = self.session.fail(now_ns);
            return self.wait(refusal(listed.map(|listed| listed.reply)), until_ns);
        };
        let entries = &entries[..listed.count.min(CAPACITY)];
        if !is_sound(entries, from, listed, self.extent.end) {
            self.metrics.last_failure = Some(Failure::List);
            let until_ns = self.session.fail(now_ns);
            return self.wait(StallReason::HostSilent, until_ns);
        }
        let end = listed.next.unwrap_or(self.extent.end);
        self.adopt(entries, from..end, step);
        if self.session.stage == Stage::Ended {
            return Next::Continue;
        }
        if let Some(from) = listed.next {
            self.session.stage = Stage::Listing { from };
            return Next::Continue;
        }
        self.session.stage = Stage::Open;
        step.monitor.enable_features();
        if self.disputed() > FrameCount::ZERO {
            self.deflate_backoff.failed(now_ns);
        }
        Next::Continue
    }

    /// Makes the page list agree with the monitor's entries for `range`.
    fn adopt(
        &mut self,
        entries: &[Entry],
        range: Range<FrameNumber>,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) {
        let mut disputed = Disputed { entries: [Entry::pending(FrameNumber(0), 0); DISPUTED_AT_ONCE], count: 0 };
        let mut at = range.start;
        for entry in entries {
            self.free_unlisted(at..entry.frame, step.memory);
            self.adopt_entry(*entry, &mut disputed, step);
            at = end_of(entry);
        }
        self.free_unlisted(at..range.end, step.memory);
        self.deflate_disputed(&mut disputed, step);
    }

    /// Frees the blocks of the page list within `range`, none of which the monitor has listed.
    fn free_unlisted(&mut self, range: Range<FrameNumber>, memory: &mut impl Memory<Block = L::Block>) {
        let mut at = range.start;
        while at < range.end
            && let Some(block) = self.page_list.remove_within(at..range.end)
        {
            at = FrameNumber(block.first().0 + block.size().frames());
            memory.free_unbacked(block);
        }
    }

    /// Makes sure that the page list has the frames of an entry, or that they are disputed.
    fn adopt_entry(
        &mut self,
        entry: Entry,
        disputed: &mut Disputed,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) {
        if entry.order >= HUGE_ORDER && self.adopt_run(entry, step.memory) {
            return;
        }
        let mut at = entry.frame;
        while at < end_of(&entry) {
            if entry.order >= HUGE_ORDER && self.adopt_block(at, BlockSize::Huge, step.memory) {
                at = FrameNumber(at.0 + HUGE_FRAMES);
                continue;
            }
            if !self.adopt_block(at, BlockSize::Frame, step.memory) {
                disputed.entries[disputed.count] = Entry::pending(at, 0);
                disputed.count += 1;
                if disputed.count == DISPUTED_AT_ONCE {
                    self.deflate_disputed(disputed, step);
                }
            }
            at = FrameNumber(at.0 + 1);
        }
    }

    /// Puts an entry's huge frames into the page list if all of them are free, as in the first
    /// session, and the guest stays above its floor. Returns whether it did.
    fn adopt_run(&mut self, entry: Entry, memory: &mut impl Memory<Block = L::Block>) -> bool {
        if self.size().saturating_sub(entry.count()) < self.extent.floor {
            return false;
        }
        memory.claim_run(entry.frame..end_of(&entry)).map(|run| self.page_list.insert_run(run)).is_some()
    }

    /// Puts a block into the page list if it is free and the guest stays above its floor. Returns
    /// whether the page list has the block.
    fn adopt_block(&mut self, first: FrameNumber, size: BlockSize, memory: &mut impl Memory<Block = L::Block>) -> bool {
        if !first.is_aligned(size.order()) {
            return false;
        }
        if self.page_list.contains(first, size) {
            return true;
        }
        let is_above_floor = self.size().saturating_sub(FrameCount(size.frames())) >= self.extent.floor;
        let claimed = is_above_floor.then(|| memory.claim(first, size)).flatten();
        claimed.map(|block| self.page_list.insert(block)).is_some()
    }

    /// Asks the monitor to deflate frames that the guest uses, and counts those that it refuses.
    fn deflate_disputed(
        &mut self,
        disputed: &mut Disputed,
        step: &mut Step<'_, impl Monitor, impl Memory<Block = L::Block>>,
    ) {
        let entries = &mut disputed.entries[..core::mem::take(&mut disputed.count)];
        if entries.is_empty() {
            return;
        }
        let reply = step.monitor.deflate(entries);
        self.note_reply(reply, step.memory.now_ns());
        let is_valid = reply.is_some_and(|reply| reply.status == Status::Ok);
        let refused = entries.iter().filter(|entry| !is_valid || entry.status != EntryStatus::Done).count();
        self.session.disputed = self.session.disputed.saturating_add(FrameCount(refused as u64));
    }
}

fn end_of(entry: &Entry) -> FrameNumber {
    FrameNumber(entry.frame.0 + entry.count().0)
}

/// Returns whether a page of the monitor's list, from frame `from` on, names ascending blocks of
/// memory, and is full unless it is the last.
fn is_sound(entries: &[Entry], from: FrameNumber, listed: Listed, memory_end: FrameNumber) -> bool {
    if listed.next.is_some() && entries.len() < CAPACITY {
        return false;
    }
    let end = listed.next.unwrap_or(memory_end);
    if from >= end || end > memory_end {
        return from == memory_end && entries.is_empty();
    }
    let mut at = from;
    entries.iter().all(|entry| {
        let is_block = entry.order <= MAX_ORDER && entry.frame.is_aligned(entry.order) && entry.frame >= at;
        // In this order, nothing is added before it is known to be small.
        let is_inside = is_block && entry.frame < end && end_of(entry) <= end;
        at = if is_inside { end_of(entry) } else { at };
        is_inside
    })
}
