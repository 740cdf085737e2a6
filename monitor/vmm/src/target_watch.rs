//! Follows the target from the VMM process's main thread: what the guest offers is reclaimed first,
//! without waking the guest; the guest is told only if that is not enough, or if the host's
//! resources have changed.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use super::balloon::{Balloon, BalloonHost};
use super::lock::lock;
use aerostat_link::doorbell::answer;

/// Follows the target.
#[derive(Debug)]
pub(super) struct TargetWatch<H> {
    /// Becomes readable when the supervisor has set a target.
    pub(super) doorbell: OwnedFd,
    /// Raises the guest's balloon interrupt.
    guest_bell: EventFd,
    balloon: Arc<Mutex<Balloon<H>>>,
    /// Whether the supervisor has rung and the guest has not been told.
    is_ring_due: bool,
}

impl<H: BalloonHost> TargetWatch<H> {
    pub(super) fn new(doorbell: OwnedFd, guest_bell: EventFd, balloon: Arc<Mutex<Balloon<H>>>) -> Self {
        Self { doorbell, guest_bell, balloon, is_ring_due: false }
    }

    /// Handles that the doorbell is readable.
    pub(super) fn rung(&mut self) {
        answer(&self.doorbell);
        lock(&self.balloon).acknowledge();
        self.is_ring_due = true;
    }

    /// Reclaims a part of what the guest offers, if it is larger than its target, and tells the
    /// guest of a new target that can't be reached this way. Returns whether there is more to
    /// reclaim.
    pub(super) fn follow(&mut self) -> bool {
        if lock(&self.balloon).host_reclaim() {
            return true;
        }
        if std::mem::take(&mut self.is_ring_due) && lock(&self.balloon).has_to_be_told() {
            // Full only where the guest has been told 2^64 times and did not respond.
            let _ = self.guest_bell.write(1);
        }
        false
    }
}
