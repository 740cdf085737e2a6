//! Starts the drivers of the machine's devices.

use virtio_drivers::transport::DeviceType;

use super::block;
use super::virtio::VirtioDevice;
use super::virtio::find::{Drivers, find};
use crate::arch::x86_64::boot::devices::DeviceSources;

/// Devices whose drivers are above this layer.
#[derive(Debug, Default)]
pub(crate) struct OtherDevices {
    /// The balloon.
    pub(crate) balloon: Option<VirtioDevice>,
}

/// Finds the machine's devices and starts the drivers of this layer. A device that can't be used is
/// named in the log.
pub(crate) fn start(sources: &DeviceSources) -> OtherDevices {
    let mut others = OtherDevices::default();
    find(sources, &mut others);
    others
}

impl Drivers for OtherDevices {
    fn drive(&self, kind: DeviceType) -> bool {
        matches!(kind, DeviceType::Block)
    }

    fn start(&mut self, device: VirtioDevice) {
        match device.kind() {
            DeviceType::Block => block::start(device),
            DeviceType::MemoryBalloon if self.balloon.is_none() => self.balloon = Some(device),
            _ => log::warn!("{} is not used: there is one already", device.name()),
        }
    }
}
