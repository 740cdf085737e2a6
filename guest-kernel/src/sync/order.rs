//! The check of the lock order, in builds with debug assertions. In others a lock carries no rank,
//! and all of this is nothing.
//!
//! Each CPU keeps a list of the locks that its current thread holds (`HeldLocks`). Spin locks
//! mask upcalls, so a thread holds none when it is switched away from, the scheduler's excepted:
//! that one is held across the switch and released by the next thread. Sleeping locks stay with
//! their thread ([`park`]). On the host each thread has a list of its own.

use super::rank::LockRank;

/// A lock's place in the order, as a part of the lock.
#[derive(Debug)]
pub(crate) struct OrderCheck {
    #[cfg(debug_assertions)]
    rank: LockRank,
}

impl OrderCheck {
    #[cfg_attr(not(debug_assertions), allow(unused_variables, reason = "only debug builds check"))]
    pub(crate) const fn new(rank: LockRank) -> Self {
        Self {
            #[cfg(debug_assertions)]
            rank,
        }
    }

    /// Checks that the current thread may take the lock now, before it waits for it.
    ///
    /// # Panics
    /// Panics in builds with debug assertions when a lock is held that must be taken later.
    pub(crate) fn check(&self) {
        #[cfg(debug_assertions)]
        if let Err((new, held)) = checked::with(self.as_held(), checked::HeldLocks::check) {
            panic!("lock order: {new:?} is taken while {held:?} is held; docs/ARCHITECTURE.md has the order");
        }
    }

    /// Notes that the current thread holds the lock now.
    pub(crate) fn taken(&self) {
        #[cfg(debug_assertions)]
        checked::with(self.as_held(), checked::HeldLocks::add);
    }

    /// Notes that the current thread is about to release the lock.
    pub(crate) fn released(&self) {
        #[cfg(debug_assertions)]
        checked::with(self.as_held(), checked::HeldLocks::remove);
    }

    /// A mutex may lie in memory that can be evicted, so its rank is read before upcalls are
    /// masked.
    #[cfg(debug_assertions)]
    fn as_held(&self) -> checked::HeldLock {
        checked::HeldLock { rank: self.rank, address: core::ptr::from_ref(self).addr() }
    }
}

/// The sleeping locks of a thread that does not run.
#[derive(Debug)]
#[must_use = "the locks are still held"]
#[cfg(target_os = "none")]
pub(crate) struct ParkedLocks {
    #[cfg(debug_assertions)]
    locks: checked::Parked,
}

/// Takes the current thread's locks off this CPU's list, because another thread runs next. The
/// scheduler's lock stays in the list.
///
/// # Panics
/// Panics in builds with debug assertions when the thread holds a spin lock besides the
/// scheduler's.
#[cfg(target_os = "none")]
pub(crate) fn park() -> ParkedLocks {
    ParkedLocks {
        #[cfg(debug_assertions)]
        locks: checked::with((), |locks, ()| locks.park()),
    }
}

#[cfg(target_os = "none")]
impl ParkedLocks {
    /// Puts the locks back into this CPU's list, because their thread runs again.
    pub(crate) fn unpark(self) {
        #[cfg(debug_assertions)]
        checked::with(self.locks, checked::HeldLocks::unpark);
    }
}

#[cfg(debug_assertions)]
mod checked {
    #![allow(unsafe_code, reason = "each CPU has a list of its own")]

    use super::LockRank;
    use crate::config::MAX_CPUS;

    /// Most locks that a thread holds at once: all frame caches, and one of each rank above.
    const MOST_HELD: usize = MAX_CPUS + 8;
    /// Most sleeping locks with a rank of the kernel's that a thread holds at once.
    const MOST_PARKED: usize = 2;

    /// A lock that is held, or about to be.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct HeldLock {
        pub(super) rank: LockRank,
        pub(super) address: usize,
    }

    pub(super) type Parked = [Option<HeldLock>; MOST_PARKED];

    /// The locks that a thread holds.
    #[derive(Debug)]
    pub(super) struct HeldLocks {
        locks: [Option<HeldLock>; MOST_HELD],
    }

    impl HeldLocks {
        pub(super) const EMPTY: Self = Self { locks: [None; MOST_HELD] };

        /// Returns a held lock that forbids to take this one.
        fn against(&self, new: HeldLock) -> Option<HeldLock> {
            let is_before = |held: &HeldLock| {
                let key = |lock: &HeldLock| (lock.rank, lock.address);
                !held.rank.is_leaf() && key(held) < key(&new)
            };
            self.locks.iter().flatten().find(|held| !is_before(held)).copied()
        }

        /// Checks that a lock may be taken.
        ///
        /// # Errors
        /// Returns its rank, and that of a held lock which forbids it.
        pub(super) fn check(&mut self, new: HeldLock) -> Result<(), (LockRank, LockRank)> {
            self.against(new).map_or(Ok(()), |held| Err((new.rank, held.rank)))
        }

        /// Adds a lock. The application's own mutexes are left out, as there may be any number of
        /// them, and all ranks are above theirs.
        pub(super) fn add(&mut self, new: HeldLock) {
            if new.rank != LockRank::Application {
                let place = self.locks.iter_mut().find(|place| place.is_none());
                *place.expect("a thread holds more locks than there are ranks") = Some(new);
            }
        }

        pub(super) fn remove(&mut self, lock: HeldLock) {
            if let Some(place) = self.locks.iter_mut().find(|place| **place == Some(lock)) {
                *place = None;
            }
        }

        /// Removes the sleeping locks and returns them.
        #[cfg_attr(not(any(test, target_os = "none")), allow(dead_code, reason = "only guests switch threads"))]
        pub(super) fn park(&mut self) -> Parked {
            let mut parked = [None; MOST_PARKED];
            let mut places = parked.iter_mut();
            for place in &mut self.locks {
                let Some(held) = *place else { continue };
                if held.rank.is_sleeping() {
                    *places.next().expect("a thread holds more sleeping locks than there are ranks") = place.take();
                } else {
                    assert!(held.rank == LockRank::Scheduler, "a thread is switched away from with {:?}", held.rank);
                }
            }
            parked
        }

        /// Adds the sleeping locks of a thread that runs again.
        #[cfg_attr(not(any(test, target_os = "none")), allow(dead_code, reason = "only guests switch threads"))]
        pub(super) fn unpark(&mut self, parked: Parked) {
            parked.into_iter().flatten().for_each(|lock| self.add(lock));
        }
    }

    /// Calls `act` with the list of the current thread.
    #[cfg(not(target_os = "none"))]
    pub(super) fn with<T: Copy, R>(value: T, act: impl FnOnce(&mut HeldLocks, T) -> R) -> R {
        use core::cell::RefCell;

        std::thread_local! {
            static HELD: RefCell<HeldLocks> = const { RefCell::new(HeldLocks::EMPTY) };
        }
        HELD.with_borrow_mut(|locks| act(locks, value))
    }

    /// Calls `act` with the list of this CPU's current thread. Upcalls are masked meanwhile, so
    /// `act` gets a value instead of reading it from memory that may be evicted.
    #[cfg(target_os = "none")]
    pub(super) fn with<T: Copy, R>(value: T, act: impl FnOnce(&mut HeldLocks, T) -> R) -> R {
        use core::cell::UnsafeCell;

        use crate::arch::x86_64::cpu::{self, UpcallMask};

        struct Lists([UnsafeCell<HeldLocks>; MAX_CPUS]);
        // SAFETY: each list is used by its own CPU alone.
        unsafe impl Sync for Lists {}
        static LISTS: Lists = Lists([const { UnsafeCell::new(HeldLocks::EMPTY) }; MAX_CPUS]);

        let _mask = UpcallMask::new();
        // SAFETY: upcalls are masked, so this CPU runs nothing else meanwhile; `act` takes no
        // locks.
        act(unsafe { &mut *LISTS.0[cpu::index()].get() }, value)
    }

    #[cfg(test)]
    mod tests {
        use super::{HeldLock, HeldLocks, LockRank};

        const fn lock(rank: LockRank, address: usize) -> HeldLock {
            HeldLock { rank, address }
        }

        #[test]
        fn ranks_rise_and_leaves_are_last() {
            let mut held = HeldLocks::EMPTY;
            let (space, caches) = (lock(LockRank::AddressSpace, 9), [1, 2].map(|n| lock(LockRank::FrameCache, n)));
            held.add(space);
            assert_eq!(held.against(lock(LockRank::Reclaimer, 10)), Some(space));
            assert_eq!(held.against(space), Some(space), "a thread would wait for itself");
            assert_eq!(held.against(caches[1]), None);
            held.add(caches[0]);
            assert_eq!(held.against(caches[1]), None, "the next of the same rank");
            held.add(caches[1]);
            held.remove(caches[0]);
            assert_eq!(held.against(caches[0]), Some(caches[1]), "out of their order");
            let leaf = lock(LockRank::Stalls, 3);
            assert_eq!(held.against(leaf), None);
            held.add(leaf);
            assert_eq!(held.against(lock(LockRank::LogLine, 4)), Some(leaf), "nothing is taken under a leaf");
            held.remove(leaf);
            assert_eq!(held.against(lock(LockRank::LogLine, 4)), None);
        }

        #[test]
        fn sleeping_locks_go_and_come_with_their_thread() {
            let mut held = HeldLocks::EMPTY;
            let (callbacks, heap) = (lock(LockRank::PressureCallbacks, 1), lock(LockRank::ApplicationHeap, 2));
            let scheduler = lock(LockRank::Scheduler, 3);
            held.add(callbacks);
            held.add(heap);
            held.add(scheduler);
            let parked = held.park();
            held.remove(scheduler); // the next thread releases it
            assert_eq!(held.against(callbacks), None, "the next thread has a list of its own");
            held.unpark(parked);
            assert_eq!(held.against(callbacks), Some(callbacks));
        }

        #[test]
        #[should_panic(expected = "a thread is switched away from with Reclaimer")]
        fn no_thread_sleeps_with_a_spin_lock() {
            let mut held = HeldLocks::EMPTY;
            held.add(lock(LockRank::Reclaimer, 1));
            held.park();
        }
    }
}
