//! Starts a block device: features, geometry, queue, identity, interrupt (virtio 1.2, 3.1.1).

use core::fmt;

use virtio_drivers::Error;
use virtio_drivers::transport::mmio::{MmioError, MmioTransport};
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

use super::device::{BlockDevice, Port};
use super::disks::DiskId;
use super::requests::{Broken, ID_BYTES, QUEUE, Request, Requests, SECTOR_BYTES};
use crate::arch::x86_64::boot::devices::Interrupt;
use crate::arch::x86_64::interrupt::{Handler, LineInUse};
use crate::arch::x86_64::trap;
use crate::drivers::io_apic;
use crate::drivers::virtio::device::VirtioDevice;
use crate::drivers::virtio::mmio;
use crate::patience::Patience;
use crate::time::Instant;

const FEATURE_RO: u64 = 1 << 5;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_VERSION_1: u64 = 1 << 32;

/// Offsets in the configuration space (virtio 1.2, 5.2.4).
const CONFIG_CAPACITY: usize = 0;
const CONFIG_MAX_DISCARD_SECTORS: usize = 36;

/// How long a device may take to tell its identity, before the guest continues without it.
const IDENTITY_PATIENCE_NS: u64 = 1_000_000_000;

/// Why a device is not used.
pub(super) enum AttachError {
    /// Its registers can't be used.
    Transport(MmioError),
    /// It has no queue that can be used, or there is no memory for it.
    Queue(Error),
    /// It speaks only the legacy interface.
    Legacy,
    /// It refused the features that it had offered.
    Refused,
    /// Its size is impossible.
    Geometry,
    /// It is the swap disk and read-only.
    ReadOnlySwap,
    /// It does not tell its identity.
    NoIdentity,
    /// Its identity is that of no disk.
    UnknownIdentity,
    /// Its interrupt line has a handler already.
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
            Self::NoIdentity => "it does not say who it is",
            Self::UnknownIdentity => "it is neither the disk with the data nor the one to swap to",
            Self::SharedInterrupt => "it has the interrupt of another device",
        })
    }
}

impl From<Error> for AttachError {
    fn from(error: Error) -> Self {
        Self::Queue(error)
    }
}

/// The properties of a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) sectors: u64,
    pub(super) is_read_only: bool,
    pub(super) can_flush: bool,
    /// Zero if the disk can't discard.
    pub(super) max_discard_sectors: u32,
}

/// Starts a device if it is a disk, and registers `handler` for its interrupt.
///
/// # Safety
/// The device has no other driver.
#[allow(unsafe_code, reason = "opens the device's registers")]
pub(super) unsafe fn attach(device: &VirtioDevice, handler: Handler) -> Result<Option<BlockDevice>, AttachError> {
    // SAFETY: the caller's duty.
    let mut transport = match unsafe { mmio::open(device) } {
        Ok(transport) => transport,
        // There is no device, or none that a driver here knows.
        Err(MmioError::InvalidDeviceID(_)) => return Ok(None),
        Err(error) => return Err(AttachError::Transport(error)),
    };
    if transport.device_type() != DeviceType::Block {
        return Ok(None);
    }
    let features = negotiate(&mut transport)?;
    let geometry = Geometry::read(&transport, features)?;
    let requests = Requests::new(&mut transport)?;
    transport.finish_init();
    let mut port = Port::new(transport, requests);
    let id = DiskId::from_identity(&identity(&mut port)?).ok_or(AttachError::UnknownIdentity)?;
    if id == DiskId::Swap && geometry.is_read_only {
        return Err(AttachError::ReadOnlySwap);
    }
    let VirtioDevice { interrupt, line, .. } = *device;
    trap::register_interrupt(line, handler).map_err(|LineInUse| AttachError::SharedInterrupt)?;
    if let Interrupt::Pin(pin) = interrupt {
        io_apic::route(pin, line.vector());
    }
    Ok(Some(BlockDevice::new(id, geometry, device, port)))
}

/// Negotiates features with the device, and returns them.
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

/// Asks the device for its identity. Polls, as there are no threads and no interrupts yet.
fn identity(port: &mut Port) -> Result<[u8; ID_BYTES], AttachError> {
    let slot = port.requests.submit(Request::Identify).ok_or(AttachError::NoIdentity)?;
    port.transport.notify(QUEUE);
    let mut patience = Patience::new(IDENTITY_PATIENCE_NS);
    while port.requests.is_under_way(slot) {
        patience.charge(Instant::now()).ok_or(AttachError::NoIdentity)?;
        port.requests.reap().map_err(|Broken| AttachError::NoIdentity)?;
        core::hint::spin_loop();
    }
    match port.requests.take(slot) {
        Some(Ok(())) => Ok(port.requests.identity(slot)),
        _ => Err(AttachError::NoIdentity),
    }
}
