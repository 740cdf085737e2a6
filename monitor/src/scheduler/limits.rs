//! A guest's number and the sizes between which it lives.

use aerostat_abi::units::FrameCount;
use serde::{Deserialize, Serialize};

use crate::size::frames;

/// A guest, in the order of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestId(pub usize);

/// The sizes between which a guest lives. The code that builds one has checked that both are whole
/// huge frames and `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// What the guest always keeps.
    #[serde(with = "frames")]
    pub min: FrameCount,
    /// All the memory its machine has.
    #[serde(with = "frames")]
    pub max: FrameCount,
}
