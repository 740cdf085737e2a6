//! Locking of what this process's threads share.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Locks what two threads use. A thread that panicked while it held the lock has left plain values,
/// which are still valid: the other thread can go on using the device.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does the same where no thread holds the lock now.
pub(super) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
