//! Ranges of addresses, cut into pieces.

use core::ops::Range;

use aerostat_abi::units::HUGE_BYTES;

/// Returns the 2 MiB slots of `range`, each with its end.
pub(in crate::mm) fn slots(range: &Range<u64>) -> impl Iterator<Item = (u64, u64)> + use<> {
    pieces(range, HUGE_BYTES)
}

/// Returns `range` cut at the multiples of `bytes`.
pub(in crate::mm) fn pieces(range: &Range<u64>, bytes: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
    let end = range.end;
    let mut at = range.start;
    core::iter::from_fn(move || {
        let piece = (at < end).then(|| (at, (at + 1).next_multiple_of(bytes).min(end)))?;
        at = piece.1;
        Some(piece)
    })
}
