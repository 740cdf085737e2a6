//! A queue while its worker serves it: requests come out of it, and go back finished.

use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Error, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::chain::{Chain, Malformed};
use super::device::QueueIndex;
use super::state::{ActiveQueue, State};

/// The driver is told of finished requests after so many, or so many bytes, where more wait: that
/// makes few interrupts, and a driver need not wait for the end of a long queue before it sends
/// more.
const ANNOUNCE_REQUESTS: u32 = 16;
const ANNOUNCE_BYTES: u64 = 256 << 10;
/// The driver wants no interrupts (`VIRTQ_AVAIL_F_NO_INTERRUPT`).
const NO_INTERRUPT: u16 = 1;

/// Why a queue can't be served any further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Chain(#[from] Malformed),
    #[error("the queue is broken: {0}")]
    Queue(#[from] Error),
}

/// A request of the driver.
#[derive(Debug)]
pub(crate) struct Request {
    /// Is given back by [`Requests::finish`].
    pub(crate) head: Head,
    /// The memory that it names.
    pub(super) chain: Chain,
}

/// The descriptor at which a request begins. Not `Clone`: a request is finished once.
#[derive(Debug)]
pub(crate) struct Head(u16);

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    /// Bytes that were written to the writable parts, from their beginning.
    pub(crate) written: u32,
    /// Bytes that were moved between memory and what is behind the device.
    pub(crate) moved: u64,
}

/// Finished requests that the driver has not been told of.
#[derive(Debug, Default)]
struct Unannounced {
    requests: u32,
    bytes: u64,
}

/// The requests of one queue.
#[derive(Debug)]
pub(crate) struct Requests<'a> {
    state: &'a State,
    index: QueueIndex,
    active: &'a mut ActiveQueue,
    memory: &'a GuestMemoryMmap,
    unannounced: Unannounced,
}

impl<'a> Requests<'a> {
    /// Returns the requests of the queue `index`, whose lock the caller holds.
    pub(super) fn new(
        state: &'a State,
        index: QueueIndex,
        active: &'a mut ActiveQueue,
        memory: &'a GuestMemoryMmap,
    ) -> Self {
        Self { state, index, active, memory, unannounced: Unannounced::default() }
    }

    /// Returns which of the device's queues it is.
    #[cfg_attr(not(test), expect(dead_code, reason = "the one device so far has one queue"))]
    pub(crate) fn index(&self) -> QueueIndex {
        self.index
    }

    /// Returns the features that were negotiated.
    pub(crate) fn features(&self) -> u64 {
        self.active.features
    }

    /// Returns guest memory.
    pub(crate) fn memory(&self) -> &'a GuestMemoryMmap {
        self.memory
    }

    /// Takes the next request, of at most `most_parts` descriptors. There is none where the queue
    /// is empty or the device has to stop.
    pub(crate) fn next(&mut self, most_parts: usize) -> Result<Option<Request>, Broken> {
        if !self.is_running() {
            return Ok(None);
        }
        let Some(chain) = self.active.queue.iter(self.memory)?.next() else { return Ok(None) };
        let head = Head(chain.head_index());
        Ok(Some(Request { head, chain: Chain::collect(chain, most_parts)? }))
    }

    /// Gives a request back to the driver.
    pub(crate) fn finish(&mut self, head: Head, served: Served) -> Result<(), Broken> {
        self.active.queue.add_used(self.memory, head.0, served.written)?;
        self.unannounced.requests += 1;
        self.unannounced.bytes += served.moved;
        if self.unannounced.requests >= ANNOUNCE_REQUESTS || self.unannounced.bytes >= ANNOUNCE_BYTES {
            self.announce()?;
        }
        Ok(())
    }

    /// Raises the interrupt for finished requests not announced yet, if any, unless the driver
    /// wants none.
    pub(super) fn announce(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.unannounced).requests == 0 {
            return Ok(());
        }
        // The used ring has to be visible before the driver's setting is read: a driver that
        // changes it checks the ring afterwards.
        fence(Ordering::SeqCst);
        let ring = GuestAddress(self.active.queue.avail_ring());
        let flags: u16 = self.memory.load(ring, Ordering::Relaxed).map_err(Error::GuestMemory)?;
        if u16::from_le(flags) & NO_INTERRUPT == 0 {
            self.state.announce();
        }
        Ok(())
    }

    /// Returns whether the queue is still the device's.
    pub(super) fn is_running(&self) -> bool {
        self.state.is_running(self.index)
    }

    /// Returns whether the driver has added a request.
    pub(super) fn is_one_available(&self) -> Result<bool, Error> {
        let queue = &self.active.queue;
        Ok(queue.avail_idx(self.memory, Ordering::Acquire)?.0 != queue.next_avail())
    }

    /// Asks the driver not to notify the device of requests.
    pub(super) fn disable_notification(&mut self) -> Result<(), Error> {
        self.active.queue.disable_notification(self.memory)
    }

    /// Asks the driver to notify the device; returns whether it has added a request before it could
    /// know.
    pub(super) fn enable_notification(&mut self) -> Result<bool, Error> {
        self.active.queue.enable_notification(self.memory)
    }
}
