//! Sessions: begun with HELLO, brought to one view of the balloon with LIST, and ended by either
//! side.
//!
//! What is given outlives a session. So after HELLO the driver goes through the monitor's list and
//! its page list side by side, a page of the list at a time. What the page list has and the list
//! has not is the guest's. What the list has and the page list has not is put into the page list if
//! it is free, as the initial balloon is at the start; otherwise the monitor is asked for it, since
//! somebody uses it. What it does not return is a *stray*: counted as given, asked for again when
//! the target allows more.

use core::ops::Range;

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES, HUGE_ORDER, MAX_ORDER};

use crate::driver::{Driver, Next, refusal};
use crate::sides::{Block as _, Memory, Monitor, PageList};
use crate::state::{Failure, StallReason};

/// Frames that are asked back at once.
const STRAYS_AT_ONCE: usize = 64;

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// Nothing but HELLO would be answered.
    Ended,
    /// The monitor's list has been gone through up to here.
    Listing { from: FrameNumber },
    /// Both sides know what is in the balloon.
    Open,
}

impl Session {
    /// Negotiated, nothing listed.
    pub(crate) const BEGUN: Self = Self::Listing { from: FrameNumber(0) };
}

/// Frames to be asked back that no block stands for.
struct Strays {
    entries: [Entry; STRAYS_AT_ONCE],
    count: usize,
}

impl<L: PageList> Driver<L> {
    /// Begins the first session, to the end of the monitor's list; says whether there is one.
    pub fn begin(&mut self, monitor: &mut impl Monitor, memory: &mut impl Memory<Block = L::Block>) -> bool {
        while self.session != Session::Open {
            if self.negotiate_session(monitor, memory) != Next::Continue {
                return false;
            }
        }
        true
    }

    /// Does the next thing on the way to an open session.
    pub(crate) fn negotiate_session(
        &mut self,
        monitor: &mut impl Monitor,
        memory: &mut impl Memory<Block = L::Block>,
    ) -> Next {
        if let Some(until_ns) = self.talking.pending(memory.now_ns()) {
            return self.wait(StallReason::HostSilent, until_ns);
        }
        match self.session {
            Session::Ended => self.negotiate(monitor, memory.now_ns()),
            Session::Listing { from } => self.list(from, monitor, memory),
            Session::Open => Next::Continue,
        }
    }

    fn negotiate(&mut self, monitor: &mut impl Monitor, now_ns: u64) -> Next {
        let reply = monitor.negotiate();
        self.hear(reply, now_ns);
        match reply.map(|reply| reply.status) {
            Some(Status::Ok) => {
                self.metrics.sessions += 1;
                self.session = Session::BEGUN;
                return Next::Continue;
            }
            // The monitor is in a session that this driver knows nothing of.
            Some(Status::SessionExists) => drop(monitor.reset()),
            _ => {}
        }
        let until_ns = self.talking.failed(now_ns);
        self.wait(refusal(reply), until_ns)
    }

    /// Goes through one page of the list.
    fn list(
        &mut self,
        from: FrameNumber,
        monitor: &mut impl Monitor,
        memory: &mut impl Memory<Block = L::Block>,
    ) -> Next {
        if from == FrameNumber(0) {
            self.strays = FrameCount::ZERO;
        }
        let mut entries = [Entry::pending(FrameNumber(0), 0); CAPACITY];
        let listed = monitor.list(from, &mut entries);
        let now_ns = memory.now_ns();
        self.hear(listed.map(|listed| listed.reply), now_ns);
        if self.session == Session::Ended {
            return Next::Continue;
        }
        let Some(listed) = listed.filter(|listed| listed.reply.status == Status::Ok) else {
            self.session = Session::Ended;
            let until_ns = self.talking.failed(now_ns);
            return self.wait(refusal(listed.map(|listed| listed.reply)), until_ns);
        };
        let entries = &entries[..listed.count.min(CAPACITY)];
        let end = listed.next.unwrap_or(self.extent.end);
        if !is_sound(entries, from..end, self.extent.end) || (listed.next.is_some() && entries.len() < CAPACITY) {
            self.metrics.last_failure = Some(Failure::List);
            self.session = Session::Ended;
            let until_ns = self.talking.failed(now_ns);
            return self.wait(StallReason::HostSilent, until_ns);
        }
        let mut strays = Strays { entries: [Entry::pending(FrameNumber(0), 0); STRAYS_AT_ONCE], count: 0 };
        let mut at = from;
        for entry in entries {
            self.free_unlisted(at..entry.frame, memory);
            self.agree(*entry, &mut strays, monitor, memory);
            at = end_of(entry);
        }
        self.free_unlisted(at..end, memory);
        self.ask_back(&mut strays, monitor, now_ns);
        if self.session == Session::Ended {
            return Next::Continue;
        }
        if let Some(from) = listed.next {
            self.session = Session::Listing { from };
            return Next::Continue;
        }
        self.session = Session::Open;
        monitor.begin_options();
        if self.strays > FrameCount::ZERO {
            self.taking.failed(now_ns);
        }
        Next::Continue
    }

    /// What the monitor does not list is the guest's.
    fn free_unlisted(&mut self, range: Range<FrameNumber>, memory: &mut impl Memory<Block = L::Block>) {
        let mut at = range.start;
        while at < range.end
            && let Some(block) = self.page_list.take_within(at..range.end)
        {
            at = FrameNumber(block.first().0 + block.size().frames());
            memory.free_unbacked(block);
        }
    }

    /// Sees to it that the page list has what the monitor lists.
    fn agree(
        &mut self,
        entry: Entry,
        strays: &mut Strays,
        monitor: &mut impl Monitor,
        memory: &mut impl Memory<Block = L::Block>,
    ) {
        let mut at = entry.frame;
        while at < end_of(&entry) {
            if entry.order >= HUGE_ORDER && self.has(at, BlockSize::Huge, memory) {
                at = FrameNumber(at.0 + HUGE_FRAMES);
                continue;
            }
            if !self.has(at, BlockSize::Frame, memory) {
                strays.entries[strays.count] = Entry::pending(at, 0);
                strays.count += 1;
                if strays.count == STRAYS_AT_ONCE {
                    self.ask_back(strays, monitor, memory.now_ns());
                }
            }
            at = FrameNumber(at.0 + 1);
        }
    }

    /// Whether the page list has a block, or now has got it from among what is free.
    fn has(&mut self, first: FrameNumber, size: BlockSize, memory: &mut impl Memory<Block = L::Block>) -> bool {
        if !first.is_aligned(size.order()) {
            return false;
        }
        if self.page_list.contains(first, size) {
            return true;
        }
        let is_above_floor = self.size().saturating_sub(FrameCount(size.frames())) >= self.extent.floor;
        let claimed = is_above_floor.then(|| memory.claim(first, size)).flatten();
        claimed.map(|block| self.page_list.put(block)).is_some()
    }

    fn ask_back(&mut self, strays: &mut Strays, monitor: &mut impl Monitor, now_ns: u64) {
        let entries = &mut strays.entries[..core::mem::take(&mut strays.count)];
        if entries.is_empty() {
            return;
        }
        let reply = monitor.deflate(entries);
        self.hear(reply, now_ns);
        let is_valid = reply.is_some_and(|reply| reply.status == Status::Ok);
        let kept = entries.iter().filter(|entry| !is_valid || entry.status != EntryStatus::Done).count();
        self.strays = self.strays.saturating_add(FrameCount(kept as u64));
    }
}

fn end_of(entry: &Entry) -> FrameNumber {
    FrameNumber(entry.frame.0 + entry.count().0)
}

/// Whether a page of a list names blocks of memory within `range`, ascending and apart.
fn is_sound(entries: &[Entry], range: Range<FrameNumber>, memory_end: FrameNumber) -> bool {
    if range.is_empty() || range.end > memory_end {
        return range.start == memory_end && entries.is_empty();
    }
    let mut at = range.start;
    entries.iter().all(|entry| {
        let is_block = entry.order <= MAX_ORDER && entry.frame.is_aligned(entry.order) && entry.frame >= at;
        // Ordered so that nothing is added up before it is known to be small.
        let is_inside = is_block && entry.frame < range.end && end_of(entry) <= range.end;
        at = if is_inside { end_of(entry) } else { at };
        is_inside
    })
}
