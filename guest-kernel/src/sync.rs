//! The kernel's lock: a spin lock that masks upcalls while it is held.
//!
//! A thread that holds one is never interrupted on its own CPU, so an upcall can't wait for a lock
//! that the code under it holds. Critical sections are short: no I/O, no allocation from the
//! application heap, and no access to memory that may be evicted, as a page fault takes locks and
//! may have to wait. Builds with debug assertions report a fault under a lock as a bug of the
//! kernel ([`crate::arch::x86_64::trap`]), a thread that sleeps with one, and a lock that is taken
//! out of its [order](rank).

mod order;
mod rank;

use core::fmt;
use core::ops::{Deref, DerefMut};

pub(crate) use self::order::OrderCheck;
#[cfg(target_os = "none")]
pub(crate) use self::order::park;
pub(crate) use self::rank::LockRank;
use crate::arch::x86_64::cpu::UpcallMask;

/// Data behind a spin lock.
pub(crate) struct SpinLock<T> {
    order: OrderCheck,
    inner: spin::Mutex<T>,
}

/// Access to the data. Dropping it releases the lock and then unmasks upcalls.
#[must_use]
pub(crate) struct SpinGuard<'a, T> {
    order: &'a OrderCheck,
    // Order matters: fields are dropped from the top.
    data: spin::MutexGuard<'a, T>,
    _mask: UpcallMask,
}

impl<T> SpinLock<T> {
    /// Returns an unlocked lock that is taken in the order that `rank` says.
    pub(crate) const fn new(rank: LockRank, data: T) -> Self {
        Self { order: OrderCheck::new(rank), inner: spin::Mutex::new(data) }
    }

    /// Acquires the lock; spins until it is free.
    ///
    /// # Panics
    /// Panics in builds with debug assertions when a lock is held that must be taken later.
    pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
        let mask = UpcallMask::new();
        self.order.check();
        self.guard(self.inner.lock(), mask)
    }

    /// Acquires the lock if it is free: for code that may run in the middle of anything, such as a
    /// panic report. It waits for nothing, so it may be called out of the order.
    pub(crate) fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let mask = UpcallMask::new();
        Some(self.guard(self.inner.try_lock()?, mask))
    }

    fn guard<'a>(&'a self, data: spin::MutexGuard<'a, T>, mask: UpcallMask) -> SpinGuard<'a, T> {
        self.order.taken();
        SpinGuard { order: &self.order, data, _mask: mask }
    }

    /// Releases the lock for a guard that was forgotten, because another thread goes on where its
    /// owner left off. The mask stays.
    ///
    /// # Safety
    /// The lock is held, and the guard that held it is never used or dropped.
    #[allow(unsafe_code, reason = "handing a held lock from one thread to the next is what a context switch is")]
    pub(crate) unsafe fn release_forgotten(&self) {
        self.order.released();
        // SAFETY: the caller vouches that the guard is gone.
        unsafe { self.inner.force_unlock() };
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    fn drop(&mut self) {
        self.order.released();
    }
}

impl<T> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinLock").field("is_locked", &self.inner.is_locked()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for SpinGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

#[cfg(test)]
mod tests {
    use super::{LockRank, SpinLock};

    fn pair() -> (SpinLock<u32>, SpinLock<u32>) {
        (SpinLock::new(LockRank::Reclaimer, 1), SpinLock::new(LockRank::AddressSpace, 2))
    }

    #[test]
    fn locks_are_taken_by_rank_and_released_in_any_order() {
        let (first, second) = pair();
        for _ in 0..3 {
            let (one, two) = (first.lock(), second.lock());
            drop(one);
            assert_eq!(*two, 2);
        }
        assert_eq!(*second.lock(), 2);
        assert_eq!(*first.lock(), 1, "one after the other has no order");
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "lock order: Reclaimer is taken while AddressSpace is held")]
    fn the_wrong_order_is_reported() {
        let (first, second) = pair();
        let _two = second.lock();
        let _one = first.lock();
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "lock order: Reclaimer is taken while Reclaimer is held")]
    fn a_thread_that_would_wait_for_itself_is_reported() {
        let (first, _) = pair();
        let _one = first.lock();
        let _again = first.lock(); // would spin for ever
    }

    #[test]
    fn trying_needs_no_order_but_counts_as_held() {
        let (first, second) = pair();
        let two = second.lock();
        let one = first.try_lock().expect("it is free");
        drop(two);
        assert_eq!((*second.lock(), *one), (2, 1));
    }
}
