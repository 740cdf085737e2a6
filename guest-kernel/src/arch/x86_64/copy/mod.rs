//! Copying and filling memory: the functions that every copy in the image goes through, the
//! compiler's own included.
//!
//! The functions of the bare-metal target begin and end each copy with a string instruction for the
//! odd bytes, which takes tens of nanoseconds at any length. Most copies are short. These functions
//! copy short lengths in a few words, which may overlap, and long ones with one string instruction.
//! They are assembly because a compiler that recognizes a copy calls these functions for it.
#![allow(unsafe_code, reason = "the functions access raw memory")]

use core::arch::naked_asm;

/// From this length on, a string instruction is faster than a loop of words.
const LONG: usize = 256;

/// Copies `bytes` bytes from `from` to `to`, which do not overlap. Returns `to`.
///
/// # Safety
/// As C's `memcpy`.
#[cfg_attr(target_os = "none", unsafe(export_name = "memcpy"))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    naked_asm!(include_str!("memcpy.s"), long = const LONG)
}

/// Copies `bytes` bytes from `from` to `to`, which may overlap. Returns `to`.
///
/// # Safety
/// As C's `memmove`.
#[cfg_attr(target_os = "none", unsafe(export_name = "memmove"))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    naked_asm!(include_str!("memmove.s"), memcpy = sym memcpy)
}

/// Fills `bytes` bytes with the low byte of `byte`. Returns `to`.
///
/// # Safety
/// As C's `memset`.
#[cfg_attr(target_os = "none", unsafe(export_name = "memset"))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn memset(to: *mut u8, byte: i32, bytes: usize) -> *mut u8 {
    naked_asm!(include_str!("memset.s"), long = const LONG)
}

#[cfg(test)]
mod tests {
    use super::{LONG, memcpy, memmove, memset};
    use proptest::{prop_assert_eq, proptest};

    const ROOM: usize = 3 * LONG;

    fn numbered() -> [u8; ROOM] {
        core::array::from_fn(|place| (place * 7 % 251).to_le_bytes()[0])
    }

    proptest! {
        #[test]
        fn copies_are_exact(bytes in 0..LONG + 100, from in 0_usize..40, to in 0_usize..40) {
            let source = numbered();
            let (mut copied, mut expected) = ([0; ROOM], [0; ROOM]);
            expected[to..to + bytes].copy_from_slice(&source[from..from + bytes]);
            // SAFETY: both ranges lie within their arrays.
            let end = unsafe { memcpy(copied[to..].as_mut_ptr(), source[from..].as_ptr(), bytes) };
            prop_assert_eq!(end, copied[to..].as_mut_ptr());
            prop_assert_eq!(copied, expected);
        }

        #[test]
        fn moves_may_overlap(bytes in 0..LONG + 100, from in 0..LONG, to in 0..LONG) {
            let mut moved = numbered();
            let mut expected = moved;
            expected.copy_within(from..from + bytes, to);
            let start = moved.as_mut_ptr();
            // SAFETY: both ranges lie within the array.
            let end = unsafe { memmove(start.wrapping_add(to), start.wrapping_add(from), bytes) };
            prop_assert_eq!(end, start.wrapping_add(to));
            prop_assert_eq!(moved, expected);
        }

        #[test]
        fn fills_are_exact(bytes in 0..LONG + 100, to in 0_usize..40, byte: i32) {
            let mut filled = numbered();
            let mut expected = filled;
            expected[to..to + bytes].fill(byte.to_le_bytes()[0]);
            // SAFETY: the range lies within the array.
            let end = unsafe { memset(filled[to..].as_mut_ptr(), byte, bytes) };
            prop_assert_eq!(end, filled[to..].as_mut_ptr());
            prop_assert_eq!(filled, expected);
        }
    }
}
