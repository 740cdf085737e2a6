//! What all virtio drivers use: the devices that a machine has, their registers in memory, and the
//! memory that they share with this kernel.

pub(super) mod device;
pub(super) mod hal;
#[cfg(target_os = "none")]
pub(super) mod mmio;
