//! Starts the drivers of the machine's devices.
#![allow(unsafe_code, reason = "the one place that vouches for one driver a device")]

use super::block;
use super::virtio::device::VirtioDevice;
use crate::arch::x86_64::boot::devices::{BadVirtioDevice, VirtioDescriptions};

/// Validates all descriptions, then starts a driver for each device that has one.
///
/// # Errors
/// [`BadVirtioDevice`] when a device can't be as it is described.
pub(crate) fn start(descriptions: &VirtioDescriptions) -> Result<(), BadVirtioDevice> {
    let devices = || (0..).zip(descriptions.iter()).map(|(index, description)| VirtioDevice::new(index, description));
    devices().try_for_each(|device| device.map(drop))?;
    // SAFETY: this runs once, so each device has one driver.
    devices().flatten().for_each(|device| unsafe { block::start(&device) });
    Ok(())
}
