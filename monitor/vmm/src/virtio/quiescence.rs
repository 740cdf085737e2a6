//! Keeps devices out of guest memory for a moment.
//!
//! A worker reads rings and reads and writes buffers only while it holds its queue's lock, from
//! before it polls a ring until it goes to sleep. A thread that holds the locks of all queues
//! therefore knows that no device accesses guest memory, and that none is about to. A worker may
//! hold its lock for as long as a request takes, so the locks are only tried.

use std::sync::{Arc, MutexGuard};

use super::state::{ActiveQueue, State};

/// The workers of a guest's devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workers(Vec<Arc<State>>);

/// Proof that no device accesses guest memory as long as it exists. Workers wait for its end.
#[derive(Debug)]
pub(crate) struct Quiescent<'a> {
    _queues: Vec<MutexGuard<'a, Option<ActiveQueue>>>,
}

impl Workers {
    pub(super) fn new(states: Vec<Arc<State>>) -> Self {
        Self(states)
    }

    /// Holds all workers, or none where one of them is at work. Never blocks.
    pub(crate) fn hold(&self) -> Option<Quiescent<'_>> {
        let queues = self.0.iter().map(|state| state.try_lock()).collect::<Option<_>>()?;
        Some(Quiescent { _queues: queues })
    }
}

#[cfg(test)]
impl Workers {
    /// Creates one worker that is at work for ever.
    pub(crate) fn one_at_work() -> Self {
        let interrupt = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
        let state = Arc::new(State::new(interrupt));
        std::mem::forget(state.lock());
        Self::new(vec![state])
    }
}

#[cfg(test)]
mod tests {
    use super::Workers;
    use crate::virtio::state::State;
    use std::sync::Arc;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    #[test]
    fn all_workers_are_held_or_none() {
        let states: Vec<_> = (0..2).map(|_| Arc::new(State::new(EventFd::new(EFD_NONBLOCK).unwrap()))).collect();
        let workers = Workers::new(states.clone());
        let at_work = states[1].lock();
        assert!(workers.hold().is_none());
        assert!(states[0].try_lock().is_some(), "the first was let go again");
        drop(at_work);
        let held = workers.hold();
        assert!(held.is_some() && states.iter().all(|state| state.try_lock().is_none()));
        drop(held);
        assert!(states.iter().all(|state| state.try_lock().is_some()));
    }

    #[test]
    fn a_guest_without_devices_is_always_at_rest() {
        assert!(Workers::default().hold().is_some());
    }
}
