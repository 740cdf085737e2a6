//! What the tests put the driver between: a guest's memory, kept as one flag a frame, a page list
//! of the same make, and hosts of every kind.

extern crate std;

use core::cell::Cell;
use core::ops::Range;
use std::rc::Rc;
use std::vec::Vec;

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};

use crate::compaction::Compactable;
use crate::sides::{Block, Listed, Memory, Monitor, PageList, Reply, Room};

/// Pages that go in one step of making room.
const ROOM: usize = 64;

/// Time that passes only when somebody spends it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Rc<Cell<u64>>);

impl Clock {
    pub(crate) fn now_ns(&self) -> u64 {
        self.0.get()
    }

    pub(crate) fn spend(&self, nanoseconds: u64) {
        self.0.set(self.0.get() + nanoseconds);
    }

    pub(crate) fn wait_until(&self, moment_ns: u64) {
        self.0.set(self.0.get().max(moment_ns));
    }
}

/// An owned block.
#[derive(Debug)]
pub(crate) struct TestBlock {
    first: FrameNumber,
    size: BlockSize,
}

impl TestBlock {
    fn frames(&self) -> Range<u64> {
        self.first.0..self.first.0 + self.size.frames()
    }
}

impl Block for TestBlock {
    fn first(&self) -> FrameNumber {
        self.first
    }

    fn size(&self) -> BlockSize {
        self.size
    }
}

/// A set of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameBook {
    members: Vec<bool>,
    /// Members of each huge frame.
    counts: Vec<u64>,
}

impl FrameBook {
    pub(crate) fn empty(total: FrameCount) -> Self {
        let huge = to_usize(total.0 / HUGE_FRAMES);
        Self { members: std::vec![false; to_usize(total.0)], counts: std::vec![0; huge] }
    }

    pub(crate) fn full(total: FrameCount) -> Self {
        let huge = to_usize(total.0 / HUGE_FRAMES);
        Self { members: std::vec![true; to_usize(total.0)], counts: std::vec![HUGE_FRAMES; huge] }
    }

    pub(crate) fn len(&self) -> FrameCount {
        FrameCount(self.counts.iter().sum())
    }

    pub(crate) fn contains(&self, frame: u64) -> bool {
        self.members[to_usize(frame)]
    }

    pub(crate) fn insert(&mut self, frame: u64) {
        assert!(!core::mem::replace(&mut self.members[to_usize(frame)], true), "frame {frame} is in two places");
        self.counts[to_usize(frame / HUGE_FRAMES)] += 1;
    }

    /// Takes a frame out; says whether it was there.
    pub(crate) fn remove(&mut self, frame: u64) -> bool {
        let was_there = core::mem::replace(&mut self.members[to_usize(frame)], false);
        self.counts[to_usize(frame / HUGE_FRAMES)] -= u64::from(was_there);
        was_there
    }

    /// Takes the lowest block of a size out; frames out of broken huge frames first.
    pub(crate) fn take(&mut self, size: BlockSize) -> Option<TestBlock> {
        let whole = self.counts.iter().position(|count| *count == HUGE_FRAMES);
        let partial = self.counts.iter().position(|count| (1..HUGE_FRAMES).contains(count));
        let huge = if size == BlockSize::Huge { whole? } else { partial.or(whole)? } as u64;
        let first = (huge * HUGE_FRAMES..(huge + 1) * HUGE_FRAMES).find(|frame| self.contains(*frame))?;
        self.take_at(FrameNumber(first), size)
    }

    /// Takes one particular block out, if all of it is there.
    pub(crate) fn take_at(&mut self, first: FrameNumber, size: BlockSize) -> Option<TestBlock> {
        let block = TestBlock { first, size };
        if !block.frames().all(|frame| self.contains(frame)) {
            return None;
        }
        block.frames().for_each(|frame| assert!(self.remove(frame)));
        Some(block)
    }

    pub(crate) fn put(&mut self, block: &TestBlock) {
        block.frames().for_each(|frame| self.insert(frame));
    }

    /// Ascending blocks, no larger than a huge frame.
    fn blocks(&self, from: u64) -> impl Iterator<Item = Entry> {
        let mut at = from;
        core::iter::from_fn(move || {
            let first = (at..self.members.len() as u64).find(|frame| self.contains(*frame))?;
            let is_whole =
                first.is_multiple_of(HUGE_FRAMES) && self.counts[to_usize(first / HUGE_FRAMES)] == HUGE_FRAMES;
            let size = if is_whole { BlockSize::Huge } else { BlockSize::Frame };
            at = first + size.frames();
            Some(Entry { frame: FrameNumber(first), order: size.order(), status: EntryStatus::Done })
        })
    }
}

impl PageList for FrameBook {
    type Block = TestBlock;

    fn put(&mut self, block: TestBlock) {
        Self::put(self, &block);
    }

    fn take(&mut self, frames: FrameCount) -> Option<TestBlock> {
        let huge = if frames.0 >= HUGE_FRAMES { Self::take(self, BlockSize::Huge) } else { None };
        huge.or_else(|| (frames.0 > 0).then(|| Self::take(self, BlockSize::Frame)).flatten())
    }

    fn take_within(&mut self, range: Range<FrameNumber>) -> Option<TestBlock> {
        let first = FrameNumber((range.start.0..range.end.0).find(|frame| self.contains(*frame))?);
        let fits = first.is_aligned(BlockSize::Huge.order()) && first.0 + HUGE_FRAMES <= range.end.0;
        let huge = if fits { self.take_at(first, BlockSize::Huge) } else { None };
        huge.or_else(|| self.take_at(first, BlockSize::Frame))
    }

    fn contains(&self, first: FrameNumber, size: BlockSize) -> bool {
        (first.0..first.0 + size.frames()).all(|frame| self.contains(frame))
    }

    fn size(&self) -> FrameCount {
        self.len()
    }
}

/// A guest's memory, of which some frames are kept for its kernel.
#[derive(Debug)]
pub(crate) struct TestMemory {
    pub(crate) clock: Clock,
    pub(crate) free: FrameBook,
    kernel_floor: FrameCount,
    /// What the rest of the guest uses.
    pub(crate) in_use: Vec<TestBlock>,
    /// Whether that can be put elsewhere, and what a step of it costs.
    pub(crate) can_swap: bool,
    pub(crate) room_ns: u64,
    pub(crate) is_thrashing: bool,
    /// Somebody waits.
    pub(crate) is_short: bool,
    /// Whether pages can be moved, and what moving one costs.
    pub(crate) move_ns: Option<u64>,
    /// What the monitor has taken by itself.
    pub(crate) reclaimed: Vec<TestBlock>,
    /// Frames that came back from the monitor.
    pub(crate) came_back: u64,
}

impl TestMemory {
    pub(crate) fn new(total: FrameCount, kernel_floor: FrameCount, clock: Clock) -> Self {
        Self {
            clock,
            free: FrameBook::full(total),
            kernel_floor,
            in_use: Vec::new(),
            can_swap: false,
            room_ns: 0,
            is_thrashing: false,
            is_short: false,
            move_ns: None,
            reclaimed: Vec::new(),
            came_back: 0,
        }
    }

    /// The rest of the guest uses so many frames more, as many as there are.
    pub(crate) fn use_frames(&mut self, frames: u64) {
        let free = &mut self.free;
        self.in_use.extend(core::iter::from_fn(|| free.take(BlockSize::Frame)).take(to_usize(frames)));
    }

    pub(crate) fn end_use(&mut self, frames: u64) {
        let kept = self.in_use.len().saturating_sub(to_usize(frames));
        self.in_use.drain(kept..).for_each(|block| self.free.put(&block));
    }

    fn open(&self) -> u64 {
        self.free.len().saturating_sub(self.kernel_floor).0
    }

    /// Used frames of the least used huge frame that is in use.
    fn victim(&self) -> Option<(u64, u64)> {
        let used = self.free.counts.iter().enumerate().map(|(huge, count)| (HUGE_FRAMES - count, huge as u64));
        let is_all_there = |huge: u64, used: u64| {
            let in_it = self.in_use.iter().filter(|block| block.first.0 / HUGE_FRAMES == huge).count();
            in_it as u64 == used
        };
        used.filter(|&(used, huge)| used > 0 && used < HUGE_FRAMES && is_all_there(huge, used)).min()
    }
}

impl Memory for TestMemory {
    type Block = TestBlock;

    fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    fn allocate(&mut self, size: BlockSize) -> Option<TestBlock> {
        (self.open() >= size.frames()).then(|| self.free.take(size)).flatten()
    }

    fn claim(&mut self, first: FrameNumber, size: BlockSize) -> Option<TestBlock> {
        (self.open() >= size.frames()).then(|| self.free.take_at(first, size)).flatten()
    }

    fn collect_reclaimed(&mut self) -> Option<TestBlock> {
        self.reclaimed.pop()
    }

    fn free(&mut self, block: TestBlock) {
        self.free.put(&block);
    }

    fn free_unbacked(&mut self, block: TestBlock) {
        self.came_back += block.size.frames();
        self.free.put(&block);
    }

    fn compactable(&mut self, wanted: usize) -> Compactable {
        let partly_free: u64 = self.free.counts.iter().filter(|count| **count < HUGE_FRAMES).sum();
        match self.victim().filter(|_| self.move_ns.is_some() && partly_free >= HUGE_FRAMES && wanted > 0) {
            Some((pages, _)) if self.open() >= HUGE_FRAMES => Compactable { huge_frames: 1, pages },
            _ => Compactable::default(),
        }
    }

    fn compact(&mut self, _wanted: usize) -> usize {
        let (Some((_, victim)), Some(move_ns)) = (self.victim(), self.move_ns) else { return 0 };
        for place in 0..self.in_use.len() {
            if self.in_use[place].first.0 / HUGE_FRAMES == victim {
                let partial = |huge: u64| huge != victim && self.free.counts[to_usize(huge)] < HUGE_FRAMES;
                let all = 0..self.free.members.len() as u64;
                let to = all.into_iter().find(|at| partial(at / HUGE_FRAMES) && self.free.contains(*at)).unwrap();
                let moved = self.free.take_at(FrameNumber(to), BlockSize::Frame).unwrap();
                let old = core::mem::replace(&mut self.in_use[place], moved);
                self.free.put(&old);
                self.clock.spend(move_ns);
            }
        }
        1
    }

    fn make_room(&mut self) -> Room {
        self.clock.spend(self.room_ns);
        if self.is_thrashing {
            return Room::Thrashing;
        }
        if !self.can_swap || self.in_use.is_empty() {
            return Room::Nothing;
        }
        self.end_use(ROOM as u64);
        Room::Made
    }

    fn is_short(&mut self) -> bool {
        self.is_short
    }
}

/// How a host treats calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Honest,
    /// Every entry is refused.
    Refuses(EntryStatus),
    /// Entries whose block begins at a frame that a hash selects are refused.
    RefusesSome(u64),
    /// The reply is fine, the entries stay as they were.
    Forgets,
    /// Nobody answers, or with garbage.
    Silent,
    /// All entries say done, and the call as a whole says no.
    Contradicts(Status),
    /// It does what it is asked, and answers nothing.
    LosesReplies,
    /// Every call that is no HELLO ends the session.
    Resets,
    /// Its lists are nonsense.
    ListsNonsense(u8),
    /// All entries that it lists it also forgets.
    ListsNothing,
    /// It lists everything.
    ListsAll,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) clock: Clock,
    pub(crate) target: FrameCount,
    pub(crate) mood: Mood,
    /// Frames that the host said it has.
    pub(crate) ballooned: FrameBook,
    has_session: bool,
    /// The next call is answered with an order to begin anew.
    pub(crate) orders_reset: bool,
    pub(crate) calls: u64,
    pub(crate) lists: u64,
    /// What a call, a huge frame and a single frame cost.
    pub(crate) call_ns: u64,
    pub(crate) huge_ns: u64,
    pub(crate) frame_ns: u64,
}

impl Host {
    pub(crate) fn new(total: FrameCount, target: u64, clock: Clock) -> Self {
        Self {
            clock,
            target: FrameCount(target),
            mood: Mood::Honest,
            ballooned: FrameBook::empty(total),
            has_session: false,
            orders_reset: false,
            calls: 0,
            lists: 0,
            call_ns: 0,
            huge_ns: 0,
            frame_ns: 0,
        }
    }

    fn total(&self) -> u64 {
        self.ballooned.members.len() as u64
    }

    /// What a call is answered with before it is looked at; `Err` where that is all.
    fn begin_call(&mut self) -> Result<(), Option<Reply>> {
        self.calls += 1;
        self.clock.spend(self.call_ns);
        if self.mood == Mood::Silent {
            return Err(None);
        }
        if !self.has_session {
            return Err(self.reply(Status::NoSession));
        }
        if core::mem::take(&mut self.orders_reset) || self.mood == Mood::Resets {
            self.has_session = false;
            return Err(self.reply(Status::ResetOrdered));
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the monitor's methods return it")]
    fn reply(&self, status: Status) -> Option<Reply> {
        Some(Reply { status, target: self.target })
    }

    /// Answers a batch; `carry_out` moves the frames of an entry and says whether they were where
    /// they should be.
    fn answer(
        &mut self,
        entries: &mut [Entry],
        refusal: EntryStatus,
        carry_out: impl Fn(&mut FrameBook, u64) -> bool,
    ) -> Option<Reply> {
        if let Err(reply) = self.begin_call() {
            return reply;
        }
        assert!(!entries.is_empty() && entries.len() <= CAPACITY);
        for entry in entries.iter_mut() {
            assert_eq!(entry.status, EntryStatus::Pending, "as the driver writes it");
            assert!(entry.frame.is_aligned(entry.order) && entry.frame.0 + entry.count().0 <= self.total());
            self.clock.spend(if entry.order == 0 { self.frame_ns } else { self.huge_ns });
            entry.status = match self.mood {
                Mood::Refuses(status) => status,
                Mood::RefusesSome(seed) if is_selected(entry.frame, seed) => EntryStatus::Protected,
                Mood::Forgets => EntryStatus::Pending,
                _ => EntryStatus::Done,
            };
            let size = self.total() - self.ballooned.len().0;
            if refusal == EntryStatus::NotGranted && size + entry.count().0 > self.target.0 {
                entry.status = EntryStatus::NotGranted;
            }
            if entry.status != EntryStatus::Done || matches!(self.mood, Mood::Contradicts(_)) {
                continue;
            }
            for frame in entry.frame.0..entry.frame.0 + entry.count().0 {
                assert!(carry_out(&mut self.ballooned, frame), "frame {frame} is not where the driver says");
            }
        }
        match self.mood {
            Mood::LosesReplies => None,
            Mood::Contradicts(status) => self.reply(status),
            _ => self.reply(Status::Ok),
        }
    }

    fn nonsense(kind: u8, entries: &mut [Entry; CAPACITY]) -> (usize, Option<FrameNumber>) {
        let block = |frame, order| Entry { frame: FrameNumber(frame), order, status: EntryStatus::Done };
        entries[..2].copy_from_slice(&[block(512, 9), block(1024, 0)]);
        match kind % 8 {
            0 => entries.swap(0, 1),
            1 => entries[1] = block(513, 0),
            2 => entries[1] = block(u64::MAX, 0),
            3 => entries[1] = block(u64::MAX - 511, 63),
            4 => entries[0] = block(511, 9),
            5 => return (2, Some(FrameNumber(2000))), // more to come behind a page that is not full
            6 => return (usize::MAX, Some(FrameNumber(0))),
            _ => return (0, Some(FrameNumber(u64::MAX))),
        }
        (2, None)
    }
}

fn is_selected(frame: FrameNumber, seed: u64) -> bool {
    (frame.0 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 == 0
}

impl Monitor for Host {
    fn negotiate(&mut self) -> Option<Reply> {
        self.calls += 1;
        self.clock.spend(self.call_ns);
        if self.mood == Mood::Silent {
            return None;
        }
        let status = if core::mem::replace(&mut self.has_session, true) { Status::SessionExists } else { Status::Ok };
        self.reply(status)
    }

    fn begin_options(&mut self) {
        assert!(self.has_session);
    }

    fn reset(&mut self) -> Option<Reply> {
        if let Err(reply) = self.begin_call() {
            return reply;
        }
        self.has_session = false;
        self.reply(Status::Ok)
    }

    fn list(&mut self, from: FrameNumber, entries: &mut [Entry; CAPACITY]) -> Option<Listed> {
        self.lists += 1;
        if let Err(reply) = self.begin_call() {
            return reply.map(|reply| Listed { reply, count: 0, next: None });
        }
        let mut everything = FrameBook::full(FrameCount(self.total()));
        let (count, next) = match self.mood {
            Mood::ListsNonsense(kind) => Self::nonsense(kind, entries),
            _ => {
                match self.mood {
                    // In the middle of a list nobody could notice.
                    _ if from > FrameNumber(0) => {}
                    Mood::ListsNothing => self.ballooned = FrameBook::empty(FrameCount(self.total())),
                    Mood::ListsAll => core::mem::swap(&mut self.ballooned, &mut everything),
                    _ => {}
                }
                let mut blocks = self.ballooned.blocks(from.0).peekable();
                let written = blocks.by_ref().take(CAPACITY).zip(entries.iter_mut());
                (written.map(|(block, entry)| *entry = block).count(), blocks.peek().map(|block| block.frame))
            }
        };
        self.reply(Status::Ok).map(|reply| Listed { reply, count, next })
    }

    fn target(&mut self) -> Option<Reply> {
        if let Err(reply) = self.begin_call() {
            return reply;
        }
        self.reply(Status::Ok)
    }

    fn inflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.answer(entries, EntryStatus::AlreadyBallooned, |given, frame| {
            !given.contains(frame) && {
                given.insert(frame);
                true
            }
        })
    }

    fn deflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.answer(entries, EntryStatus::NotGranted, FrameBook::remove)
    }
}
