//! Memory whose words compress about as well as text.

use aerostat_abi::units::FRAME_SIZE;

/// Returns the word at `place` of the text of `seed`.
pub(crate) fn word(place: usize, seed: u64) -> u64 {
    (seed << 48) | 0x616e_7469_0000 | ((place as u64 / 4).wrapping_mul(31) % 251)
}

/// Writes the text of `seed` into whole pages. The first is page `first` of the text.
pub(crate) fn fill(pages: &mut [u8], first: usize, seed: u64) {
    for (place, bytes) in pages.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&word(first * FRAME_SIZE / 8 + place, seed).to_le_bytes());
    }
}

/// Returns whether whole pages hold that text.
pub(crate) fn is_kept(pages: &[u8], first: usize, seed: u64) -> bool {
    let is_right = |(place, bytes): (usize, &[u8])| *bytes == word(first * FRAME_SIZE / 8 + place, seed).to_le_bytes();
    pages.chunks_exact(8).enumerate().all(is_right)
}
