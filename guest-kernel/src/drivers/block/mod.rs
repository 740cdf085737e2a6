//! Disks: virtio block devices (virtio 1.2, 5.2), one for the guest's data and one to swap to.
//!
//! A request is *submitted*, which takes no longer than a notification, and leaves a `Ticket`.
//! The device works on it while the submitter does other things; the ticket is *redeemed* for the
//! result. `disks` has the machine's disks: `attach` starts one, and `examine` asks it which it is,
//! from which [`role`] decides. `device` is what the kernel uses, and [`requests`] keeps its
//! [`queue`], with [`shared`] memory. `swap` shows a disk to memory management.
//!
//! A device's lock has the rank [`DiskPort`](crate::sync::LockRank::DiskPort).

#[cfg(target_os = "none")]
mod attach;
#[cfg(target_os = "none")]
mod device;
#[cfg(target_os = "none")]
mod disks;
#[cfg(target_os = "none")]
mod examine;
mod queue;
mod requests;
mod role;
mod shared;
#[cfg(target_os = "none")]
pub(crate) mod swap;

#[cfg(target_os = "none")]
pub(super) use self::disks::start;
#[cfg(target_os = "none")]
pub(crate) use self::{
    device::{BlockDevice, Ticket},
    disks::device,
    requests::{BlockError, Direction, MAX_FRAMES, MAX_REQUESTS, SECTOR_BYTES, Sectors},
    role::DiskId,
};
