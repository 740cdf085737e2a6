//! How evicted pages come back: restored by a fault, with their neighbours, or read ahead.

pub(crate) mod frames;
mod neighbours;
pub(super) mod plan;
pub(super) mod read_ahead;
pub(crate) mod restore;
