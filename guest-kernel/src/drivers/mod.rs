//! The devices of a guest: the serial port, the I/O APIC, and the virtio devices that a machine may
//! have.

pub(crate) mod block;
#[cfg(target_os = "none")]
mod io_apic;
#[cfg(target_os = "none")]
pub(crate) mod serial;
mod virtio_hal;
#[cfg(target_os = "none")]
mod virtio_mmio;
