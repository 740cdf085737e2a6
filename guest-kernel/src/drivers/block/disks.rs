//! The machine's disks: found at boot by their identity, then used from everywhere.

use aerostat_abi::boot::{DATA_DISK_ID, SWAP_DISK_ID};
use spin::Once;

use super::attach::attach;
use super::device::BlockDevice;
use super::requests::ID_BYTES;
use crate::drivers::virtio::{Acknowledgement, DeviceNumber, VirtioDevice};

static DISKS: [Once<BlockDevice>; 2] = [const { Once::new() }; 2];

/// Which disk: what it answers when it is asked for its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskId {
    /// The one with the guest's data.
    Data,
    /// The one to swap to.
    Swap,
}

impl DiskId {
    /// Returns the disk with this identity.
    pub(super) fn from_identity(identity: &[u8; ID_BYTES]) -> Option<Self> {
        let name = identity.split(|&byte| byte == 0).next().unwrap_or_default();
        [Self::Data, Self::Swap].into_iter().find(|id| id.name().as_bytes() == name)
    }

    /// Returns the disk's identity as text.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Data => DATA_DISK_ID,
            Self::Swap => SWAP_DISK_ID,
        }
    }
}

/// Returns the disk, if the machine has it.
pub(crate) fn device(id: DiskId) -> Option<&'static BlockDevice> {
    DISKS[id as usize].get()
}

/// Starts a disk. One that can't be used is named in a warning.
pub(crate) fn start(device: VirtioDevice) {
    let device_name = device.name();
    match attach(device, handle_interrupt) {
        Ok(disk) => {
            let (place, name) = (&DISKS[disk.id() as usize], disk.id().name());
            log::debug!("disk {name}: {} sectors, read-only: {}", disk.sectors(), disk.is_read_only());
            if place.is_completed() {
                log::warn!("disk {name}: there is a second one, which is not used");
            }
            place.call_once(|| disk);
        }
        Err(error) => log::warn!("{device_name} is not used: {error}"),
    }
}

/// Handles the interrupt of a disk.
fn handle_interrupt(device: DeviceNumber) -> Acknowledgement {
    let disk = DISKS.iter().filter_map(Once::get).find(|disk| disk.number() == device);
    disk.map_or(Acknowledgement::NONE, BlockDevice::interrupt)
}
