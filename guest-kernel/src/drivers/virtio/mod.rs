//! Virtio devices (virtio 1.2): where a machine has them, and what all their drivers use.
//!
//! `find` opens each device whose kind has a driver, over MMIO ([`mmio`]) or over PCI ([`pci`]),
//! and passes it on as a `VirtioDevice`. No other module knows the transports. A driver negotiates
//! ([`negotiation`]), makes its queues, and begins to listen ([`interrupts`]). The protocol itself
//! is the crate `virtio-drivers`.

#[cfg(target_os = "none")]
mod device;
#[cfg(target_os = "none")]
pub(super) mod find;
pub(super) mod hal;
mod interrupts;
pub(super) mod mmio;
pub(super) mod negotiation;
mod pci;

#[cfg(target_os = "none")]
pub(crate) use self::{
    device::{DeviceName, SharedInterrupt, VirtioDevice, VirtioTransport},
    interrupts::{Acknowledgement, DeviceHandler, DeviceNumber},
    negotiation::NegotiationError,
};
