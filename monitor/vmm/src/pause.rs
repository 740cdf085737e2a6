//! Stops the vCPU between two runs of the guest, and lets it go on.
//!
//! The main thread closes the gate and kicks the vCPU's thread out of the guest until it is held
//! there: a signal that comes just before the processor enters the guest would be lost. The
//! thread's token of [`std::thread::park`] is not lost, so one that is held needs one
//! [`std::thread::Thread::unpark`] only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The gate, which both threads share.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_closed: AtomicBool,
    /// Whether the vCPU's thread waits at the gate.
    is_held: AtomicBool,
}

impl Gate {
    /// Stops the vCPU's thread when it comes here next.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Lets the thread go on, once it is unparked.
    pub(super) fn open(&self) {
        self.is_closed.store(false, Ordering::Release);
    }

    /// Returns whether the thread is to be kicked out of the guest.
    pub(super) fn needs_kick(&self) -> bool {
        self.is_closed.load(Ordering::Acquire) && !self.is_held.load(Ordering::Acquire)
    }

    /// Waits while the gate is closed, until the thread is unparked. Returns whether the guest may
    /// run; if not, there may be something else to do, and the caller comes again.
    pub(super) fn pass(&self) -> bool {
        if !self.is_closed.load(Ordering::Acquire) {
            self.is_held.store(false, Ordering::Release);
            return true;
        }
        self.is_held.store(true, Ordering::Release);
        thread::park();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Gate;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    #[test]
    fn a_thread_is_held_until_the_gate_is_open_again() {
        let gate = Arc::new(Gate::default());
        assert!(gate.pass() && !gate.needs_kick());
        gate.close();
        assert!(gate.needs_kick());
        let turns = Arc::new(AtomicU64::new(0));
        let (theirs, counted) = (Arc::clone(&gate), Arc::clone(&turns));
        let thread = thread::spawn(move || {
            while !theirs.pass() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        while gate.needs_kick() {
            thread::yield_now();
        }
        // What is served while the guest stands still wakes the thread, and it is held again.
        thread.thread().unpark();
        while turns.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        assert!(!thread.is_finished() && !gate.needs_kick());
        gate.open();
        thread.thread().unpark();
        thread.join().unwrap();
        assert!(!gate.needs_kick());
    }
}
