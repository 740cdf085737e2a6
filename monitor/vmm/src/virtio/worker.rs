//! A disk's worker: the thread that serves its queue, so that the vCPU runs on while the host's
//! disk works.
//!
//! The worker sleeps on an eventfd that KVM writes when the guest notifies the device; the vCPU's
//! thread is not involved. The worker checks whether the queue is still the device's at least once
//! for each request, whose size is bounded, and one poll of the ring takes at most as many requests
//! as the queue has descriptors. A guest that feeds its queue for ever therefore keeps only its own
//! worker busy.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use rustix::thread::sched_yield;
use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::adaptive_poll::AdaptivePoll;
use super::block::{Cache, Disk, FEATURE_FLUSH, MOST_PARTS};
use super::chain::{Chain, Malformed};
use super::memory::DeviceMemory;
use super::state::{ActiveQueue, State};
use aerostat_link::clock::monotonic_ns;

/// The thread needs a small stack: the vectors of a request are on the heap.
const STACK_BYTES: usize = 128 << 10;
/// The driver is told of finished requests after so many, or so many bytes, where more wait: that
/// makes few interrupts, and a driver need not wait for the end of a long queue before it sends
/// more.
const ANNOUNCE_REQUESTS: u32 = 16;
const ANNOUNCE_BYTES: u64 = 256 << 10;
/// The driver wants no interrupts (`VIRTQ_AVAIL_F_NO_INTERRUPT`).
const NO_INTERRUPT: u16 = 1;

/// What a worker needs.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) state: Arc<State>,
    pub(super) memory: Arc<DeviceMemory>,
    pub(super) disk: Disk,
    /// Waits until the eventfd is readable, which means that there is work.
    pub(super) kick: EventFd,
}

impl Worker {
    /// Starts the thread, which ends with the process.
    pub(super) fn spawn(mut self, name: &str) -> io::Result<()> {
        let serve = move || {
            let mut adaptive_poll = AdaptivePoll::default();
            loop {
                match self.kick.read() {
                    Ok(_) => serve(&self.state, &self.memory, &mut self.disk, &mut adaptive_poll),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        let why = format!("its worker can't wait for work: {error}");
                        return self.state.stop(&mut self.state.lock(), why);
                    }
                }
            }
        };
        thread::Builder::new().name(format!("disk {name}")).stack_size(STACK_BYTES).spawn(serve).map(drop)
    }
}

/// Serves all that is in the queue, or stops the device if it is invalid. Returns when there is
/// nothing more to do and the next request will be notified.
pub(super) fn serve(state: &State, memory: &GuestMemoryMmap, disk: &mut Disk, adaptive_poll: &mut AdaptivePoll) {
    let mut place = state.lock();
    let Some(active) = place.as_mut() else { return };
    let result = work(state, active, memory, (disk, adaptive_poll));
    if let Err(why) = result {
        state.stop(&mut place, why.to_string());
    }
}

/// Why a queue can't be served any further.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Chain(#[from] Malformed),
    #[error("the queue is broken: {0}")]
    Queue(#[from] Error),
}

/// Finished requests that the driver has not been told of.
#[derive(Debug, Default)]
struct Unannounced {
    requests: u32,
    bytes: u64,
}

fn work(
    state: &State,
    active: &mut ActiveQueue,
    memory: &GuestMemoryMmap,
    (disk, adaptive_poll): (&mut Disk, &mut AdaptivePoll),
) -> Result<(), Broken> {
    let ActiveQueue { queue, features } = active;
    let cache = if *features & FEATURE_FLUSH == 0 { Cache::WriteThrough } else { Cache::WriteBack };
    let mut unannounced = Unannounced::default();
    queue.disable_notification(memory)?;
    loop {
        adaptive_poll.resume(monotonic_ns());
        while let Some(chain) = next_chain(state, queue, memory)? {
            let head = chain.head_index();
            let served = disk.serve(memory, Chain::collect(chain, MOST_PARTS)?, cache)?;
            queue.add_used(memory, head, served.written)?;
            unannounced.requests += 1;
            unannounced.bytes += served.moved;
            if unannounced.requests >= ANNOUNCE_REQUESTS || unannounced.bytes >= ANNOUNCE_BYTES {
                announce(state, queue, memory, &mut unannounced)?;
            }
        }
        announce(state, queue, memory, &mut unannounced)?;
        if poll(state, queue, memory, adaptive_poll)? {
            continue;
        }
        // A request between the last poll and this enabling was not notified.
        if !state.is_running() || !queue.enable_notification(memory)? {
            return Ok(());
        }
        queue.disable_notification(memory)?;
    }
}

/// Polls for a request as long as that is worthwhile; returns whether there is one.
fn poll(
    state: &State,
    queue: &Queue,
    memory: &GuestMemoryMmap,
    adaptive_poll: &mut AdaptivePoll,
) -> Result<bool, Error> {
    adaptive_poll.pause(monotonic_ns());
    while state.is_running() && adaptive_poll.goes_on(monotonic_ns()) {
        if queue.avail_idx(memory, Ordering::Acquire)?.0 != queue.next_avail() {
            return Ok(true);
        }
        sched_yield();
    }
    Ok(false)
}

/// Returns the next request, unless the device has to stop.
fn next_chain<'a>(
    state: &State,
    queue: &mut Queue,
    memory: &'a GuestMemoryMmap,
) -> Result<Option<virtio_queue::DescriptorChain<&'a GuestMemoryMmap>>, Error> {
    if !state.is_running() {
        return Ok(None);
    }
    Ok(queue.iter(memory)?.next())
}

/// Raises the interrupt for finished requests not announced yet, if any, unless the driver wants
/// none.
fn announce(
    state: &State,
    queue: &Queue,
    memory: &GuestMemoryMmap,
    unannounced: &mut Unannounced,
) -> Result<(), Error> {
    if std::mem::take(unannounced).requests == 0 {
        return Ok(());
    }
    // The used ring has to be visible before the driver's setting is read: a driver that changes it
    // checks the ring afterwards.
    std::sync::atomic::fence(Ordering::SeqCst);
    let flags: u16 = memory.load(GuestAddress(queue.avail_ring()), Ordering::Relaxed).map_err(Error::GuestMemory)?;
    if u16::from_le(flags) & NO_INTERRUPT == 0 {
        state.announce();
    }
    Ok(())
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
