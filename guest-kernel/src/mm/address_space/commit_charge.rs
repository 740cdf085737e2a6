//! The commit charge of a region that is about to be created or extended, as a value.

use aerostat_abi::units::{FRAME_BYTES, FrameCount};

use super::Region;
use crate::mm::{FRAMES, OutOfMemory, slow_path};

/// An owned commit charge for a region. Dropping it uncharges the commit, unless a region has taken
/// it over.
#[derive(Debug)]
pub(crate) struct CommitCharge {
    frames: FrameCount,
    bytes: u64,
}

impl CommitCharge {
    /// Charges the commit for `bytes` more of a region, rounded up to whole pages. May wait for the
    /// host.
    ///
    /// # Errors
    /// [`OutOfMemory`] when it can't be made.
    pub(crate) fn for_region(bytes: u64) -> Result<Self, OutOfMemory> {
        let bytes = bytes.max(1).checked_next_multiple_of(FRAME_BYTES).ok_or(OutOfMemory)?;
        Self::of(Region::commit_charge_for(bytes), bytes)
    }

    /// Charges `frames` frames for `bytes` of a region. May wait for the host.
    ///
    /// # Errors
    /// [`OutOfMemory`] when it can't be made.
    pub(in crate::mm) fn of(frames: FrameCount, bytes: u64) -> Result<Self, OutOfMemory> {
        slow_path::charge_commit(frames)?;
        Ok(Self { frames, bytes })
    }

    /// Returns how many bytes of a region the charge is for.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many frames are charged.
    pub(super) fn frames(&self) -> FrameCount {
        self.frames
    }

    /// Returns the charged frames. The caller is now responsible for drawing on them and uncharging
    /// them.
    pub(super) fn take_over(self) -> FrameCount {
        let frames = self.frames;
        core::mem::forget(self);
        frames
    }
}

impl Drop for CommitCharge {
    fn drop(&mut self) {
        FRAMES.uncharge_commit(self.frames);
    }
}
