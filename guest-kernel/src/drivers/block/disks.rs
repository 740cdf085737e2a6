//! The machine's disks: found at boot by their identity, then used from everywhere.

use aerostat_abi::boot::{DATA_DISK_ID, SWAP_DISK_ID};
use spin::Once;

use super::attach::attach;
use super::device::BlockDevice;
use super::requests::ID_BYTES;
use crate::arch::x86_64::interrupt::InterruptLine;
use crate::drivers::virtio::device::VirtioDevice;

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

/// Starts a device if it is a disk. A device that can't be used is named in a warning.
///
/// # Safety
/// The device has no other driver.
#[allow(unsafe_code, reason = "passes the duty on to the one place that starts drivers")]
pub(crate) unsafe fn start(device: &VirtioDevice) {
    // SAFETY: the caller's duty.
    match unsafe { attach(device, handle_interrupt) } {
        Ok(Some(disk)) => {
            let (place, name) = (&DISKS[disk.id() as usize], disk.id().name());
            log::debug!("disk {name}: {} sectors, read-only: {}", disk.sectors(), disk.is_read_only());
            if place.is_completed() {
                log::warn!("disk {name}: there is a second one, which is not used");
            }
            place.call_once(|| disk);
        }
        Ok(None) => {}
        Err(error) => log::warn!("virtio device at {:#x} is not used: {error}", device.registers),
    }
}

/// Handles the interrupt of the disk on `line`.
fn handle_interrupt(line: InterruptLine) {
    for disk in DISKS.iter().filter_map(Once::get).filter(|disk| disk.line() == line) {
        disk.interrupt();
    }
}
