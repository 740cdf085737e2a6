//! The devices of a guest: I/O APICs, and the virtio devices that a machine may have.

pub(crate) mod balloon;
pub(crate) mod block;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod io_apic;
pub(crate) mod virtio;

#[cfg(target_os = "none")]
pub(crate) use start::start;

#[cfg(target_os = "none")]
mod start;
