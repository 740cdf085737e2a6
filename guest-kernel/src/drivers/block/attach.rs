//! Starts a block device: features, geometry, queue, interrupt, and which disk it may be.

use core::fmt;

use virtio_drivers::Error;
use virtio_drivers::transport::Transport;

use super::device::Port;
use super::examine;
use super::requests::{Requests, SECTOR_BYTES};
use super::role::{DiskId, Evidence};
use crate::drivers::virtio::{DeviceHandler, NegotiationError, SharedInterrupt, VirtioDevice, VirtioTransport};

const FEATURE_RO: u64 = 1 << 5;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;

/// Offsets in the configuration space (virtio 1.2, 5.2.4).
const CONFIG_CAPACITY: usize = 0;
const CONFIG_MAX_DISCARD_SECTORS: usize = 36;

/// How many queues a disk has that are used.
const QUEUES: u16 = 1;

/// Why a device is not used.
pub(super) enum AttachError {
    /// It does not agree to what this driver needs.
    Negotiation(NegotiationError),
    /// It has no queue that can be used, or there is no memory for it.
    Queue(Error),
    /// Its size is impossible.
    Geometry,
    /// It is the swap disk and read-only.
    ReadOnlySwap,
    /// It does not answer, or not as it should.
    NoAnswer,
    /// It is none of the disks that are used.
    UnknownDisk,
    /// Another one is this disk.
    SecondDisk(DiskId),
    /// Its interrupt line has a handler already.
    Interrupt(SharedInterrupt),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Negotiation(error) => return error.fmt(f),
            Self::Queue(error) => return error.fmt(f),
            Self::Interrupt(error) => return error.fmt(f),
            Self::Geometry => "it has no sectors, or more than there can be",
            Self::ReadOnlySwap => "it is the disk to swap to, and can't be written",
            Self::NoAnswer => "it does not answer",
            Self::UnknownDisk => {
                "it is neither the first disk, nor does its serial number or what it holds say that it is one to swap to"
            }
            Self::SecondDisk(DiskId::Data) => "another disk is the one with the data",
            Self::SecondDisk(DiskId::Swap) => "another disk is the one to swap to",
        })
    }
}

impl From<Error> for AttachError {
    fn from(error: Error) -> Self {
        Self::Queue(error)
    }
}

impl From<NegotiationError> for AttachError {
    fn from(error: NegotiationError) -> Self {
        Self::Negotiation(error)
    }
}

impl From<SharedInterrupt> for AttachError {
    fn from(error: SharedInterrupt) -> Self {
        Self::Interrupt(error)
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

/// A disk that works and may be one of those that are used.
pub(super) struct Candidate {
    pub(super) port: Port,
    pub(super) geometry: Geometry,
    pub(super) evidence: Evidence,
}

/// Starts a disk, whose interrupt `handler` gets.
///
/// # Errors
/// [`AttachError`] when it can't be used.
pub(super) fn attach(mut device: VirtioDevice, handler: DeviceHandler) -> Result<Candidate, AttachError> {
    let features = device.negotiate(FEATURE_RO | FEATURE_FLUSH | FEATURE_DISCARD)?;
    let geometry = Geometry::read(device.transport(), features)?;
    let requests = Requests::new(device.transport_mut())?;
    device.listen(QUEUES, handler)?;
    device.finish();
    let mut port = Port::new(device, requests);
    let evidence = examine::evidence(&mut port, &geometry)?;
    if evidence.disk() == Some(DiskId::Swap) && geometry.is_read_only {
        return Err(AttachError::ReadOnlySwap);
    }
    Ok(Candidate { port, geometry, evidence })
}

impl Geometry {
    fn read(transport: &VirtioTransport, features: u64) -> Result<Self, AttachError> {
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
