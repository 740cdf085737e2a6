//! A loop whose speed in a guest is compared with its speed on the host. The guest `native_compute`
//! and the bench of the same name both include this file.
//!
//! Each step depends on the one before it and uses only whole numbers, so the compilers for both
//! targets produce the same work (a guest has no vector registers). The table fits the first-level
//! cache, so the loop compares processing, not memory.

/// Words in the table: a power of two.
pub(crate) const WORDS: usize = 1 << 11;
/// Rounds in one run of the guest. The guest logs the time of each.
pub(crate) const ROUNDS: usize = 5;
/// Steps in one round, which takes some 50 ms.
const STEPS: u32 = 1 << 24;

/// Runs one round over `table`; returns a checksum that depends on every step.
pub(crate) fn round(table: &mut [u64; WORDS]) -> u64 {
    for (word, seed) in table.iter_mut().zip(1_u64..) {
        *word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    let mut state = 1_u64;
    for _ in 0..STEPS {
        let place = state.to_le_bytes();
        let word = &mut table[usize::from(u16::from_le_bytes([place[0], place[1]])) % WORDS];
        // Steps of xorshift64 (Marsaglia, "Xorshift RNGs", 2003), combined with the table.
        state ^= state << 13;
        state ^= state >> 7;
        state = (state ^ state << 17).wrapping_add(*word);
        *word = word.rotate_left(5) ^ state;
    }
    state
}
