//! Takes away what the guest has given and touched all the same, from the VMM process's main thread, when the supervisor says so: a pass
//! over all that is given, in chunks, so that the guest's calls get in between.

use std::sync::{Arc, Mutex};

use super::balloon::{Balloon, BalloonHost};
use super::lock::lock;

/// A pass over given frames, while one is under way.
#[derive(Debug)]
pub(super) struct Reclamation<H> {
    balloon: Arc<Mutex<Balloon<H>>>,
    /// The frame index that the pass has got to.
    at: Option<usize>,
}

impl<H: BalloonHost> Reclamation<H> {
    pub(super) fn new(balloon: Arc<Mutex<Balloon<H>>>) -> Self {
        Self { balloon, at: None }
    }

    /// Begins a pass, unless one is under way.
    pub(super) fn begin(&mut self) {
        self.at.get_or_insert(0);
    }

    /// Releases a chunk; says whether there is more to do.
    pub(super) fn advance(&mut self) -> bool {
        self.at = self.at.and_then(|at| lock(&self.balloon).reclaim_given(at));
        self.at.is_some()
    }
}
