//! The machine's disks: found at boot, then used from everywhere.

use allocator_api2::vec::Vec;
use spin::Once;

use super::attach::{AttachError, Candidate, attach};
use super::device::BlockDevice;
use super::role::{DiskId, Evidence, choose};
use crate::drivers::virtio::{Acknowledgement, DeviceName, DeviceNumber, VirtioDevice};
use crate::mm::KernelHeap;

static DISKS: [Once<BlockDevice>; 2] = [const { Once::new() }; 2];

/// Returns the disk, if the machine has it.
pub(crate) fn device(id: DiskId) -> Option<&'static BlockDevice> {
    DISKS[id as usize].get()
}

/// Starts the machine's disks: of all devices those that are the disk with the data and the one to
/// swap to. Each of the others is named in the log. Called once.
pub(crate) fn start(devices: impl Iterator<Item = VirtioDevice>) {
    let mut candidates = Vec::<(DeviceName, Candidate), _>::new_in(KernelHeap);
    for device in devices {
        let name = device.name();
        match attach(device, handle_interrupt) {
            Ok(candidate) if candidates.try_reserve(1).is_ok() => candidates.push((name, candidate)),
            Ok(_) => {} // a kernel heap without room for this has none for all else
            Err(error) => log::warn!("{name} is not used: {error}"),
        }
    }
    for id in [DiskId::Data, DiskId::Swap] {
        let mut evidence = Vec::<Evidence, _>::new_in(KernelHeap);
        evidence.extend(candidates.iter().map(|(_, candidate)| candidate.evidence));
        if let Some(place) = choose(id, &evidence) {
            let (_, candidate) = candidates.remove(place);
            let Candidate { evidence, geometry, .. } = candidate;
            log::debug!(
                "disk {}: {} sectors, read-only: {}, known by {evidence}",
                id.name(),
                geometry.sectors,
                geometry.is_read_only
            );
            DISKS[id as usize].call_once(|| BlockDevice::new(id, candidate));
        }
    }
    for (name, candidate) in candidates {
        let error = candidate.evidence.disk().map_or(AttachError::UnknownDisk, AttachError::SecondDisk);
        log::warn!("{name} is not used: {error}");
    }
}

/// Handles the interrupt of a disk.
fn handle_interrupt(device: DeviceNumber) -> Acknowledgement {
    let disk = DISKS.iter().filter_map(Once::get).find(|disk| disk.number() == device);
    disk.map_or(Acknowledgement::NONE, BlockDevice::interrupt)
}
