//! How amounts are written.

use aerostat_abi::units::{FRAMES_PER_MIB, FrameCount};

/// Returns an amount in MiB, with a decimal where it is not whole.
pub(super) fn amount(count: FrameCount) -> String {
    if count.0.is_multiple_of(FRAMES_PER_MIB) { format!("{} MiB", count.mib()) } else { count.to_string() }
}

/// Returns an amount as a user writes it, rounded up to what guest memory is dealt in.
pub(super) fn argument(count: FrameCount) -> String {
    format!("{}M", count.0.div_ceil(2 * FRAMES_PER_MIB) * 2)
}
