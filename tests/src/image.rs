//! Makes broken guest images from a good one. A loader must refuse each of them with a sentence.

use std::fs;
use std::path::{Path, PathBuf};

/// A flaw of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Text where an ELF header should be.
    NotElf,
    /// The file ends within its program headers.
    Truncated,
    /// For another processor.
    WrongMachine,
    /// No notes, so nothing says that it is a guest of Aerostat.
    WithoutNotes,
    /// A segment larger than any guest's memory.
    Oversized,
}

/// Offsets in the ELF64 file header and in a program header (System V ABI, "ELF-64 Object File
/// Format").
mod elf {
    pub(super) const MACHINE: usize = 18;
    pub(super) const PROGRAM_HEADERS: usize = 32;
    pub(super) const PROGRAM_HEADER_BYTES: usize = 54;
    pub(super) const PROGRAM_HEADER_COUNT: usize = 56;
    pub(super) const SEGMENT_MEMORY_BYTES: usize = 40;
    pub(super) const AARCH64: u16 = 183;
    pub(super) const LOAD: u32 = 1;
    pub(super) const NOTE: u32 = 4;
    pub(super) const NULL: u32 = 0;
}

/// Writes a copy of the image `good` with `flaw` into `folder`; returns its path.
///
/// # Panics
/// When `good` is not a readable ELF image, or `folder` can't be written to.
#[must_use]
pub fn broken(good: &Path, flaw: Flaw, folder: &Path) -> PathBuf {
    let mut bytes = fs::read(good).unwrap_or_else(|error| panic!("reading {}: {error}", good.display()));
    match flaw {
        Flaw::NotElf => bytes[..4].copy_from_slice(b"text"),
        Flaw::Truncated => bytes.truncate(word(&bytes, elf::PROGRAM_HEADERS) + 8),
        Flaw::WrongMachine => bytes[elf::MACHINE..][..2].copy_from_slice(&elf::AARCH64.to_le_bytes()),
        Flaw::WithoutNotes => {
            for header in segments(&bytes, elf::NOTE) {
                bytes[header..][..4].copy_from_slice(&elf::NULL.to_le_bytes());
            }
        }
        Flaw::Oversized => {
            let last = *segments(&bytes, elf::LOAD).last().expect("an image has something to load");
            bytes[last + elf::SEGMENT_MEMORY_BYTES..][..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        }
    }
    let path = folder.join(format!("{flaw:?}"));
    fs::write(&path, bytes).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
    path
}

/// Returns the offsets of the program headers of a type.
fn segments(bytes: &[u8], kind: u32) -> Vec<usize> {
    let first = word(bytes, elf::PROGRAM_HEADERS);
    let size = half(bytes, elf::PROGRAM_HEADER_BYTES);
    let headers = (0..half(bytes, elf::PROGRAM_HEADER_COUNT)).map(|index| first + index * size);
    headers.filter(|&header| bytes[header..].starts_with(&kind.to_le_bytes())).collect()
}

fn half(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn word(bytes: &[u8], at: usize) -> usize {
    let word = bytes[at..].first_chunk().copied().map(usize::from_le_bytes);
    word.expect("an ELF header is longer than its offsets")
}
