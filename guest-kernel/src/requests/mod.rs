//! What the application is going to need, and what the guest asks its host for.
//!
//! [`Requester`] decides, and is pure. The application declares workloads and waits for them; the
//! part that reaches the host, the balloon driver's thread, passes on updates and sends requests.
//! Where there is no such part, or its host does not share out memory by request, declarations are
//! answered so.

mod exchange;
mod growth;
mod requester;
mod workloads;

#[cfg(target_os = "none")]
pub use self::requester::Status;
#[cfg(any(test, target_os = "none"))]
pub(crate) use self::workloads::{Claim, Workload};
#[cfg(target_os = "none")]
pub(crate) use self::{
    exchange::{ResourceHost, exchange},
    requester::{MemoryState, Requester, Update},
    shared::{REQUESTER, changed, memory_state, set_sender, wait, wake},
    workloads::WorkloadId,
};

#[cfg(target_os = "none")]
mod shared {
    use aerostat_abi::threads::Wait;
    use spin::Once;

    use super::{MemoryState, Requester};
    use crate::mm::{self, FRAMES};
    use crate::sync::{LockRank, SpinLock};
    use crate::thread::Event;
    use crate::time::Instant;

    /// The guest's requests.
    pub(crate) static REQUESTER: SpinLock<Requester> = SpinLock::new(LockRank::Requests, Requester::new());
    /// Wakes the threads that wait for what they have declared.
    static CHANGED: Event = Event::of(Wait::Host);
    static SENDER: Once<fn()> = Once::new();

    /// Returns the state of the guest's memory.
    pub(crate) fn memory_state() -> MemoryState {
        let total = mm::total_frames();
        let size = total.saturating_sub(FRAMES.ballooned()).saturating_sub(FRAMES.reclaimed_by_host());
        let frames = FRAMES.statistics();
        MemoryState { total, size, spare: frames.free.min(frames.available) }
    }

    /// Sets what has the requester asked what to send.
    pub(crate) fn set_sender(send: fn()) {
        SENDER.call_once(|| send);
    }

    /// Has a request sent if one is due, as the declarations have changed.
    pub(crate) fn changed() {
        if let Some(send) = SENDER.get() {
            send();
        }
    }

    /// Wakes the threads in [`wait`]: memory or an answer has come.
    pub(crate) fn wake() {
        CHANGED.signal();
    }

    /// Waits for memory or an answer, at most until the given moment.
    pub(crate) fn wait(until: Instant) {
        CHANGED.wait(Some(until));
    }
}
