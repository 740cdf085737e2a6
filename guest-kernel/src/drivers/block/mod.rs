//! Disks: virtio block devices (virtio 1.2, 5.2), one for the guest's data and one to swap to.
//!
//! A request is *submitted*, which takes no longer than a notification, and leaves a [`Ticket`];
//! the device works on it while the submitter does what it likes; the ticket is *redeemed* for the
//! result. [`requests`] keeps the queue, [`mod@device`] is what the kernel uses, the interrupt
//! included.
//!
//! A device's lock has the rank [`DiskPort`](crate::sync::LockRank::DiskPort).

#[cfg(target_os = "none")]
mod device;
mod requests;
#[cfg(target_os = "none")]
pub(crate) mod swap;

#[cfg(target_os = "none")]
pub(super) use device::start;
#[cfg(target_os = "none")]
pub(crate) use device::{BlockDevice, DiskId, Ticket, device};
#[cfg(target_os = "none")]
pub(crate) use requests::{BlockError, Direction, MAX_FRAMES, MAX_REQUESTS, SECTOR_BYTES, Sectors};
