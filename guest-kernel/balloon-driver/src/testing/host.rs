//! A host, honest or not.

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::units::{FrameCount, FrameNumber};

use super::clock::Clock;
use super::frame_set::FrameSet;
use crate::sides::{Listed, Monitor, Reply};

/// How a host answers calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Honest,
    /// Frames are deflated whatever the target is.
    PermitsAll,
    /// Every entry is refused.
    Refuses(EntryStatus),
    /// Entries whose block begins at a frame that a hash selects are refused.
    RefusesSome(u64),
    /// The reply is Ok, and the entries stay pending.
    Forgets,
    /// Calls are not answered.
    Silent,
    /// All entries are done, and the call as a whole is refused.
    Contradicts(Status),
    /// Calls are carried out and not answered.
    LosesReplies,
    /// Every call but HELLO ends the session.
    Resets,
    /// Lists are unsound, in one of several ways.
    ListsNonsense(u8),
    /// Lists are empty, and the host forgets its balloon.
    ListsNothing,
    /// Lists name all memory, and the host believes so.
    ListsAll,
}

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) clock: Clock,
    pub(crate) target: FrameCount,
    pub(crate) behaviour: Behaviour,
    /// The host's view of the balloon.
    pub(crate) ballooned: FrameSet,
    has_session: bool,
    /// The next call is answered with ResetOrdered.
    pub(crate) orders_reset: bool,
    /// Calls so far.
    pub(crate) calls: u64,
    /// Entries of batches so far.
    pub(crate) entries: u64,
    /// The cost of a call.
    pub(crate) call_ns: u64,
    /// The cost of a huge frame in a batch.
    pub(crate) huge_ns: u64,
    /// The cost of a single frame in a batch.
    pub(crate) frame_ns: u64,
}

impl Host {
    pub(crate) fn new(total: FrameCount, target: u64, clock: Clock) -> Self {
        Self {
            clock,
            target: FrameCount(target),
            behaviour: Behaviour::Honest,
            ballooned: FrameSet::empty(total),
            has_session: false,
            orders_reset: false,
            calls: 0,
            entries: 0,
            call_ns: 0,
            huge_ns: 0,
            frame_ns: 0,
        }
    }

    fn total(&self) -> u64 {
        self.ballooned.members.len() as u64
    }

    /// Counts a call and checks the session. Returns the reply if the call goes no further.
    fn begin_call(&mut self) -> Result<(), Option<Reply>> {
        self.calls += 1;
        self.clock.spend(self.call_ns);
        if self.behaviour == Behaviour::Silent {
            return Err(None);
        }
        if !self.has_session {
            return Err(self.reply(Status::NoSession));
        }
        if core::mem::take(&mut self.orders_reset) || self.behaviour == Behaviour::Resets {
            self.has_session = false;
            return Err(self.reply(Status::ResetOrdered));
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the monitor's methods return it")]
    fn reply(&self, status: Status) -> Option<Reply> {
        Some(Reply { status, target: self.target })
    }

    /// Answers a batch. `carry_out` moves a frame, and returns whether it was in the right place.
    fn answer(
        &mut self,
        entries: &mut [Entry],
        refusal: EntryStatus,
        carry_out: impl Fn(&mut FrameSet, u64) -> bool,
    ) -> Option<Reply> {
        if let Err(reply) = self.begin_call() {
            return reply;
        }
        assert!(!entries.is_empty() && entries.len() <= CAPACITY);
        self.entries += entries.len() as u64;
        for entry in entries.iter_mut() {
            assert_eq!(entry.status, EntryStatus::Pending, "the driver writes entries so");
            assert!(entry.frame.is_aligned(entry.order) && entry.frame.0 + entry.count().0 <= self.total());
            self.clock.spend(if entry.order == 0 { self.frame_ns } else { self.huge_ns });
            entry.status = match self.behaviour {
                Behaviour::Refuses(status) => status,
                Behaviour::RefusesSome(seed) if is_selected(entry.frame, seed) => EntryStatus::Protected,
                Behaviour::Forgets => EntryStatus::Pending,
                _ => EntryStatus::Done,
            };
            let size = self.total() - self.ballooned.len().0;
            let is_bounded = refusal == EntryStatus::NotGranted && self.behaviour != Behaviour::PermitsAll;
            if is_bounded && size + entry.count().0 > self.target.0 {
                entry.status = EntryStatus::NotGranted;
            }
            if entry.status != EntryStatus::Done || matches!(self.behaviour, Behaviour::Contradicts(_)) {
                continue;
            }
            for frame in entry.frame.0..entry.frame.0 + entry.count().0 {
                assert!(
                    carry_out(&mut self.ballooned, frame),
                    "frame {frame} is not in the place that the driver names"
                );
            }
        }
        match self.behaviour {
            Behaviour::LosesReplies => None,
            Behaviour::Contradicts(status) => self.reply(status),
            _ => self.reply(Status::Ok),
        }
    }

    /// Writes an unsound list.
    fn nonsense(kind: u8, entries: &mut [Entry; CAPACITY]) -> (usize, Option<FrameNumber>) {
        let block = |frame, order| Entry { frame: FrameNumber(frame), order, status: EntryStatus::Done };
        entries[..2].copy_from_slice(&[block(512, 9), block(1024, 0)]);
        match kind % 8 {
            0 => entries.swap(0, 1),
            1 => entries[1] = block(513, 0),
            2 => entries[1] = block(u64::MAX, 0),
            3 => entries[1] = block(u64::MAX - 511, 63),
            4 => entries[0] = block(511, 9),
            5 => return (2, Some(FrameNumber(2000))), // not the last page, and not full
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
        if self.behaviour == Behaviour::Silent {
            return None;
        }
        let status = if core::mem::replace(&mut self.has_session, true) { Status::SessionExists } else { Status::Ok };
        self.reply(status)
    }

    fn enable_features(&mut self) {
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
        if let Err(reply) = self.begin_call() {
            return reply.map(|reply| Listed { reply, count: 0, next: None });
        }
        let mut everything = FrameSet::full(FrameCount(self.total()));
        let (count, next) = match self.behaviour {
            Behaviour::ListsNonsense(kind) => Self::nonsense(kind, entries),
            _ => {
                match self.behaviour {
                    // In the middle of a list the driver could not notice it.
                    _ if from > FrameNumber(0) => {}
                    Behaviour::ListsNothing => self.ballooned = FrameSet::empty(FrameCount(self.total())),
                    Behaviour::ListsAll => core::mem::swap(&mut self.ballooned, &mut everything),
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
        self.answer(entries, EntryStatus::AlreadyBallooned, |ballooned, frame| {
            !ballooned.contains(frame) && {
                ballooned.insert(frame);
                true
            }
        })
    }

    fn deflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.answer(entries, EntryStatus::NotGranted, FrameSet::remove)
    }
}
