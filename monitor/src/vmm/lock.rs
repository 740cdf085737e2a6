//! Locks of this process.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Locks what two threads use. A thread that panicked with it has left plain values that are still
/// good: a device whose other user is gone is still a device.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same where no thread has it now.
pub(super) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
