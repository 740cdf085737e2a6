//! The virtio balloon device (virtio 1.2, 5.5), as other monitors offer it.
//!
//! * [`features`]: what is negotiated, and which queue has which number.
//! * [`queue`]: one queue, and the buffers that the device has.
//! * [`device`]: setting the device up, and moving frames; [`pfn_pages`]: the arrays of frame
//!   numbers for that; [`shared`]: the memory that they are in.
//! * [`statistics`]: the tags of the statistics; [`hint_session`]: what a host that migrates the
//!   guest asks for.
//! * `start`: finds the device of the machine; its interrupt.
//!
//! The driver that decides what to move is the kernel's balloon driver, above this layer.

pub(crate) mod device;
pub(crate) mod features;
pub(crate) mod hint_session;
mod pfn_pages;
mod queue;
mod shared;
mod statistics;

#[cfg(target_os = "none")]
pub(crate) mod start;
