//! What the host's huge pages become when part of a huge frame goes into the balloon.
//!
//! Linux frees a huge page only as a whole. Releasing part of one lowers resident memory, while all
//! 2 MiB stay allocated until memory runs short; measured on Linux 6.18 by the charge of a control
//! group. So the first time that a huge frame is ballooned in part, the huge page behind it has to
//! be broken up. There are two ways:
//!
//! * **Copying**: the guest's frames are copied out, all 2 MiB are released, and the guest's frames
//!   are copied back into small pages. This takes 10 us and 2 us for each of the guest's frames.
//!   What is written to them meanwhile is lost, and what is read may be zeros, so there must be no
//!   access: the guest's only processor has left it for the call, and [`Quiescent`] proves that no
//!   device is at work.
//! * **Splitting**: the kernel makes 512 small pages of the huge one. This takes 250 to 430 us,
//!   however many frames are the guest's, and is safe under any concurrent access.
//!
//! Copying is used where few frames are the guest's and the guest does not run, splitting
//! everywhere else. A second part of the same huge frame needs neither: `page_sizes` makes sure
//! that small pages stay behind a huge frame until all of it is the guest's.
//!
//! A call may name single frames of hundreds of huge frames, and the guest does not run meanwhile.
//! So a call splits a few ([`SPLIT_IN_A_CALL`]), and the others are [`Unsplit`]: the main thread
//! splits them while the guest runs. Until then what was ballooned of them is not free, and the
//! guest's published size does not fall by it.

use std::ops::Range;

use aerostat_abi::units::{FRAME_SIZE, FrameCount};

use super::frame_map::{FrameMap, Frames};
use super::memory::GuestMemory;
use super::page_sizes::HugeIndex;
use super::release::Releaser;
use super::virtio::Quiescent;

/// Guest's frames up to which copying is clearly cheaper than splitting; they fill 256 KiB.
const COPIED_AT_MOST: usize = 64;

/// Huge pages that are split before a call returns, or while a call waits: they take 1.6 ms.
pub(super) const SPLIT_IN_A_CALL: usize = 4;

/// Huge frames whose huge page is still to be split.
#[derive(Debug, Default)]
pub(super) struct Unsplit {
    huge_frames: Vec<HugeIndex>,
}

impl Unsplit {
    /// Adds huge frames that have just been ballooned in part.
    pub(super) fn extend(&mut self, huge_frames: impl IntoIterator<Item = HugeIndex>) {
        self.huge_frames.extend(huge_frames);
    }

    /// Returns how many frames are ballooned but not free.
    pub(super) fn ballooned(&self, map: &FrameMap) -> FrameCount {
        let ballooned = |huge: &HugeIndex| map.runs(Frames::Ballooned, huge.frames()).map(|run| run.len() as u64);
        FrameCount(self.huge_frames.iter().flat_map(ballooned).sum())
    }

    /// Removes a few huge frames and returns the guest's frames of each; any of them is a part of
    /// the huge page if there still is one.
    pub(super) fn take(&mut self, map: &FrameMap) -> Vec<Range<usize>> {
        let few = self.huge_frames.drain(self.huge_frames.len().saturating_sub(SPLIT_IN_A_CALL)..);
        few.flat_map(|huge| map.runs(Frames::Guest, huge.frames())).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.huge_frames.is_empty()
    }
}

/// Copies the guest's frames out of huge pages and back.
#[derive(Debug, Default)]
pub(super) struct Copier {
    /// Holds the guest's frames of one huge frame. Empty before the first copy, and never larger
    /// than [`COPIED_AT_MOST`] frames.
    kept: Vec<u8>,
}

impl Copier {
    /// Frees the huge page behind huge frame `huge`, of which `map` says which frames are the
    /// guest's. Returns whether that is done. It is not done where many frames are the guest's, nor
    /// where the host may not back all of the huge frame: then there is no huge page, or splitting
    /// is cheaper.
    ///
    /// The guest's processor must not run until this has returned.
    pub(super) fn free(
        &mut self,
        huge: HugeIndex,
        map: &FrameMap,
        (memory, releaser): (&GuestMemory, &Releaser),
        _no_device_writes: &Quiescent<'_>,
    ) -> bool {
        let all = huge.frames();
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
