//! The kernel's lock: a spin lock that masks upcalls while it is held.
//!
//! A thread that holds one is never interrupted on its own CPU, so an upcall can't wait for a lock
//! that the code under it holds. Critical sections are short: no I/O, no allocation from the
//! application heap, and no access to memory that may be evicted, as a page fault takes locks and
//! may have to wait. Builds with debug assertions report a fault under a lock as a bug of the
//! kernel ([`crate::arch::x86_64::trap`]), and a thread that sleeps with one. The order in which locks are taken
//! is in `docs/ARCHITECTURE.md`.

use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::arch::x86_64::cpu::UpcallMask;

/// Data behind a spin lock.
pub(crate) struct SpinLock<T> {
    inner: spin::Mutex<T>,
}

/// Access to the data. Dropping it releases the lock and then unmasks upcalls.
#[must_use]
pub(crate) struct SpinGuard<'a, T> {
    // Order matters: fields are dropped from the top.
    data: spin::MutexGuard<'a, T>,
    _mask: UpcallMask,
}

impl<T> SpinLock<T> {
    /// Returns an unlocked lock.
    pub(crate) const fn new(data: T) -> Self {
        Self { inner: spin::Mutex::new(data) }
    }

    /// Acquires the lock; spins until it is free.
    pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
        let mask = UpcallMask::new();
        SpinGuard { data: self.inner.lock(), _mask: mask }
    }

    /// Acquires the lock if it is free: for code that may run in the middle of anything, such as a
    /// panic report.
    pub(crate) fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let mask = UpcallMask::new();
        Some(SpinGuard { data: self.inner.try_lock()?, _mask: mask })
    }

    /// Releases the lock for a guard that was forgotten, because another thread goes on where its
    /// owner left off. The mask stays.
    ///
    /// # Safety
    /// The lock is held, and the guard that held it is never used or dropped.
    #[allow(unsafe_code, reason = "handing a held lock from one thread to the next is what a context switch is")]
    pub(crate) unsafe fn release_forgotten(&self) {
        // SAFETY: the caller vouches that the guard is gone.
        unsafe { self.inner.force_unlock() };
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
