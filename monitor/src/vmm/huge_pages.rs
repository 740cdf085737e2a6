//! What the host's huge pages become when part of a huge frame goes into the balloon.
//!
//! Linux frees a huge page only as a whole. Releasing part of one lowers resident memory, while all
//! 2 MiB stay allocated until memory runs short; measured on Linux 6.18 by the charge of a control
//! group. So the first time that a huge frame is ballooned in part, the huge page behind it has to
//! go. There are two ways:
//!
//! * **Copying**: the kept frames are copied out, all 2 MiB are released, the kept frames are
//!   copied back into small pages. 10 us and 2 us for each kept frame. What anybody writes to them
//!   meanwhile is lost, and what anybody reads may be zeros, so nobody may: the guest's only
//!   processor has left it for the call, and [`Quiescent`] proves that no device is at work.
//! * **Splitting**: the kernel makes 512 small pages of the huge one. 250 to 430 us, whatever is
//!   kept, and safe against everybody.
//!
//! Copying is for few kept frames while the guest stands still, splitting for everything else. A
//! second part of the same huge frame needs neither: `page_sizes` sees to it that small pages stay
//! behind a huge frame until the guest has all of it.
//!
//! A call may name single frames of hundreds of huge frames, and the guest stands still meanwhile.
//! So a call splits a few ([`SPLIT_IN_A_CALL`]), and the others are [`Unsplit`]: the main thread
//! splits them beside the running guest. Until then what was given of them is not free, and the
//! guest's size as it is published does not fall by it.

use std::ops::Range;

use aerostat_abi::units::{FRAME_SIZE, FrameCount};

use super::frame_map::{FrameMap, Frames};
use super::memory::GuestMemory;
use super::page_sizes::frames_of;
use super::release::Releaser;
use super::virtio::Quiescent;

/// Kept frames up to which copying is clearly cheaper than splitting; 256 KiB hold them.
const COPIED_AT_MOST: usize = 64;

/// Huge pages that are split before a call returns, or while a call waits: they take 1.6 ms.
pub(super) const SPLIT_IN_A_CALL: usize = 4;

/// Huge frames whose huge page is still to be split.
#[derive(Debug, Default)]
pub(super) struct Unsplit {
    huge_frames: Vec<usize>,
}

impl Unsplit {
    /// Adds huge frames that have just been given in part.
    pub(super) fn extend(&mut self, huge_frames: impl IntoIterator<Item = usize>) {
        self.huge_frames.extend(huge_frames);
    }

    /// What was given and is not free.
    pub(super) fn given(&self, map: &FrameMap) -> FrameCount {
        let given =
            |&huge: &usize| map.runs(Frames::Ballooned, frames_of(&(huge..huge + 1))).map(|run| run.len() as u64);
        FrameCount(self.huge_frames.iter().flat_map(given).sum())
    }

    /// Removes a few; returns the kept frames of them, one of which is a part of the huge page if
    /// any frame still is.
    pub(super) fn take(&mut self, map: &FrameMap) -> Vec<Range<usize>> {
        let few = self.huge_frames.drain(self.huge_frames.len().saturating_sub(SPLIT_IN_A_CALL)..);
        few.flat_map(|huge| map.runs(Frames::Guest, frames_of(&(huge..huge + 1)))).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.huge_frames.is_empty()
    }
}

/// Copies kept frames out of huge pages and back.
#[derive(Debug, Default)]
pub(super) struct Copier {
    /// Holds what is kept of one huge frame. Empty before the first copy, and not larger than
    /// [`COPIED_AT_MOST`] frames.
    kept: Vec<u8>,
}

impl Copier {
    /// Frees the huge page behind huge frame `huge`, of which `map` says what is kept. Returns
    /// whether that is done: not where much is kept, and not where the host may have less behind
    /// the huge frame than all of it. Then there is no huge page, or splitting is cheaper.
    ///
    /// The guest's processor does not run, and runs on only when this has returned.
    pub(super) fn free(
        &mut self,
        huge: usize,
        map: &FrameMap,
        (memory, releaser): (&GuestMemory, &Releaser),
        _nobody_writes: &Quiescent<'_>,
    ) -> bool {
        let all = frames_of(&(huge..huge + 1));
        let kept: Vec<_> = map.runs(Frames::Guest, all.clone()).collect();
        let count: usize = kept.iter().map(ExactSizeIterator::len).sum();
        if count > COPIED_AT_MOST || !memory.is_resident(&all) {
            return false;
        }
        self.kept.clear();
        kept.iter().for_each(|run| memory.save(run, &mut self.kept));
        let is_free = releaser.release(memory, &[all]) == 1;
        let mut saved = self.kept.as_slice();
        for run in &kept {
            let (bytes, rest) = saved.split_at(run.len() * FRAME_SIZE);
            memory.restore(run.start, bytes);
            saved = rest;
        }
        is_free
    }
}
