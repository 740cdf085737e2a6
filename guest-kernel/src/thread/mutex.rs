//! A sleeping lock, for application code: accesses to what it protects may fault, and its holder
//! may wait.
#![allow(unsafe_code, reason = "a lock gives exclusive access to what is in its cell")]

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use aerostat_abi::threads::Wait;

use super::Event;
use crate::sync::{LockRank, OrderCheck};

const OPEN: u32 = 0;
const LOCKED: u32 = 1;
/// Locked, and threads may be waiting.
const CONTENDED: u32 = 2;

/// Data that one thread at a time may access.
#[derive(Debug)]
pub struct Mutex<T> {
    order: OrderCheck,
    state: AtomicU32,
    opened: Event,
    data: UnsafeCell<T>,
}

// SAFETY: the data is reached through a guard only, and there is one guard at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// Access to the data. Dropping it opens the lock.
#[derive(Debug)]
#[must_use]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Makes sharing a guard depend on the data, not on the mutex.
    _data: PhantomData<*const T>,
}

// SAFETY: a shared guard gives shared access to the data.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> Mutex<T> {
    /// Returns an open lock.
    pub const fn new(data: T) -> Self {
        Self::ranked(LockRank::Application, data)
    }

    /// Returns an open lock that is taken in the order that `rank` says.
    pub(crate) const fn ranked(rank: LockRank, data: T) -> Self {
        let order = OrderCheck::new(rank);
        Self { order, state: AtomicU32::new(OPEN), opened: Event::of(Wait::Lock), data: UnsafeCell::new(data) }
    }

    /// Acquires the lock; waits until it is open.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.order.check();
        if self.state.compare_exchange(OPEN, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // A thread that had to wait leaves the lock marked: others may wait too.
            while self.state.swap(CONTENDED, Ordering::Acquire) != OPEN {
                self.opened.wait(None);
            }
        }
        self.order.taken();
        MutexGuard { mutex: self, _data: PhantomData }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.mutex.order.released();
        if self.mutex.state.swap(OPEN, Ordering::Release) == CONTENDED {
            self.mutex.opened.signal();
        }
    }
}
