//! The threads that may run, in the order of their turns.

use super::table::ThreadId;
use crate::config::MAX_THREADS;

/// A queue with room for every thread. A thread is in it once at most.
#[derive(Debug)]
pub(super) struct RunQueue {
    places: [ThreadId; MAX_THREADS],
    first: usize,
    length: usize,
}

impl RunQueue {
    /// Returns an empty queue.
    pub(super) const fn new() -> Self {
        Self { places: [ThreadId::IDLE; MAX_THREADS], first: 0, length: 0 }
    }

    /// Returns whether no thread may run.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds a thread behind all others.
    pub(super) fn push_back(&mut self, thread: ThreadId) {
        debug_assert!(self.length < MAX_THREADS, "a thread is in the queue once at most");
        self.places[(self.first + self.length) % MAX_THREADS] = thread;
        self.length += 1;
    }

    /// Adds a thread in front of all others.
    pub(super) fn push_front(&mut self, thread: ThreadId) {
        debug_assert!(self.length < MAX_THREADS, "a thread is in the queue once at most");
        self.first = (self.first + MAX_THREADS - 1) % MAX_THREADS;
        self.places[self.first] = thread;
        self.length += 1;
    }

    /// Removes the first thread.
    pub(super) fn pop_front(&mut self) -> Option<ThreadId> {
        if self.is_empty() {
            return None;
        }
        let thread = self.places[self.first];
        self.first = (self.first + 1) % MAX_THREADS;
        self.length -= 1;
        Some(thread)
    }
}
