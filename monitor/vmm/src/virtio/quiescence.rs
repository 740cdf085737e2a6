//! Keeps devices out of guest memory for a moment.
//!
//! A worker reads rings and reads and writes buffers only while it holds its queue's lock, from
//! before it polls a ring until it goes to sleep. A thread that holds the locks of all queues
//! therefore knows that no device accesses guest memory, and that none is about to. A worker may
//! hold its lock for as long as a request takes, so the locks are only tried.

use std::sync::{Arc, MutexGuard};

#[cfg(test)]
use super::device::QueueIndex;
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
        let queues = self.0.iter().flat_map(|state| state.try_lock_all()).collect::<Option<_>>()?;
        Some(Quiescent { _queues: queues })
    }
}

#[cfg(test)]
impl Workers {
    /// Creates one worker that is at work for ever.
    pub(crate) fn one_at_work() -> Self {
        let interrupt = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
        let state = Arc::new(State::new(1, interrupt));
        std::mem::forget(state.lock(QueueIndex(0)));
        Self::new(vec![state])
    }
}

#[cfg(test)]
mod tests {
    use super::Workers;
    use crate::virtio::device::QueueIndex;
    use crate::virtio::state::State;
    use std::sync::Arc;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    #[test]
    fn all_workers_are_held_or_none() {
        let state = |queues| Arc::new(State::new(queues, EventFd::new(EFD_NONBLOCK).unwrap()));
        let states = [state(1), state(2)];
        let workers = Workers::new(states.to_vec());
        let idle =
            || states.iter().flat_map(|state| state.try_lock_all()).map(|queue| queue.is_some()).collect::<Vec<_>>();
        let at_work = states[1].lock(QueueIndex(1));
        assert!(workers.hold().is_none());
        assert_eq!(idle(), vec![true, true, false], "the others were let go again");
        drop(at_work);
        let held = workers.hold();
        assert!(held.is_some());
        assert_eq!(idle(), vec![false; 3]);
        drop(held);
        assert_eq!(idle(), vec![true; 3]);
    }

    #[test]
    fn a_guest_without_devices_is_always_at_rest() {
        assert!(Workers::default().hold().is_some());
    }
}
