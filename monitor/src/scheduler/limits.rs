//! A guest's number and the sizes between which it lives.

use aerostat_abi::units::FrameCount;

/// A guest, in the order of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestId(pub usize);

/// The sizes between which a guest lives. The code that builds one has checked that both are whole
/// huge frames and `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What the guest always keeps.
    pub min: FrameCount,
    /// All the memory its machine has.
    pub max: FrameCount,
}
