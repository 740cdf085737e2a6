//! Events: what threads wait for.
//!
//! An event may lie in the application's memory, which can be on disk, and a page fault under a
//! spin lock could wait for that very lock. So the kernel keeps who waits in memory of its own, by
//! the event's address ([`WaitQueue`]), and the event's one word is touched with no lock held. What
//! happens between a look at the word and the sleep that follows is not missed: the queue counts
//! how often anything was woken, and nobody falls asleep whose count is out of date. A futex, which
//! compares a word of the application's before it sleeps, can be made in the same way.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::time::Instant;

/// What threads wait for: an address, of which only the number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitKey(u64);

impl WaitKey {
    /// The address of `value`.
    pub(super) fn of<T>(value: &T) -> Self {
        Self(core::ptr::from_ref(value).addr() as u64)
    }

    #[cfg(test)]
    pub(super) fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// How often threads were woken by their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakeCount(pub(super) u64);

/// Threads that wait, by their keys, in memory of the kernel.
pub(super) trait WaitQueue {
    /// How often [`Self::wake`] was called.
    fn wake_count(&self) -> WakeCount;

    /// Puts the current thread to sleep until its key is woken, at most until the given moment; not
    /// at all when anything was woken since `seen`.
    fn sleep(&self, key: WaitKey, seen: WakeCount, until: Option<Instant>);

    /// Wakes all threads that wait for the key; says whether there were any.
    fn wake(&self, key: WaitKey) -> bool;
}

/// Something that may happen, and that threads can wait for. A signal that finds nobody waiting is
/// kept for the next.
#[derive(Debug, Default)]
pub struct Event {
    is_signaled: AtomicBool,
}

impl Event {
    /// An event that has not happened.
    #[must_use]
    pub const fn new() -> Self {
        Self { is_signaled: AtomicBool::new(false) }
    }

    /// Says that it has happened: the threads that wait go on and look; if there are none, the next
    /// to wait doesn't.
    #[cfg(target_os = "none")]
    pub fn signal(&self) {
        self.signal_in(&super::scheduler::Waiters);
    }

    /// Waits until it happens, at most until the given moment. May return early: the caller looks
    /// at what it waits for.
    #[cfg(target_os = "none")]
    pub fn wait(&self, until: Option<Instant>) {
        self.wait_in(&super::scheduler::Waiters, until);
    }

    fn signal_in(&self, queue: &impl WaitQueue) {
        let key = WaitKey::of(self);
        if queue.wake(key) {
            return;
        }
        self.is_signaled.store(true, Ordering::Release);
        // A thread that looked at the word just before may have fallen asleep by now, or is about
        // to.
        queue.wake(key);
    }

    fn wait_in(&self, queue: &impl WaitQueue, until: Option<Instant>) {
        let seen = queue.wake_count();
        if !self.is_signaled.swap(false, Ordering::AcqRel) {
            queue.sleep(WaitKey::of(self), seen, until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::{Event, WaitKey, WaitQueue, WakeCount};
    use crate::time::Instant;

    /// Where another thread signals the event while one waits for it.
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

        fn come_to(&self, moment: Moment) {
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
            self.come_to(Moment::BeforeTheCount);
            let count = WakeCount(self.count.get());
            self.come_to(Moment::BeforeTheWord);
            count
        }

        fn sleep(&self, key: WaitKey, seen: WakeCount, _: Option<Instant>) {
            self.come_to(Moment::BeforeTheSleep);
            if seen.0 == self.count.get() {
                self.sleeper.set(Some(key));
                self.come_to(Moment::Asleep);
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

    /// A queue with one thread that signals; after its first look for sleepers another one comes
    /// and waits.
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
    fn a_signal_that_finds_nobody_is_kept_once() {
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
    fn a_signal_that_wakes_somebody_is_not_kept() {
        let event = Event::new();
        for _ in 0..2 {
            let queue = Queue::new(&event, Moment::Asleep);
            event.wait_in(&queue, None);
            assert!(queue.has_slept());
        }
    }
}
