//! Starts the drivers of the machine's devices.

use allocator_api2::vec::Vec;
use virtio_drivers::transport::DeviceType;

use super::virtio::VirtioDevice;
use super::virtio::find::{Drivers, find};
use super::{block, console};
use crate::arch::x86_64::boot::devices::DeviceSources;
use crate::mm::KernelHeap;

/// Devices whose drivers are above this layer.
#[derive(Debug, Default)]
pub(crate) struct OtherDevices {
    /// The balloon.
    pub(crate) balloon: Option<VirtioDevice>,
}

/// Finds the machine's devices and starts the drivers of this layer. A device that can't be used is
/// named in the log.
pub(crate) fn start(sources: &DeviceSources) -> OtherDevices {
    let mut found = Found { disks: Vec::new_in(KernelHeap), console: None, others: OtherDevices::default() };
    find(sources, &mut found);
    if let Some(console) = found.console {
        console::start(console);
    }
    block::start(found.disks.into_iter());
    found.others
}

/// The devices that are found.
struct Found {
    disks: Vec<VirtioDevice, KernelHeap>,
    console: Option<VirtioDevice>,
    others: OtherDevices,
}

impl Drivers for Found {
    fn drive(&self, kind: DeviceType) -> bool {
        matches!(kind, DeviceType::Block | DeviceType::Console | DeviceType::MemoryBalloon)
    }

    fn start(&mut self, device: VirtioDevice) {
        let place = match device.kind() {
            DeviceType::Block => return self.disks.push(device),
            DeviceType::Console => &mut self.console,
            _ => &mut self.others.balloon,
        };
        match place {
            None => *place = Some(device),
            Some(_) => log::warn!("{} is not used: there is one already", device.name()),
        }
    }
}
