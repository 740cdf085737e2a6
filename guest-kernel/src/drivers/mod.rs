//! The devices of a guest: serial port, local APIC, the ports that end the machine and mark its
//! progress; and the virtio devices that a machine may have.

#[cfg(target_os = "none")]
pub(crate) mod apic;
pub(crate) mod block;
#[cfg(target_os = "none")]
mod io_apic;
#[cfg(target_os = "none")]
pub(crate) mod machine_ports;
#[cfg(target_os = "none")]
pub(crate) mod serial;
mod virtio_hal;
#[cfg(target_os = "none")]
mod virtio_mmio;
