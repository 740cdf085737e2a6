//! The thread table: which threads exist, which may run, and which wait, for what and until when.
//! Pure; [`super`]'s scheduler does the switching.
//!
//! Threads are places in a fixed table, so nothing here allocates. What a thread waits for is kept
//! here too, and not in the event, which may not be in memory.

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::threads::{self, Wait};

use super::event::{WaitKey, WakeCount};
use super::published::{PUBLISHED, Published};
use super::run_queue::RunQueue;
use crate::config::MAX_THREADS;
use crate::time::Instant;

/// A thread: its place in the table. Place 0 is the idle thread, which runs when no other can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadId(pub(super) u8);

impl ThreadId {
    pub(super) const IDLE: Self = Self(0);

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Which thread goes first when several may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A kernel thread: runs as soon as it is woken, and is done soon.
    Kernel,
    /// An application's thread: takes turns with the others.
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

impl State {
    /// Returns the state as the host sees it.
    fn published(self) -> Option<threads::State> {
        match self {
            Self::Unused => None,
            Self::Ready => Some(threads::State::Ready),
            Self::Running => Some(threads::State::Running),
            Self::Blocked { on, until } => Some(threads::State::Waiting {
                wait: Some(on.map_or(Wait::Timer, |key| key.wait)),
                key: on.map_or(0, |key| key.address),
                until_ns: until.map_or(0, Instant::as_nanos),
            }),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    priority: Priority,
    name: &'static str,
}

const UNUSED: Entry = Entry { state: State::Unused, priority: Priority::Application, name: "" };

/// All threads of one CPU.
#[derive(Debug)]
pub(super) struct Table {
    entries: [Entry; MAX_THREADS],
    ready: RunQueue,
    current: ThreadId,
    slice_end: Instant,
    /// Whether a kernel thread was woken, which should not wait for the end of the slice.
    is_urgent: bool,
    /// How often threads were woken by their keys.
    wakes: u64,
    /// Where the host sees the threads.
    published: &'static Published,
}

impl Table {
    /// Returns a table with the idle thread, running.
    pub(super) const fn new() -> Self {
        Self::published_in(&PUBLISHED)
    }

    const fn published_in(published: &'static Published) -> Self {
        let mut entries = [UNUSED; MAX_THREADS];
        entries[0] = Entry { state: State::Running, priority: Priority::Application, name: "idle" };
        Self {
            entries,
            ready: RunQueue::new(),
            current: ThreadId::IDLE,
            slice_end: Instant::from_nanos(0),
            is_urgent: false,
            wakes: 0,
            published,
        }
    }

    /// Begins to publish the threads: the host can see them from now on.
    pub(super) fn publish(&self) {
        self.published.set_name(ThreadId::IDLE, self.name(ThreadId::IDLE));
        self.published.set_state(ThreadId::IDLE, self.entries[0].state.published());
        self.published.begin();
    }

    /// Returns the place of the stack pointer of a thread that does not run.
    pub(super) fn stack_pointer(&self, thread: ThreadId) -> &'static AtomicU64 {
        self.published.stack_pointer(thread)
    }

    fn set_state(&mut self, thread: ThreadId, state: State) {
        self.entries[thread.index()].state = state;
        self.published.set_state(thread, state.published());
    }

    /// Returns the thread that runs.
    pub(super) fn current(&self) -> ThreadId {
        self.current
    }

    /// Returns a thread's name.
    pub(super) fn name(&self, thread: ThreadId) -> &'static str {
        self.entries[thread.index()].name
    }

    /// Returns whether a kernel thread has this place.
    pub(super) fn is_kernel_thread(&self, place: usize) -> bool {
        let entry = &self.entries[place];
        entry.state != State::Unused && entry.priority == Priority::Kernel
    }

    /// Takes a free place for a new thread, which is not ready yet; `None` when the table is full.
    pub(super) fn add(&mut self, name: &'static str, priority: Priority) -> Option<ThreadId> {
        let place = self.entries.iter().position(|entry| entry.state == State::Unused)?;
        let thread = ThreadId(u8::try_from(place).ok()?);
        let state = State::Blocked { on: None, until: None };
        self.entries[place] = Entry { state, priority, name };
        self.published.set_name(thread, name);
        self.published.stack_pointer(thread).store(0, Ordering::Relaxed);
        self.set_state(thread, state);
        Some(thread)
    }

    /// Frees the place of a thread that never ran.
    pub(super) fn forget(&mut self, thread: ThreadId) {
        self.set_state(thread, State::Unused);
    }

    /// Makes a blocked thread ready; leaves any other as it is.
    pub(super) fn wake(&mut self, thread: ThreadId) {
        let entry = self.entries[thread.index()];
        if !matches!(entry.state, State::Blocked { .. }) {
            return;
        }
        self.set_state(thread, State::Ready);
        match entry.priority {
            Priority::Kernel => {
                self.ready.push_front(thread);
                self.is_urgent = true;
            }
            Priority::Application => self.ready.push_back(thread),
        }
    }

    /// Returns how often threads were woken by their keys.
    pub(super) fn wake_count(&self) -> WakeCount {
        WakeCount(self.wakes)
    }

    /// Wakes every thread that waits for `key`. Returns whether there was one.
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

    /// Wakes the threads that wait until `now` or an earlier moment.
    pub(super) fn wake_due(&mut self, now: Instant) {
        for place in 1..MAX_THREADS {
            if let State::Blocked { until: Some(until), .. } = self.entries[place].state
                && until <= now
            {
                self.wake(ThreadId(u8::try_from(place).unwrap_or_default()));
            }
        }
    }

    /// Blocks the current thread until it is woken by the key `on`, if there is one, or `until` has
    /// come.
    pub(super) fn block_current(&mut self, on: Option<WaitKey>, until: Option<Instant>) {
        self.set_state(self.current, State::Blocked { on, until });
    }

    /// Ends the current thread.
    pub(super) fn end_current(&mut self) {
        self.set_state(self.current, State::Unused);
    }

    /// Puts the current thread behind all others that are ready.
    pub(super) fn yield_current(&mut self) {
        if self.current != ThreadId::IDLE {
            self.set_state(self.current, State::Ready);
            self.ready.push_back(self.current);
        }
    }

    /// Returns whether it is a kernel thread, whose slice doesn't end: it is done soon.
    fn is_kernel(&self, thread: ThreadId) -> bool {
        self.entries[thread.index()].priority == Priority::Kernel
    }

    /// Returns whether another thread should run now: the current one's slice is over, or a kernel
    /// thread was woken.
    pub(super) fn should_switch(&self, now: Instant) -> bool {
        let may_go_on = self.current != ThreadId::IDLE && (self.is_kernel(self.current) || self.slice_end > now);
        !self.ready.is_empty() && (!may_go_on || self.is_urgent)
    }

    /// Interrupts the current thread for another: it continues next if its slice is not over, or
    /// else goes behind all others.
    pub(super) fn preempt_current(&mut self, now: Instant) {
        if self.current == ThreadId::IDLE {
            return;
        }
        if self.slice_end <= now || !self.is_urgent {
            self.yield_current();
            return;
        }
        let Some(urgent) = self.ready.pop_front() else { return };
        self.set_state(self.current, State::Ready);
        self.ready.push_front(self.current);
        self.ready.push_front(urgent);
    }

    /// Makes the next thread the current one: the idle thread if no other may run.
    pub(super) fn take_next(&mut self, slice_end: Instant) -> ThreadId {
        self.is_urgent = false;
        if self.current == ThreadId::IDLE {
            self.set_state(ThreadId::IDLE, State::Ready);
        }
        self.current = self.ready.pop_front().unwrap_or(ThreadId::IDLE);
        self.set_state(self.current, State::Running);
        self.slice_end = slice_end;
        self.current
    }

    /// Returns whether a thread is ready to run, other than the current one.
    pub(super) fn is_runnable(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns when the timer must interrupt next: the time of a thread that sleeps, or the end of
    /// the slice while others are ready.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let sleeper = self.entries.iter().filter_map(|entry| match entry.state {
            State::Blocked { until, .. } => until,
            _ => None,
        });
        let has_slice = self.current != ThreadId::IDLE && !self.is_kernel(self.current);
        let slice = (!self.ready.is_empty() && has_slice).then_some(self.slice_end);
        sleeper.chain(slice).min()
    }
}

#[cfg(test)]
mod tests;
