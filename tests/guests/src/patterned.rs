//! Memory with a pattern that shows whether it was written to.

use alloc::vec::Vec;

/// Allocates `bytes`, checks that they read as zero, fills them with a pattern, checks that, and
/// frees them.
pub(crate) fn touch(bytes: usize, seed: u64) -> Result<(), &'static str> {
    let words = bytes / 8;
    let mut memory: Vec<u64> = Vec::new();
    memory.try_reserve_exact(words).map_err(|_| "no memory")?;
    // SAFETY: the capacity is there, and a fresh region of this size is zero, as the next line
    // checks.
    unsafe { memory.set_len(words) };
    if memory.iter().any(|&word| word != 0) {
        return Err("fresh memory is not zero");
    }
    for (index, word) in memory.iter_mut().enumerate() {
        *word = pattern(seed, index);
    }
    let is_kept = memory.iter().enumerate().all(|(index, &word)| word == pattern(seed, index));
    if is_kept { Ok(()) } else { Err("written memory changed") }
}

fn pattern(seed: u64, index: usize) -> u64 {
    (index as u64 ^ seed << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
