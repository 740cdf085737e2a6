//! A block device: found at boot, then used by whoever needs it.
//!
//! Interrupts are asked for only while somebody sleeps until a request is done: each costs a pass
//! through the ring-0 stub, and a submitter that looks later anyway has nothing from it.

use core::fmt;

use aerostat_abi::boot::{DATA_DISK_ID, SWAP_DISK_ID};
use aerostat_abi::units::FrameNumber;
use spin::Once;
use virtio_drivers::Error;
use virtio_drivers::transport::mmio::{MmioError, MmioTransport};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};

use super::requests::{
    BlockError, Broken, Direction, ID_BYTES, Interrupts, MAX_REQUESTS, QUEUE, Request, RequestSet, Requests,
    SECTOR_BYTES, Sectors,
};
use crate::arch::x86_64::boot::devices::Interrupt;
use crate::arch::x86_64::interrupt::{InterruptLine, LineInUse};
use crate::arch::x86_64::{cpu, trap};
use crate::drivers::io_apic;
use crate::drivers::virtio::device::VirtioDevice;
use crate::drivers::virtio::mmio;
use crate::patience::Patience;
use crate::sync::{LockRank, SpinGuard, SpinLock};
use crate::thread::{self, Event};
use crate::time::Instant;

const FEATURE_RO: u64 = 1 << 5;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_VERSION_1: u64 = 1 << 32;

/// Offsets in the configuration space (virtio 1.2, 5.2.4).
const CONFIG_CAPACITY: usize = 0;
const CONFIG_MAX_DISCARD_SECTORS: usize = 36;

/// How long a device may take to say who it is, before the guest goes on without it.
const IDENTITY_PATIENCE_NS: u64 = 1_000_000_000;

/// How long a waiter looks out before it sleeps: about what going to sleep and being woken costs
/// where interrupts are slow, so a wait is never more than twice as dear as it had to be (Karlin et
/// al., "Empirical Studies of Competitive Spinning", SOSP 1991).
const POLL_NS: u64 = 30_000;

static DEVICES: [Once<BlockDevice>; 2] = [const { Once::new() }; 2];

/// Which disk: what it answers when it is asked for its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskId {
    /// The one with the guest's data.
    Data,
    /// The one to swap to.
    Swap,
}

impl DiskId {
    fn from_identity(identity: &[u8; ID_BYTES]) -> Option<Self> {
        let name = identity.split(|&byte| byte == 0).next().unwrap_or_default();
        [Self::Data, Self::Swap].into_iter().find(|id| id.name().as_bytes() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Data => DATA_DISK_ID,
            Self::Swap => SWAP_DISK_ID,
        }
    }
}

/// The disk, if the machine has it.
pub(crate) fn device(id: DiskId) -> Option<&'static BlockDevice> {
    DEVICES[id as usize].get()
}

/// A request that was accepted, to be redeemed: until then its frames are the device's.
#[derive(Debug)]
#[must_use = "a request whose ticket is dropped keeps its place for ever"]
pub(crate) struct Ticket {
    slot: usize,
}

impl Ticket {
    /// Gives up the value but not the request: whoever remembers the number redeems it.
    pub(super) fn into_number(self) -> usize {
        let slot = self.slot;
        core::mem::forget(self);
        slot
    }

    /// The ticket that became this number.
    pub(super) fn from_number(slot: usize) -> Self {
        Self { slot }
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
    interrupt: Interrupt,
    line: InterruptLine,
    /// What the submitter of each request sleeps on.
    done: [Event; MAX_REQUESTS],
    /// What those sleep on who wait for any request's end. A signal is kept for one waiter only, so
    /// whoever sleeps on another's event may take the signal that its owner needs, who would then
    /// sleep for ever.
    any_done: Event,
    port: SpinLock<Port>,
}

/// What a disk is like.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    sectors: u64,
    is_read_only: bool,
    can_flush: bool,
    /// Zero where it can't discard.
    max_discard_sectors: u32,
}

/// The connection to the device.
struct Port {
    /// Before the queue: it is dropped first, which resets the device, and only then is the queue's
    /// memory given back.
    transport: MmioTransport<'static>,
    requests: Requests,
    /// Requests whose end somebody sleeps for; the device interrupts while there are any.
    awaited: RequestSet,
    is_broken: bool,
}

/// Starts a device if it is a disk.
///
/// # Safety
/// The device has no other driver.
#[allow(unsafe_code, reason = "passes the duty on to the one place that starts drivers")]
pub(crate) unsafe fn start(device: &VirtioDevice) {
    // SAFETY: the caller's duty.
    match unsafe { attach(device) } {
        Ok(Some(disk)) => {
            let place = &DEVICES[disk.id as usize];
            let Geometry { sectors, is_read_only, .. } = disk.geometry;
            log::debug!("disk {}: {sectors} sectors, read-only: {is_read_only}", disk.id.name());
            if place.is_completed() {
                log::warn!("disk {}: there is a second one, which is not used", disk.id.name());
            }
            place.call_once(|| disk);
        }
        Ok(None) => {}
        Err(error) => log::warn!("virtio device at {:#x} is not used: {error}", device.registers),
    }
}

/// Why a device is not used.
enum AttachError {
    Transport(MmioError),
    Queue(Error),
    Legacy,
    Refused,
    Geometry,
    ReadOnlySwap,
    Mute,
    Stranger,
    SharedInterrupt,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transport(error) => return error.fmt(f),
            Self::Queue(error) => return error.fmt(f),
            Self::Legacy => "it knows only the legacy interface",
            Self::Refused => "it does not agree to the features that it offers",
            Self::Geometry => "it has no sectors, or more than there can be",
            Self::ReadOnlySwap => "it is the disk to swap to, and can't be written",
            Self::Mute => "it does not say who it is",
            Self::SharedInterrupt => "it has the interrupt of another device",
            Self::Stranger => "it is neither the disk with the data nor the one to swap to",
        })
    }
}

impl From<Error> for AttachError {
    fn from(error: Error) -> Self {
        Self::Queue(error)
    }
}

/// Starts a device if it is a disk (virtio 1.2, 3.1.1).
///
/// # Safety
/// The device has no other driver.
#[allow(unsafe_code, reason = "opens the device's registers")]
unsafe fn attach(device: &VirtioDevice) -> Result<Option<BlockDevice>, AttachError> {
    // SAFETY: the caller's duty.
    let mut transport = match unsafe { mmio::open(device) } {
        Ok(transport) => transport,
        Err(MmioError::InvalidDeviceID(_)) => return Ok(None), // an empty place, or what no driver here knows
        Err(error) => return Err(AttachError::Transport(error)),
    };
    if transport.device_type() != DeviceType::Block {
        return Ok(None);
    }
    let features = negotiate(&mut transport)?;
    let geometry = Geometry::read(&transport, features)?;
    let requests = Requests::new(&mut transport)?;
    transport.finish_init();
    let mut port = Port { transport, requests, awaited: 0, is_broken: false };
    let id = DiskId::from_identity(&port.identity()?).ok_or(AttachError::Stranger)?;
    if id == DiskId::Swap && geometry.is_read_only {
        return Err(AttachError::ReadOnlySwap);
    }
    let VirtioDevice { interrupt, line, .. } = *device;
    trap::register_interrupt(line, handle_interrupt).map_err(|LineInUse| AttachError::SharedInterrupt)?;
    if let Interrupt::Pin(pin) = interrupt {
        io_apic::route(pin, line.vector());
    }
    let done = [const { Event::new() }; MAX_REQUESTS];
    let any_done = Event::new();
    Ok(Some(BlockDevice {
        id,
        geometry,
        interrupt,
        line,
        done,
        any_done,
        port: SpinLock::new(LockRank::DiskPort, port),
    }))
}

/// Agrees with the device on features; returns them.
fn negotiate(transport: &mut MmioTransport<'_>) -> Result<u64, AttachError> {
    let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(DeviceStatus::empty());
    transport.set_status(status);
    let offered = transport.read_device_features();
    if offered & FEATURE_VERSION_1 == 0 {
        return Err(AttachError::Legacy);
    }
    let features = offered & (FEATURE_RO | FEATURE_FLUSH | FEATURE_DISCARD | FEATURE_VERSION_1);
    transport.write_driver_features(features);
    status |= DeviceStatus::FEATURES_OK;
    transport.set_status(status);
    if transport.get_status().contains(status) { Ok(features) } else { Err(AttachError::Refused) }
}

impl Geometry {
    fn read(transport: &MmioTransport<'_>, features: u64) -> Result<Self, AttachError> {
        let [low, high] = transport.read_consistent(|| {
            Ok([
                transport.read_config_space::<u32>(CONFIG_CAPACITY)?,
                transport.read_config_space(CONFIG_CAPACITY + 4)?,
            ])
        })?;
        let sectors = u64::from(low) | u64::from(high) << 32;
        if sectors == 0 || sectors.checked_mul(SECTOR_BYTES).is_none() {
            return Err(AttachError::Geometry);
        }
        let max_discard_sectors = if features & FEATURE_DISCARD == 0 {
            0
        } else {
            transport.read_config_space(CONFIG_MAX_DISCARD_SECTORS)?
        };
        let is_read_only = features & FEATURE_RO != 0;
        Ok(Self { sectors, is_read_only, can_flush: features & FEATURE_FLUSH != 0, max_discard_sectors })
    }
}

impl Port {
    /// Asks the device who it is, before threads and interrupts are there.
    fn identity(&mut self) -> Result<[u8; ID_BYTES], AttachError> {
        let slot = self.requests.submit(Request::Identify).ok_or(AttachError::Mute)?;
        self.transport.notify(QUEUE);
        let mut patience = Patience::new(IDENTITY_PATIENCE_NS);
        while self.requests.is_under_way(slot) {
            patience.look(Instant::now()).ok_or(AttachError::Mute)?;
            self.requests.reap().map_err(|Broken| AttachError::Mute)?;
            core::hint::spin_loop();
        }
        match self.requests.take(slot) {
            Some(Ok(())) => Ok(self.requests.identity(slot)),
            _ => Err(AttachError::Mute),
        }
    }

    /// Whether the device has stopped and says so.
    fn has_given_up(&self) -> bool {
        self.transport.get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET)
    }
}

impl BlockDevice {
    /// Size in sectors of 512 bytes; not zero, and no more than 2^64 bytes.
    pub(crate) fn sectors(&self) -> u64 {
        self.geometry.sectors
    }

    /// Whether writes fail.
    pub(crate) fn is_read_only(&self) -> bool {
        self.geometry.is_read_only
    }

    /// The most sectors that one request may discard; zero where the disk can't discard.
    pub(crate) fn max_discard_sectors(&self) -> u32 {
        self.geometry.max_discard_sectors
    }

    /// Starts to transfer these sectors and the frames that they fill, at most
    /// [`super::MAX_FRAMES`], the last one perhaps in part. The caller owns the frames and keeps
    /// them alone until the ticket is redeemed. `None` when the queue is full. Allocates nothing
    /// and never waits.
    pub(crate) fn submit(&self, direction: Direction, sectors: Sectors, frames: &[FrameNumber]) -> Option<Ticket> {
        self.submit_request(Request::Transfer { direction, sectors, frames })
    }

    /// Starts to make lasting what was written and redeemed before. `None` when the queue is full.
    pub(crate) fn flush(&self) -> Option<Ticket> {
        self.submit_request(Request::Flush)
    }

    /// Starts to give up sectors, at most [`Self::max_discard_sectors`]: what is in them then is
    /// not defined. `None` when the queue is full.
    pub(crate) fn discard(&self, sectors: Sectors) -> Option<Ticket> {
        self.submit_request(Request::Discard(sectors))
    }

    /// How the request ended. Never waits.
    ///
    /// # Errors
    /// The ticket, when it has not ended yet.
    pub(crate) fn redeem(&self, ticket: Ticket) -> Result<Result<(), BlockError>, Ticket> {
        let mut port = self.port.lock();
        self.collect(&mut port);
        match port.requests.take(ticket.slot) {
            Some(result) => {
                core::mem::forget(ticket);
                Ok(result)
            }
            None => Err(ticket),
        }
    }

    /// Sleeps until the request is done, at most until the given moment. May return early: the
    /// caller looks. Of several sleepers, one that comes when the request is just done may sleep to
    /// the given moment.
    pub(crate) fn wait(&self, ticket: &Ticket, until: Option<Instant>) {
        if !self.is_soon_done(ticket.slot) && !self.is_done_or_awaited(ticket.slot) {
            self.done[ticket.slot].wait(until);
        }
    }

    /// Sleeps until a request is done, at most until the given moment; may return early. `false`,
    /// at once, when none is under way.
    pub(super) fn wait_for_any(&self, until: Instant) -> bool {
        let under_way = self.port.lock().requests.under_way();
        let Some(slot) = under_way else { return false };
        if !self.is_soon_done(slot) && !self.is_done_or_awaited(slot) {
            self.any_done.wait(Some(until));
        }
        true
    }

    /// Waits for the request's end and says how it ended.
    ///
    /// # Errors
    /// [`BlockError`].
    pub(crate) fn finish(&self, mut ticket: Ticket) -> Result<(), BlockError> {
        loop {
            match self.redeem(ticket) {
                Ok(result) => return result,
                Err(unfinished) => ticket = unfinished,
            }
            self.wait(&ticket, None);
        }
    }

    fn submit_request(&self, request: Request<'_>) -> Option<Ticket> {
        let mut port = self.port.lock();
        self.collect(&mut port); // descriptors of what is done are free for this one
        let slot = if port.is_broken {
            port.requests.submit_done(Err(BlockError::DeviceBroken))?
        } else if matches!(request, Request::Flush) && !self.geometry.can_flush {
            port.requests.submit_done(Ok(()))? // such a device makes each write lasting before it is done
        } else {
            port.requests.submit(request)?
        };
        if !port.is_broken && port.requests.should_notify() {
            port.transport.notify(QUEUE);
        }
        Some(Ticket { slot })
    }

    /// Looks out for the request's end for a moment, as long as no other thread could use the time.
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

    /// Whether the request is done; if not, its end interrupts and is signalled.
    fn is_done_or_awaited(&self, slot: usize) -> bool {
        let mut port = self.port.lock();
        self.collect(&mut port);
        if !port.requests.is_under_way(slot) {
            return true;
        }
        port.awaited |= 1 << slot;
        port.requests.let_interrupt(Interrupts::Wanted);
        self.collect(&mut port); // the device may have looked before it was told to interrupt
        !port.requests.is_under_way(slot)
    }

    /// Looks what the device has done; wakes who sleeps for it.
    fn collect(&self, port: &mut SpinGuard<'_, Port>) -> RequestSet {
        if port.is_broken {
            return 0; // whatever the ring says
        }
        match port.requests.reap() {
            // A caller who has masked upcalls hears of a device that gives up here or never.
            Ok(0) if cpu::is_pending(self.line) && port.has_given_up() => self.give_up(port, "it has given up"),
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

    /// Uses the device no more: what is under way fails, and so does what will be asked.
    fn give_up(&self, port: &mut Port, why: &str) -> RequestSet {
        port.is_broken = true;
        port.transport.set_status(DeviceStatus::empty()); // a reset: afterwards the device touches no memory
        log::error!("disk {}: {why}; it is not used any more", self.id.name());
        let failed = port.requests.fail_all();
        self.wake(port, failed);
        failed
    }

    /// The device's interrupt. Where that is a message, the device need not be told that it was
    /// seen, which saves two slow accesses to registers; then there is no telling what it was for,
    /// and the status is looked at only where nothing else has happened.
    fn interrupt(&self) {
        let mut port = self.port.lock();
        let status = match self.interrupt {
            Interrupt::Message(_) => None,
            Interrupt::Pin(_) => Some(port.transport.ack_interrupt()),
        };
        let done = self.collect(&mut port);
        let has_changed = match status {
            Some(status) => status.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT),
            None => done == 0,
        };
        if has_changed && !port.is_broken && port.has_given_up() {
            self.give_up(&mut port, "it has given up");
        }
    }
}

impl fmt::Debug for BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockDevice").field("id", &self.id).field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

/// Handles the interrupt of the disk on `line`.
fn handle_interrupt(line: InterruptLine) {
    for disk in DEVICES.iter().filter_map(Once::get).filter(|disk| disk.line == line) {
        disk.interrupt();
    }
}
