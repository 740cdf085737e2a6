//! A queue's worker: the thread that serves it, so that the vCPU runs on while the host's disk
//! works.
//!
//! The worker sleeps on an eventfd that KVM writes when the guest notifies the device; the vCPU's
//! thread is not involved. The worker checks whether the queue is still the device's at least once
//! for each request, whose size is bounded, and one poll of the ring takes at most as many requests
//! as the queue has descriptors. A guest that feeds its queue for ever therefore keeps only its own
//! worker busy.

use std::io;
use std::sync::Arc;
use std::thread;

use aerostat_link::clock::monotonic_ns;
use rustix::thread::sched_yield;
use virtio_queue::Error;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::adaptive_poll::AdaptivePoll;
use super::device::{Device, QueueIndex};
use super::memory::DeviceMemory;
use super::queue::{Broken, Requests};
use super::state::State;
use crate::jail::{self, Thread};

/// The thread needs a small stack: the vectors of a request are on the heap.
const STACK_BYTES: usize = 128 << 10;

/// What a worker needs.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) device: Arc<dyn Device>,
    pub(super) queue: QueueIndex,
    pub(super) state: Arc<State>,
    pub(super) memory: Arc<DeviceMemory>,
    /// Waits until the eventfd is readable, which means that there is work.
    pub(super) kick: EventFd,
}

impl Worker {
    /// Starts the thread, which ends with the process.
    pub(super) fn spawn(self) -> io::Result<()> {
        let thread = thread::Builder::new().name(self.device.name().to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || self.run()).map(drop)
    }

    fn run(&self) {
        if let Err(error) = jail::confine(Thread::Disk) {
            let why = format!("its worker can't be confined: {error}");
            return self.state.stop(&mut self.state.lock(self.queue), why);
        }
        let mut adaptive_poll = AdaptivePoll::default();
        loop {
            match self.kick.read() {
                Ok(_) => serve(&*self.device, self.queue, (&self.state, &self.memory), &mut adaptive_poll),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let why = format!("its worker can't wait for work: {error}");
                    return self.state.stop(&mut self.state.lock(self.queue), why);
                }
            }
        }
    }
}

/// Serves all that is in the queue, or stops the device if it is invalid. Returns when there is
/// nothing more to do and the next request will be notified.
pub(super) fn serve(
    device: &dyn Device,
    queue: QueueIndex,
    (state, memory): (&State, &GuestMemoryMmap),
    adaptive_poll: &mut AdaptivePoll,
) {
    let mut place = state.lock(queue);
    // A device that another worker has stopped keeps this queue until its reset.
    let Some(active) = place.as_mut().filter(|_| state.is_running(queue)) else { return };
    let result = work(device, &mut Requests::new(state, queue, active, memory), adaptive_poll);
    if let Err(why) = result {
        state.stop(&mut place, why.to_string());
    }
}

fn work(device: &dyn Device, requests: &mut Requests<'_>, adaptive_poll: &mut AdaptivePoll) -> Result<(), Broken> {
    requests.disable_notification()?;
    loop {
        adaptive_poll.resume(monotonic_ns());
        device.serve(requests)?;
        requests.announce()?;
        if poll(requests, adaptive_poll)? {
            continue;
        }
        // A request between the last poll and this enabling was not notified.
        if !requests.is_running() || !requests.enable_notification()? {
            return Ok(());
        }
        requests.disable_notification()?;
    }
}

/// Polls for a request as long as that is worthwhile; returns whether there is one.
fn poll(requests: &Requests<'_>, adaptive_poll: &mut AdaptivePoll) -> Result<bool, Error> {
    adaptive_poll.pause(monotonic_ns());
    while requests.is_running() && adaptive_poll.goes_on(monotonic_ns()) {
        if requests.is_one_available()? {
            return Ok(true);
        }
        sched_yield();
    }
    Ok(false)
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
