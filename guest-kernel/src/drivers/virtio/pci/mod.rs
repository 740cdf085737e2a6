//! Virtio devices on a PCI bus (virtio 1.2, 4.1): where they are, their registers, and messages as
//! interrupts.
//!
//! All that is read from a device is checked before it is used. What works on any configuration
//! space runs on the host too.

mod bars;
mod capabilities;
#[cfg(target_os = "none")]
mod config_space;
#[cfg(target_os = "none")]
pub(super) mod msi_x;
#[cfg(target_os = "none")]
pub(super) mod open;
mod scan;
#[cfg(test)]
mod testing;

#[cfg(target_os = "none")]
pub(super) use self::{config_space::ConfigSpace, open::Bus};
