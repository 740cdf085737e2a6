//! A disk in use: requests are submitted, waited for and redeemed.
//!
//! The device interrupts only while a thread sleeps until a request is done: each interrupt costs a
//! pass through the ring-0 stub, and a submitter that polls later anyway gains nothing from it.

use core::fmt;

use aerostat_abi::threads::Wait;
use aerostat_abi::units::FrameNumber;
use virtio_drivers::transport::{DeviceStatus, Transport};

use super::attach::{Candidate, Geometry};
use super::requests::{
    BlockError, Broken, Direction, Interrupts, MAX_REQUESTS, QUEUE, Request, RequestSet, Requests, Sectors,
};
use super::role::{DiskId, Evidence};
use crate::config::DISK_PATIENCE_NS;
use crate::drivers::virtio::{Acknowledgement, DeviceNumber, VirtioDevice};
use crate::sync::{LockRank, SpinGuard, SpinLock};
use crate::thread::{self, Event};
use crate::time::Instant;

/// How long a thread polls before it sleeps: about what going to sleep and being woken costs where
/// interrupts are slow, so a wait is never more than twice as expensive as it had to be (Karlin et
/// al., "Empirical Studies of Competitive Spinning", SOSP 1991).
const POLL_NS: u64 = 30_000;

/// A request that was accepted and has to be redeemed. Until then its frames are the device's.
#[derive(Debug)]
#[must_use = "a request whose ticket is dropped keeps its place for ever"]
pub(crate) struct Ticket {
    slot: usize,
}

impl Ticket {
    /// Gives up the ticket but not the request: its result is taken by the place's number.
    pub(super) fn into_slot(self) -> usize {
        let slot = self.slot;
        core::mem::forget(self);
        slot
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        debug_assert!(false, "the ticket of request {} was dropped instead of redeemed", self.slot);
    }
}

/// A disk.
pub(crate) struct BlockDevice {
    id: DiskId,
    geometry: Geometry,
    /// Whether its first page says that it is a disk to swap to, and must go on to say so.
    has_swap_area: bool,
    number: DeviceNumber,
    /// Whether each interrupt is sure to arrive.
    is_sure_to_interrupt: bool,
    /// What the submitter of each request sleeps on.
    done: [Event; MAX_REQUESTS],
    /// What threads sleep on that wait for the end of any request. A signal is kept for one thread
    /// only, so a thread that slept on another's event could take the signal that its owner needs,
    /// which would then sleep for ever.
    any_done: Event,
    port: SpinLock<Port>,
}

/// The connection to the device.
pub(super) struct Port {
    /// Before the queue: it is dropped first, which resets the device, and only then is the queue's
    /// memory freed.
    pub(super) device: VirtioDevice,
    pub(super) requests: Requests,
    /// Requests for whose end a thread sleeps; the device interrupts while there are any.
    awaited: RequestSet,
    is_broken: bool,
}

impl Port {
    /// Returns the connection to a device that is initialized.
    pub(super) fn new(device: VirtioDevice, requests: Requests) -> Self {
        Self { device, requests, awaited: 0, is_broken: false }
    }

    /// Returns whether the device has stopped and says so.
    fn has_given_up(&self) -> bool {
        self.device.transport().get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET)
    }
}

impl BlockDevice {
    /// Returns a disk that is ready for use.
    pub(super) fn new(id: DiskId, Candidate { port, geometry, evidence }: Candidate) -> Self {
        let done = [const { Event::of(Wait::Disk) }; MAX_REQUESTS];
        Self {
            id,
            geometry,
            has_swap_area: evidence == Evidence::Contents(DiskId::Swap),
            number: port.device.number(),
            is_sure_to_interrupt: port.device.is_sure_to_interrupt(),
            done,
            any_done: Event::of(Wait::Disk),
            port: SpinLock::new(LockRank::DiskPort, port),
        }
    }

    /// Returns whether its first page must stay as it is.
    pub(super) fn has_swap_area(&self) -> bool {
        self.has_swap_area
    }

    /// Returns the number with which the handler of its interrupts is called.
    pub(super) fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Returns the size in sectors of 512 bytes; not zero, and no more than 2^64 bytes.
    pub(crate) fn sectors(&self) -> u64 {
        self.geometry.sectors
    }

    /// Returns whether writes fail.
    pub(crate) fn is_read_only(&self) -> bool {
        self.geometry.is_read_only
    }

    /// Returns how many sectors one request may discard; zero if the disk can't discard.
    pub(crate) fn max_discard_sectors(&self) -> u32 {
        self.geometry.max_discard_sectors
    }

    /// Starts a transfer between these sectors and the frames that they fill, at most
    /// [`super::MAX_FRAMES`], the last one perhaps in part. The caller owns the frames and does not
    /// access them until the ticket is redeemed. Returns `None` when the queue is full. Allocates
    /// nothing and never waits.
    pub(crate) fn submit(&self, direction: Direction, sectors: Sectors, frames: &[FrameNumber]) -> Option<Ticket> {
        self.submit_request(Request::Transfer { direction, sectors, frames })
    }

    /// Starts to make durable what was written and redeemed before. Returns `None` when the queue
    /// is full.
    pub(crate) fn flush(&self) -> Option<Ticket> {
        self.submit_request(Request::Flush)
    }

    /// Starts to discard sectors, at most [`Self::max_discard_sectors`]: their contents are then
    /// undefined. Returns `None` when the queue is full.
    pub(crate) fn discard(&self, sectors: Sectors) -> Option<Ticket> {
        self.submit_request(Request::Discard(sectors))
    }

    /// Returns how the request ended. Never waits.
    ///
    /// # Errors
    /// Returns the ticket when the request has not ended yet.
    pub(crate) fn redeem(&self, ticket: Ticket) -> Result<Result<(), BlockError>, Ticket> {
        match self.take_result(ticket.slot) {
            Some(result) => {
                core::mem::forget(ticket);
                Ok(result)
            }
            None => Err(ticket),
        }
    }

    /// Returns how the request at this place ended, which frees the place; `None` while it is under
    /// way. Never waits.
    pub(super) fn take_result(&self, slot: usize) -> Option<Result<(), BlockError>> {
        let mut port = self.port.lock();
        self.collect(&mut port);
        port.requests.take(slot)
    }

    /// Sleeps until the request at this place is done, at most until the given moment. May return
    /// early: the caller checks. If several threads sleep, one that comes when the request is just
    /// done may sleep until the given moment.
    pub(super) fn wait(&self, slot: usize, until: Option<Instant>) {
        if !self.is_soon_done(slot) && !self.is_done_or_awaited(slot) {
            let check = || Instant::now().after(DISK_PATIENCE_NS);
            self.done[slot].wait(until.or_else(|| (!self.is_sure_to_interrupt).then(check)));
        }
    }

    /// Sleeps until a request is done, at most until the given moment; may return early. Returns
    /// `false` at once when none is under way.
    pub(super) fn wait_for_any(&self, until: Instant) -> bool {
        let under_way = self.port.lock().requests.under_way();
        let Some(slot) = under_way else { return false };
        if !self.is_soon_done(slot) && !self.is_done_or_awaited(slot) {
            self.any_done.wait(Some(until));
        }
        true
    }

    /// Waits for the request's end, and returns how it ended.
    ///
    /// # Errors
    /// [`BlockError`].
    pub(crate) fn finish(&self, mut ticket: Ticket) -> Result<(), BlockError> {
        loop {
            match self.redeem(ticket) {
                Ok(result) => return result,
                Err(unfinished) => ticket = unfinished,
            }
            self.wait(ticket.slot, None);
        }
    }

    fn submit_request(&self, request: Request<'_>) -> Option<Ticket> {
        let mut port = self.port.lock();
        self.collect(&mut port); // descriptors of what is done are free for this one
        let slot = if port.is_broken {
            port.requests.submit_done(Err(BlockError::DeviceBroken))?
        } else if matches!(request, Request::Flush) && !self.geometry.can_flush {
            port.requests.submit_done(Ok(()))? // such a device makes each write durable before it is done
        } else {
            port.requests.submit(request)?
        };
        if !port.is_broken && port.requests.should_notify() {
            port.device.notify(QUEUE);
        }
        Some(Ticket { slot })
    }

    /// Polls for the request's end for a moment, as long as no other thread could use the time.
    fn is_soon_done(&self, slot: usize) -> bool {
        let end = Instant::now().after(POLL_NS);
        loop {
            let mut port = self.port.lock();
            self.collect(&mut port);
            if !port.requests.is_under_way(slot) {
                return true;
            }
            drop(port);
            if thread::is_another_ready() || Instant::now() > end {
                return false;
            }
            core::hint::spin_loop();
        }
    }

    /// Returns whether the request is done; if not, its end interrupts and is signaled.
    fn is_done_or_awaited(&self, slot: usize) -> bool {
        let mut port = self.port.lock();
        self.collect(&mut port);
        if !port.requests.is_under_way(slot) {
            return true;
        }
        port.awaited |= 1 << slot;
        port.requests.let_interrupt(Interrupts::Wanted);
        self.collect(&mut port); // it may have ended before the device was told to interrupt
        !port.requests.is_under_way(slot)
    }

    /// Collects what the device has done, and wakes the threads that sleep for it.
    fn collect(&self, port: &mut SpinGuard<'_, Port>) -> RequestSet {
        if port.is_broken {
            return 0; // whatever the ring says
        }
        match port.requests.reap() {
            // A caller that has masked upcalls learns here, or never, that a device has given up.
            Ok(0) if port.device.has_interrupted() && port.has_given_up() => self.give_up(port, "it has given up"),
            Ok(done) => {
                self.wake(port, done);
                done
            }
            Err(Broken) => self.give_up(port, "it has broken the protocol"),
        }
    }

    fn wake(&self, port: &mut Port, done: RequestSet) {
        let woken = port.awaited & done;
        if woken == 0 {
            return;
        }
        port.awaited &= !woken;
        self.any_done.signal();
        for (slot, event) in self.done.iter().enumerate() {
            if woken & 1 << slot != 0 {
                event.signal();
            }
        }
        if port.awaited == 0 {
            port.requests.let_interrupt(Interrupts::Unwanted);
        }
    }

    /// Stops using the device: all requests fail, those under way and those to come.
    fn give_up(&self, port: &mut Port, why: &str) -> RequestSet {
        port.is_broken = true;
        // A reset: afterwards the device touches no memory.
        port.device.transport_mut().set_status(DeviceStatus::empty());
        log::error!("disk {}: {why}; it is not used any more", self.id.name());
        let failed = port.requests.fail_all();
        self.wake(port, failed);
        failed
    }

    /// Handles the device's interrupt. The status of the device is read only if its configuration
    /// has changed, or if that is unknown and no request has ended.
    pub(super) fn interrupt(&self) -> Acknowledgement {
        let mut port = self.port.lock();
        let acknowledgement = port.device.acknowledge();
        let done = self.collect(&mut port);
        let has_changed = match acknowledgement {
            Acknowledgement::Message => done == 0,
            Acknowledgement::Pin(_) => acknowledgement.may_have_changed(),
        };
        if has_changed && !port.is_broken && port.has_given_up() {
            self.give_up(&mut port, "it has given up");
        }
        acknowledgement
    }
}

impl fmt::Debug for BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockDevice").field("id", &self.id).field("geometry", &self.geometry).finish_non_exhaustive()
    }
}
