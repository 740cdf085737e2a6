//! The thread table: who exists, who may run, who waits until when. Pure bookkeeping; [`super`]
//! does the switching.
//!
//! Threads are places in a fixed table, so nothing here allocates. The table also says who waits
//! for what: nothing is kept in what they wait for, which may not be in memory.

use super::event::{WaitKey, WakeCount};
use crate::config::MAX_THREADS;
use crate::time::Instant;

/// A thread: its place in the table. Place 0 is the idle thread, which runs when nobody else can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadId(pub(super) u8);

impl ThreadId {
    pub(super) const IDLE: Self = Self(0);

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Who goes first when several may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A kernel thread: runs as soon as it is woken, and is done soon.
    Kernel,
    /// An application's thread: takes its turn.
    Application,
}

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unused,
    Ready,
    Running,
    Blocked { on: Option<WaitKey>, until: Option<Instant> },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    priority: Priority,
    name: &'static str,
}

const UNUSED: Entry = Entry { state: State::Unused, priority: Priority::Application, name: "" };

/// Threads that may run, in the order of their turns.
#[derive(Debug)]
struct Queue {
    places: [ThreadId; MAX_THREADS],
    first: usize,
    length: usize,
}

impl Queue {
    fn push_back(&mut self, thread: ThreadId) {
        debug_assert!(self.length < MAX_THREADS, "a thread stands in the queue once at most");
        self.places[(self.first + self.length) % MAX_THREADS] = thread;
        self.length += 1;
    }

    fn push_front(&mut self, thread: ThreadId) {
        self.first = (self.first + MAX_THREADS - 1) % MAX_THREADS;
        self.places[self.first] = thread;
        self.length += 1;
    }

    fn pop_front(&mut self) -> Option<ThreadId> {
        if self.length == 0 {
            return None;
        }
        let thread = self.places[self.first];
        self.first = (self.first + 1) % MAX_THREADS;
        self.length -= 1;
        Some(thread)
    }
}

/// All threads of one CPU.
#[derive(Debug)]
pub(super) struct Table {
    entries: [Entry; MAX_THREADS],
    ready: Queue,
    current: ThreadId,
    slice_end: Instant,
    /// A kernel thread was woken and should not wait for the end of the slice.
    is_urgent: bool,
    /// How often a key was woken.
    wakes: u64,
}

impl Table {
    /// The idle thread, running.
    pub(super) const fn new() -> Self {
        let mut entries = [UNUSED; MAX_THREADS];
        entries[0] = Entry { state: State::Running, priority: Priority::Application, name: "idle" };
        let ready = Queue { places: [ThreadId::IDLE; MAX_THREADS], first: 0, length: 0 };
        Self { entries, ready, current: ThreadId::IDLE, slice_end: Instant::from_nanos(0), is_urgent: false, wakes: 0 }
    }

    pub(super) fn current(&self) -> ThreadId {
        self.current
    }

    pub(super) fn name(&self, thread: ThreadId) -> &'static str {
        self.entries[thread.index()].name
    }

    /// Whether a kernel thread has this place.
    pub(super) fn is_kernel_thread(&self, place: usize) -> bool {
        let entry = &self.entries[place];
        entry.state != State::Unused && entry.priority == Priority::Kernel
    }

    /// Takes a free place for a new thread, not yet ready; `None` when the table is full.
    pub(super) fn add(&mut self, name: &'static str, priority: Priority) -> Option<ThreadId> {
        let place = self.entries.iter().position(|entry| entry.state == State::Unused)?;
        self.entries[place] = Entry { state: State::Blocked { on: None, until: None }, priority, name };
        Some(ThreadId(u8::try_from(place).ok()?))
    }

    /// Gives the place of a thread back that never ran.
    pub(super) fn forget(&mut self, thread: ThreadId) {
        self.entries[thread.index()].state = State::Unused;
    }

    /// Lets a blocked thread run again; anything else is left as it is.
    pub(super) fn wake(&mut self, thread: ThreadId) {
        let entry = &mut self.entries[thread.index()];
        if !matches!(entry.state, State::Blocked { .. }) {
            return;
        }
        entry.state = State::Ready;
        match entry.priority {
            Priority::Kernel => {
                self.ready.push_front(thread);
                self.is_urgent = true;
            }
            Priority::Application => self.ready.push_back(thread),
        }
    }

    /// How often a key was woken.
    pub(super) fn wake_count(&self) -> WakeCount {
        WakeCount(self.wakes)
    }

    /// Wakes every thread that waits for `key`; says whether there was one.
    pub(super) fn wake_waiters(&mut self, key: WaitKey) -> bool {
        self.wakes += 1;
        let mut has_woken = false;
        for place in 1..MAX_THREADS {
            if matches!(self.entries[place].state, State::Blocked { on: Some(on), .. } if on == key) {
                self.wake(ThreadId(u8::try_from(place).unwrap_or_default()));
                has_woken = true;
            }
        }
        has_woken
    }

    /// Wakes those whose time has come.
    pub(super) fn wake_due(&mut self, now: Instant) {
        for place in 1..MAX_THREADS {
            if let State::Blocked { until: Some(until), .. } = self.entries[place].state
                && until <= now
            {
                self.wake(ThreadId(u8::try_from(place).unwrap_or_default()));
            }
        }
    }

    /// The current thread will not run before it is woken, by `on` if it waits for something, or
    /// `until` has come.
    pub(super) fn block_current(&mut self, on: Option<WaitKey>, until: Option<Instant>) {
        self.entries[self.current.index()].state = State::Blocked { on, until };
    }

    /// The current thread will never run again.
    pub(super) fn end_current(&mut self) {
        self.entries[self.current.index()].state = State::Unused;
    }

    /// The current thread gives up its turn.
    pub(super) fn yield_current(&mut self) {
        if self.current != ThreadId::IDLE {
            self.entries[self.current.index()].state = State::Ready;
            self.ready.push_back(self.current);
        }
    }

    /// A kernel thread's slice doesn't end: it is done soon.
    fn is_kernel(&self, thread: ThreadId) -> bool {
        self.entries[thread.index()].priority == Priority::Kernel
    }

    /// Whether the current thread should make room now: its slice is over, or somebody urgent
    /// waits.
    pub(super) fn should_switch(&self, now: Instant) -> bool {
        let may_go_on = self.current != ThreadId::IDLE && (self.is_kernel(self.current) || self.slice_end > now);
        self.ready.length > 0 && (!may_go_on || self.is_urgent)
    }

    /// The current thread is interrupted for another: it goes on next if its slice is not over,
    /// else it queues up.
    pub(super) fn preempt_current(&mut self, now: Instant) {
        if self.current == ThreadId::IDLE {
            return;
        }
        if self.slice_end <= now || !self.is_urgent {
            self.yield_current();
            return;
        }
        let Some(urgent) = self.ready.pop_front() else { return };
        self.entries[self.current.index()].state = State::Ready;
        self.ready.push_front(self.current);
        self.ready.push_front(urgent);
    }

    /// Makes the next thread the current one; the idle thread when nobody else may run.
    pub(super) fn take_next(&mut self, slice_end: Instant) -> ThreadId {
        self.is_urgent = false;
        self.current = self.ready.pop_front().unwrap_or(ThreadId::IDLE);
        self.entries[self.current.index()].state = State::Running;
        self.slice_end = slice_end;
        self.current
    }

    /// Whether the current thread may simply go on, although it has blocked: it was woken before
    /// anybody else ran.
    pub(super) fn is_runnable(&self) -> bool {
        self.ready.length > 0
    }

    /// When the timer must interrupt next: a sleeper's time, or the slice's end while others wait.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let sleeper = self.entries.iter().filter_map(|entry| match entry.state {
            State::Blocked { until, .. } => until,
            _ => None,
        });
        let has_slice = self.current != ThreadId::IDLE && !self.is_kernel(self.current);
        let slice = (self.ready.length > 0 && has_slice).then_some(self.slice_end);
        sleeper.chain(slice).min()
    }
}

#[cfg(test)]
mod tests {
    use super::{Priority, Table, ThreadId};
    use crate::thread::event::WaitKey;
    use crate::time::Instant;

    const fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn ready(table: &mut Table, priority: Priority) -> ThreadId {
        let thread = table.add("test", priority).unwrap();
        table.wake(thread);
        thread
    }

    #[test]
    fn equals_take_turns() {
        let mut table = Table::new();
        let (a, b) = (ready(&mut table, Priority::Application), ready(&mut table, Priority::Application));
        assert_eq!(table.take_next(at(5)), a);
        assert!(!table.should_switch(at(4)));
        assert!(table.should_switch(at(5)));
        table.preempt_current(at(5));
        assert_eq!(table.take_next(at(10)), b);
        table.preempt_current(at(10));
        assert_eq!(table.take_next(at(15)), a);
    }

    #[test]
    fn a_woken_kernel_thread_runs_at_once_and_the_interrupted_one_next() {
        let mut table = Table::new();
        let (a, b) = (ready(&mut table, Priority::Application), ready(&mut table, Priority::Application));
        assert_eq!(table.take_next(at(5)), a);
        let driver = ready(&mut table, Priority::Kernel);
        assert!(table.should_switch(at(1)));
        table.preempt_current(at(1));
        assert_eq!(table.take_next(at(6)), driver);
        table.block_current(None, None);
        assert_eq!(table.take_next(at(6)), a);
        table.block_current(None, None);
        assert_eq!(table.take_next(at(6)), b);
    }

    #[test]
    fn sleepers_wake_in_time_and_the_timer_follows_the_earliest() {
        let mut table = Table::new();
        let (a, b) = (ready(&mut table, Priority::Application), ready(&mut table, Priority::Application));
        assert_eq!(table.take_next(at(5)), a);
        table.block_current(None, Some(at(30)));
        assert_eq!(table.take_next(at(5)), b);
        table.block_current(None, Some(at(20)));
        assert_eq!(table.take_next(at(5)), ThreadId::IDLE);
        assert_eq!(table.next_timer(), Some(at(20)));
        table.wake_due(at(20));
        assert_eq!(table.take_next(at(25)), b);
        assert_eq!(table.next_timer(), Some(at(30)));
        table.wake_due(at(30));
        assert_eq!(table.next_timer(), Some(at(25)), "somebody waits: the slice's end counts");
    }

    #[test]
    fn a_kernel_thread_has_no_slice_to_wait_for() {
        let mut table = Table::new();
        let driver = ready(&mut table, Priority::Kernel);
        ready(&mut table, Priority::Application);
        assert_eq!(table.take_next(at(5)), driver);
        assert!(!table.should_switch(at(9)));
        assert_eq!(table.next_timer(), None, "a timer at the end of a slice that doesn't end would ring for ever");
    }

    #[test]
    fn a_place_is_used_again_and_the_table_can_be_full() {
        let mut table = Table::new();
        let first = ready(&mut table, Priority::Application);
        while table.add("more", Priority::Application).is_some() {}
        assert_eq!(table.take_next(at(5)), first);
        table.end_current();
        assert_eq!(table.add("again", Priority::Application), Some(first));
    }

    #[test]
    fn a_key_wakes_those_who_wait_for_it_and_nobody_else() {
        let (door, window) = (WaitKey::from_number(1), WaitKey::from_number(2));
        let mut table = Table::new();
        let (a, b) = (ready(&mut table, Priority::Application), ready(&mut table, Priority::Application));
        assert_eq!(table.take_next(at(5)), a);
        table.block_current(Some(door), None);
        assert_eq!(table.take_next(at(5)), b);
        table.block_current(Some(window), Some(at(90)));
        assert_eq!(table.take_next(at(5)), ThreadId::IDLE);
        let before = table.wake_count();
        assert!(table.wake_waiters(window));
        assert_ne!(table.wake_count(), before);
        assert_eq!(table.take_next(at(5)), b);
        assert!(!table.wake_waiters(window), "it does not wait any more");
        assert!(!table.is_runnable());
        assert!(table.wake_waiters(door));
    }

    #[test]
    fn waking_a_running_or_unused_thread_changes_nothing() {
        let mut table = Table::new();
        let a = ready(&mut table, Priority::Application);
        table.take_next(at(5));
        table.wake(a);
        table.wake(ThreadId(9));
        assert!(!table.is_runnable());
    }
}
