//! What host paging needs of the balloon device: which frames are the guest's.

use std::sync::Arc;

use super::{Balloon, BalloonHost};
use crate::frame_map::Frames;
use crate::page_sizes::HugeIndex;
use crate::paging::{Departure, FrameMask, Paging};

impl<H: BalloonHost> Balloon<H> {
    /// Has this guest's contents paged from now on.
    pub(crate) fn set_paging(&mut self, paging: Arc<Paging>) {
        self.paging = Some(paging);
    }

    /// Moves the guest's frames of a huge frame out of guest memory. No device transfers to guest
    /// memory meanwhile. The words that the guest shares stay, since the main thread reads them.
    pub(crate) fn page_out(&mut self, huge: HugeIndex) -> Departure {
        let Some(paging) = &self.paging else { return Departure::Refused };
        let all = huge.frames();
        let shared = self.map.shared_indexes();
        let holds_shared = shared.is_some_and(|shared| shared.start < all.end && all.start < shared.end);
        let frames: FrameMask =
            self.map.runs(Frames::Guest, all.clone()).map(|run| run.start - all.start..run.end - all.start).collect();
        if holds_shared || frames.is_empty() {
            return Departure::Refused;
        }
        paging.move_out(huge, frames)
    }
}
