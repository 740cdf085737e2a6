//! A guest's balloon register as the supervisor set it, and the targets before it that the guest
//! may still act on.
//!
//! The supervisor never reads the register back, since a guest's process may write anywhere in the
//! page that it shares.

use aerostat_abi::registers::Epoch;
use aerostat_abi::units::FrameCount;
use aerostat_balloon_driver::RateLimits;

use super::Start;
use super::pacing::{Pace, Pacing};
use crate::clock::Moment;
use crate::scheduler::{FutureEpoch, Targets};

/// The register of one guest. It moves to the scheduler's target at once, or in steps where the
/// host limits the rate.
#[derive(Debug)]
pub(super) struct TargetRegister {
    value: FrameCount,
    sent: Targets,
    pacing: Option<Pacing>,
}

impl TargetRegister {
    /// Creates the register of a guest that was started with its first target.
    pub(super) fn new(start: Start, rate: Option<RateLimits>) -> Self {
        let Start { target, spawned, epoch, .. } = start;
        Self {
            value: target,
            sent: Targets::since(target, epoch),
            pacing: rate.map(|limits| Pacing::new(limits, target, spawned)),
        }
    }

    /// Moves the register towards `target`, for a guest of this size. Returns what is to be sent to
    /// the guest, if that changed.
    pub(super) fn follow(
        &mut self,
        target: FrameCount,
        size: Option<FrameCount>,
        pace: Pace,
        now: Moment,
    ) -> Option<(FrameCount, Epoch)> {
        let value = match (&mut self.pacing, size) {
            (None, _) => target,
            (Some(pacing), None) => pacing.register(),
            (Some(pacing), Some(size)) => {
                pacing.follow(target, size, pace, now);
                pacing.register()
            }
        };
        if value == self.value {
            return None;
        }
        self.value = value;
        Some((value, self.sent.set(value)))
    }

    /// Records that the guest acts on no target before `epoch` any more.
    pub(super) fn acknowledge(&mut self, epoch: Epoch) -> Result<(), FutureEpoch> {
        self.sent.acknowledge(epoch)
    }

    /// Returns whether the guest's process acts on no target but the last one.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.sent.is_acknowledged()
    }

    /// Returns the largest target that the guest may still act on.
    pub(super) fn largest(&self) -> FrameCount {
        self.sent.largest()
    }

    /// Returns the frames per second that the host asks the guest for; `None` where the host does
    /// not limit the rate.
    pub(super) fn frames_per_s(&self) -> Option<FrameCount> {
        self.pacing.as_ref().map(|pacing| FrameCount(pacing.frames_per_s()))
    }
}
