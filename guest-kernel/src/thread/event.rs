//! Events: what threads wait for.
//!
//! An event may lie in the application's memory, which can be on disk, and a page fault under a
//! spin lock could wait for that very lock. So the kernel keeps in memory of its own which threads
//! wait, by the event's address ([`WaitQueue`]), and the event's one word is accessed with no lock
//! held. A signal between the check of the word and the sleep that follows is not missed: the queue
//! counts how often threads were woken, and a thread whose count is out of date does not fall
//! asleep. A futex, which compares a word of the application's before it sleeps, can be made in the
//! same way.

use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::threads::Wait;

use crate::time::Instant;

/// What threads wait for: an address, which is only compared, and what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitKey {
    pub(super) address: u64,
    pub(super) wait: Wait,
}

impl WaitKey {
    /// Returns the key of `value`: its address.
    pub(super) fn of<T>(value: &T, wait: Wait) -> Self {
        Self { address: core::ptr::from_ref(value).addr() as u64, wait }
    }

    #[cfg(test)]
    pub(super) fn from_number(number: u64) -> Self {
        Self { address: number, wait: Wait::Event }
    }
}

/// How often threads were woken by their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakeCount(pub(super) u64);

/// The threads that wait, by their keys, in memory of the kernel.
pub(super) trait WaitQueue {
    /// Returns how often [`Self::wake`] was called.
    fn wake_count(&self) -> WakeCount;

    /// Puts the current thread to sleep until its key is woken, at most until the given moment; not
    /// at all when any key was woken since `seen`.
    fn sleep(&self, key: WaitKey, seen: WakeCount, until: Option<Instant>);

    /// Wakes all threads that wait for the key. Returns whether there were any.
    fn wake(&self, key: WaitKey) -> bool;
}

/// Something that threads can wait for. A signal for which no thread waits is kept for the next one
/// that does.
#[derive(Debug)]
pub struct Event {
    is_signaled: AtomicBool,
    /// What the threads wait for, as the host is told.
    wait: Wait,
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    /// Returns an event that was not signaled.
    #[must_use]
    pub const fn new() -> Self {
        Self::of(Wait::Event)
    }

    /// Returns an event that was not signaled, of the kernel: its threads wait for this.
    #[must_use]
    pub(crate) const fn of(wait: Wait) -> Self {
        Self { is_signaled: AtomicBool::new(false), wait }
    }

    /// Wakes the threads that wait. If there are none, the next thread to wait returns at once.
    #[cfg(target_os = "none")]
    pub fn signal(&self) {
        self.signal_in(&super::scheduler::Waiters);
    }

    /// Waits for a signal, at most until the given moment. May return early: the caller checks what
    /// it waits for.
    #[cfg(target_os = "none")]
    pub fn wait(&self, until: Option<Instant>) {
        self.wait_in(&super::scheduler::Waiters, until);
    }

    fn signal_in(&self, queue: &impl WaitQueue) {
        let key = WaitKey::of(self, self.wait);
        if queue.wake(key) {
            return;
        }
        self.is_signaled.store(true, Ordering::Release);
        // A thread that checked the word just before may have fallen asleep by now, or is about to.
        queue.wake(key);
    }

    fn wait_in(&self, queue: &impl WaitQueue, until: Option<Instant>) {
        let seen = queue.wake_count();
        if !self.is_signaled.swap(false, Ordering::AcqRel) {
            queue.sleep(WaitKey::of(self, self.wait), seen, until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::{Event, WaitKey, WaitQueue, WakeCount};
    use crate::time::Instant;

    /// When another thread signals the event while one waits for it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Moment {
        BeforeTheCount,
        BeforeTheWord,
        BeforeTheSleep,
        Asleep,
    }

    /// A queue with one thread that waits, and another that signals at one moment.
    struct Queue<'a> {
        event: &'a Event,
        signal_at: Moment,
        count: Cell<u64>,
        sleeper: Cell<Option<WaitKey>>,
        moments: RefCell<Vec<Moment>>,
    }

    impl<'a> Queue<'a> {
        fn new(event: &'a Event, signal_at: Moment) -> Self {
            Self { event, signal_at, count: Cell::new(0), sleeper: Cell::new(None), moments: RefCell::default() }
        }

        fn reach(&self, moment: Moment) {
            self.moments.borrow_mut().push(moment);
            if moment == self.signal_at {
                self.event.signal_in(self);
            }
        }

        fn has_slept(&self) -> bool {
            self.moments.borrow().contains(&Moment::Asleep)
        }
    }

    impl WaitQueue for Queue<'_> {
        fn wake_count(&self) -> WakeCount {
            self.reach(Moment::BeforeTheCount);
            let count = WakeCount(self.count.get());
            self.reach(Moment::BeforeTheWord);
            count
        }

        fn sleep(&self, key: WaitKey, seen: WakeCount, _: Option<Instant>) {
            self.reach(Moment::BeforeTheSleep);
            if seen.0 == self.count.get() {
                self.sleeper.set(Some(key));
                self.reach(Moment::Asleep);
                assert_eq!(self.sleeper.get(), None, "it would sleep for ever");
            }
        }

        fn wake(&self, key: WaitKey) -> bool {
            self.count.set(self.count.get() + 1);
            let is_hit = self.sleeper.get() == Some(key);
            if is_hit {
                self.sleeper.set(None);
            }
            is_hit
        }
    }

    #[test]
    fn a_signal_is_not_missed_whenever_it_comes() {
        for moment in [Moment::BeforeTheCount, Moment::BeforeTheWord, Moment::BeforeTheSleep, Moment::Asleep] {
            let event = Event::new();
            let queue = Queue::new(&event, moment);
            event.wait_in(&queue, None);
            assert!(queue.moments.borrow().contains(&moment), "{moment:?}");
            assert_eq!(queue.has_slept(), moment == Moment::Asleep, "{moment:?}");
        }
    }

    /// A queue with one thread that signals; after its first search for sleepers, another thread
    /// comes and waits.
    #[derive(Default)]
    struct LateSleeper<'a> {
        event: Option<&'a Event>,
        wakes: Cell<u64>,
        sleeper: Cell<bool>,
    }

    impl WaitQueue for LateSleeper<'_> {
        fn wake_count(&self) -> WakeCount {
            WakeCount(self.wakes.get())
        }

        fn sleep(&self, _: WaitKey, seen: WakeCount, _: Option<Instant>) {
            self.sleeper.set(seen == self.wake_count());
        }

        fn wake(&self, _: WaitKey) -> bool {
            self.wakes.set(self.wakes.get() + 1);
            let had_sleeper = self.sleeper.replace(false);
            if let Some(event) = self.event.filter(|_| self.wakes.get() == 1) {
                event.wait_in(self, None);
                assert!(self.sleeper.get(), "there was nothing to keep it awake");
            }
            had_sleeper
        }
    }

    #[test]
    fn a_thread_that_falls_asleep_during_a_signal_is_woken() {
        let event = Event::new();
        let queue = LateSleeper { event: Some(&event), ..LateSleeper::default() };
        event.signal_in(&queue);
        assert_eq!((queue.wakes.get(), queue.sleeper.get()), (2, false));
    }

    #[test]
    fn a_signal_for_which_no_thread_waits_is_kept_once() {
        let event = Event::new();
        let queue = Queue::new(&event, Moment::Asleep);
        event.signal_in(&queue);
        event.signal_in(&queue);
        event.wait_in(&queue, None);
        assert!(!queue.has_slept());
        event.wait_in(&queue, None);
        assert!(queue.has_slept(), "what was kept is gone");
    }

    #[test]
    fn a_signal_that_wakes_a_thread_is_not_kept() {
        let event = Event::new();
        for _ in 0..2 {
            let queue = Queue::new(&event, Moment::Asleep);
            event.wait_in(&queue, None);
            assert!(queue.has_slept());
        }
    }
}
