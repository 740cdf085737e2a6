//! What the vCPU's thread and a device's workers share: the device's status, its pending
//! interrupts, and its queues while they are served.
//!
//! A worker holds its queue's lock while it works on a request; the vCPU's thread takes it to start
//! and to stop the queue. So once a stop returns, no request is in progress and guest memory is not
//! touched any more. `is_running` is cleared before the lock is taken: the worker checks it between
//! any two requests, which bounds the wait to one request. A worker that stops its device clears it
//! for all queues and takes no other queue's lock.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory};
use vmm_sys_util::eventfd::EventFd;

use super::device::QueueIndex;
use super::registers::QueueSetup;
use crate::lock::{lock, try_lock};

/// Bits of the device status register (virtio 1.2, 2.1).
pub(super) mod status {
    pub(in super::super) const ACKNOWLEDGE: u32 = 1;
    pub(in super::super) const DRIVER: u32 = 2;
    pub(in super::super) const DRIVER_OK: u32 = 4;
    pub(in super::super) const FEATURES_OK: u32 = 8;
    pub(in super::super) const NEEDS_RESET: u32 = 0x40;
    pub(in super::super) const FAILED: u32 = 0x80;
    /// Those that the driver sets.
    pub(in super::super) const DRIVERS: u32 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;
}

/// Bits of the interrupt status register.
const USED_BUFFERS: u32 = 1;
const CONFIG_CHANGE: u32 = 2;

/// The state of one device.
#[derive(Debug)]
pub(super) struct State {
    status: AtomicU32,
    interrupts: AtomicU32,
    queues: Box<[QueueState]>,
    /// Why the device stopped the first time.
    complaint: Mutex<Option<String>>,
    /// Raises the device's interrupt in the guest.
    interrupt: EventFd,
}

/// The state of one queue.
#[derive(Debug, Default)]
struct QueueState {
    is_running: AtomicBool,
    active: Mutex<Option<ActiveQueue>>,
}

/// A queue that is being served.
#[derive(Debug)]
pub(super) struct ActiveQueue {
    pub(super) queue: Queue,
    /// The features that were negotiated.
    pub(super) features: u64,
}

impl State {
    /// Creates a device of so many queues that was just reset, and raises its interrupt by writing
    /// to `interrupt`.
    pub(super) fn new(queues: usize, interrupt: EventFd) -> Self {
        Self {
            status: AtomicU32::new(0),
            interrupts: AtomicU32::new(0),
            queues: (0..queues).map(|_| QueueState::default()).collect(),
            complaint: Mutex::new(None),
            interrupt,
        }
    }

    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    pub(super) fn interrupts(&self) -> u32 {
        self.interrupts.load(Ordering::Acquire)
    }

    /// Returns the eventfd behind the interrupt.
    pub(super) const fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    /// Sets the driver's status bits; only a reset clears any.
    pub(super) fn add_status(&self, bits: u32) {
        self.status.fetch_or(bits, Ordering::AcqRel);
    }

    /// Acknowledges interrupts that the driver has seen.
    pub(super) fn acknowledge(&self, bits: u32) {
        self.interrupts.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Starts the queues that are ready, of at most the sizes `most`. Stops the device if one is
    /// invalid, or none is ready.
    pub(super) fn start(&self, setups: &[QueueSetup], features: u64, most: &[u16], memory: &impl GuestMemory) {
        // A driver need not use all queues (virtio 1.2, 4.2.3.2).
        let are_all_unused = setups.iter().all(|setup| !setup.ready);
        for ((state, setup), most) in self.queues.iter().zip(setups).zip(most) {
            if !setup.ready && !are_all_unused {
                continue;
            }
            let mut place = lock(&state.active);
            match checked(setup, *most, memory) {
                Ok(queue) => {
                    *place = Some(ActiveQueue { queue, features });
                    state.is_running.store(true, Ordering::Release);
                }
                Err(why) => return self.stop(&mut place, why),
            }
        }
    }

    /// Takes a queue from its worker. No request of it is in progress when this returns.
    pub(super) fn stop_queue(&self, index: QueueIndex) {
        let state = &self.queues[index.0];
        state.is_running.store(false, Ordering::Release);
        *lock(&state.active) = None;
    }

    /// Resets the device. No request is in progress when this returns.
    pub(super) fn reset(&self) {
        self.halt();
        for state in &self.queues {
            *lock(&state.active) = None;
        }
        self.status.store(0, Ordering::Release);
        self.interrupts.store(0, Ordering::Release);
    }

    /// Stops the device until it is reset, as the driver broke the rules. The caller holds the lock
    /// of `queue`; the other queues' workers stop after the request that they are working on.
    pub(super) fn stop(&self, queue: &mut Option<ActiveQueue>, why: impl Into<String>) {
        self.halt();
        *queue = None;
        // The reason comes first: a guest that sees the status may end at once, and the reason is
        // part of the report.
        lock(&self.complaint).get_or_insert(why.into());
        self.status.fetch_or(status::NEEDS_RESET, Ordering::AcqRel);
        self.raise(CONFIG_CHANGE);
    }

    /// Returns whether a queue is to be served.
    pub(super) fn is_running(&self, index: QueueIndex) -> bool {
        self.queues[index.0].is_running.load(Ordering::Acquire)
    }

    /// Returns a queue, for its worker.
    pub(super) fn lock(&self, index: QueueIndex) -> MutexGuard<'_, Option<ActiveQueue>> {
        lock(&self.queues[index.0].active)
    }

    /// Returns all queues, each where its worker is idle.
    pub(super) fn try_lock_all(&self) -> impl Iterator<Item = Option<MutexGuard<'_, Option<ActiveQueue>>>> {
        self.queues.iter().map(|state| try_lock(&state.active))
    }

    /// Tells the driver that requests are done.
    pub(super) fn announce(&self) {
        self.raise(USED_BUFFERS);
    }

    /// Returns why the device stopped, if it ever did.
    pub(super) fn complaint(&self) -> Option<String> {
        lock(&self.complaint).clone()
    }

    /// Makes all workers stop after the request that they are working on.
    fn halt(&self) {
        for state in &self.queues {
            state.is_running.store(false, Ordering::Release);
        }
    }

    fn raise(&self, bits: u32) {
        self.interrupts.fetch_or(bits, Ordering::AcqRel);
        // The counter overflows only where no machine takes the interrupt.
        let _ = self.interrupt.write(1);
    }
}

/// Builds a queue of `virtio-queue`, once every number in it is valid.
fn checked(setup: &QueueSetup, most: u16, memory: &impl GuestMemory) -> Result<Queue, String> {
    let mut queue = Queue::new(most).map_err(|error| error.to_string())?;
    let size = u16::try_from(setup.size).map_err(|_| "the queue is too long")?;
    queue.try_set_size(size).map_err(|_| format!("a queue can't have {size} descriptors"))?;
    queue.try_set_desc_table_address(GuestAddress(setup.descriptors)).map_err(|error| error.to_string())?;
    queue.try_set_avail_ring_address(GuestAddress(setup.driver_ring)).map_err(|error| error.to_string())?;
    queue.try_set_used_ring_address(GuestAddress(setup.device_ring)).map_err(|error| error.to_string())?;
    queue.set_ready(setup.ready);
    if !queue.is_valid(memory) {
        return Err("the queue is not ready or not in memory".to_owned());
    }
    Ok(queue)
}

#[cfg(test)]
mod tests {
    use super::{State, status};
    use crate::virtio::device::QueueIndex;
    use crate::virtio::registers::QueueSetup;
    use vm_memory::{GuestAddress, GuestMemoryMmap};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    const GOOD: QueueSetup =
        QueueSetup { size: 16, ready: true, descriptors: 0x1000, driver_ring: 0x2000, device_ring: 0x3000 };
    const UNUSED: QueueSetup = QueueSetup { ready: false, ..GOOD };
    const FIRST: QueueIndex = QueueIndex(0);
    const SECOND: QueueIndex = QueueIndex(1);

    fn start(setups: &[QueueSetup]) -> State {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let state = State::new(setups.len(), EventFd::new(EFD_NONBLOCK).unwrap());
        state.start(setups, 0, &[256; 2], &memory);
        state
    }

    #[test]
    fn good_queues_run_until_they_are_stopped() {
        let state = start(&[GOOD]);
        assert!(state.is_running(FIRST) && state.lock(FIRST).is_some());
        state.stop_queue(FIRST);
        assert!(!state.is_running(FIRST) && state.lock(FIRST).is_none());
        assert_eq!((state.status(), state.complaint()), (0, None));
    }

    #[test]
    fn queues_run_and_stop_by_themselves() {
        let state = start(&[GOOD, GOOD]);
        let busy = state.lock(FIRST);
        state.stop_queue(SECOND);
        assert!(state.is_running(FIRST) && !state.is_running(SECOND));
        drop(busy);
        let state = start(&[UNUSED, GOOD]);
        assert!(!state.is_running(FIRST) && state.is_running(SECOND) && state.status() == 0);
    }

    #[test]
    fn one_broken_queue_stops_all() {
        let state = start(&[GOOD, QueueSetup { size: 17, ..GOOD }]);
        assert_eq!((state.is_running(FIRST), state.is_running(SECOND)), (false, false));
        assert_eq!(state.status(), status::NEEDS_RESET);
        let state = start(&[GOOD, GOOD]);
        let busy = state.lock(SECOND);
        state.stop(&mut state.lock(FIRST), "test");
        assert!(!state.is_running(SECOND), "its worker stops when it can");
        drop(busy);
        state.reset();
        assert!(state.lock(SECOND).is_none());
    }

    #[test]
    fn impossible_queues_stop_the_device() {
        for bad in [
            QueueSetup { size: 0, ..GOOD },
            QueueSetup { size: 17, ..GOOD },
            QueueSetup { size: 512, ..GOOD },
            QueueSetup { size: 1 << 16, ..GOOD },
            QueueSetup { ready: false, ..GOOD },
            QueueSetup { descriptors: 0x1008, ..GOOD },
            QueueSetup { descriptors: !0xf, ..GOOD },
            QueueSetup { driver_ring: 0x2001, ..GOOD },
            QueueSetup { driver_ring: 0xfff0, ..GOOD },
            QueueSetup { device_ring: 0x3002, ..GOOD },
            QueueSetup { device_ring: 0x1_0000, ..GOOD },
        ] {
            let state = start(&[bad]);
            assert_eq!((state.is_running(FIRST), state.status(), state.interrupts()), (false, status::NEEDS_RESET, 2));
            assert_eq!(state.interrupt().read().unwrap(), 1);
            assert!(state.complaint().is_some());
            state.reset();
            assert_eq!((state.status(), state.interrupts()), (0, 0));
        }
    }
}
