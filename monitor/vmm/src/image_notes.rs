//! The notes of an ELF image. One is needed: which version of hermit-entry's protocol the image
//! expects. Another says where its kernel keeps its thread table. Pure.
//!
//! Every size is checked against how the loader will use it, as the loader slices unchecked.

use aerostat_abi::threads;
use thiserror::Error;

/// The protocol version that the loader speaks.
const ENTRY_VERSION: u8 = 4;
/// The note that names the version; its owner is [`OWNER`].
const ENTRY_VERSION_NOTE: u32 = 0x5a00;
const OWNER: &[u8] = b"HERMIT\0";
/// Sizes of name and description, and the type.
const HEADER_BYTES: usize = 12;

/// Why an image's notes can't be used.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    /// No note names the version.
    #[error("has no HERMIT entry-version note: it is no guest image")]
    Missing,
    /// Another version than ours.
    #[error("expects version {0} of the entry protocol, this monitor speaks {ENTRY_VERSION}")]
    WrongVersion(u8),
    /// Notes reach beyond their segment.
    #[error("is damaged: its notes make no sense")]
    Damaged,
}

/// What the notes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Notes {
    /// The address of the thread table. It is unchecked.
    pub(super) thread_table: Option<u64>,
}

/// Reads the notes in the bytes of the note segment, and checks the entry-version note.
pub(super) fn read(mut bytes: &[u8], align: u64) -> Result<Notes, NoteError> {
    let align = usize::try_from(align).ok().filter(|align| matches!(align, 4 | 8)).ok_or(NoteError::Damaged)?;
    let mut version = None;
    let mut thread_table = None;
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let note = Note::split(header, rest, align).ok_or(NoteError::Damaged)?;
        if note.kind == ENTRY_VERSION_NOTE && note.name == OWNER && version.is_none() {
            version = Some(*note.description.first().ok_or(NoteError::Damaged)?);
        }
        if note.kind == threads::NOTE_KIND && note.name == threads::NOTE_OWNER {
            thread_table = note.description.try_into().ok().map(u64::from_le_bytes);
        }
        bytes = note.rest;
    }
    match version {
        Some(ENTRY_VERSION) => Ok(Notes { thread_table }),
        Some(other) => Err(NoteError::WrongVersion(other)),
        None => Err(NoteError::Missing),
    }
}

struct Note<'a> {
    kind: u32,
    name: &'a [u8],
    description: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Note<'a> {
    /// Returns the note that begins with `header`; `None` where it is longer than its bytes, or its
    /// name is no text.
    fn split(header: &[u8; HEADER_BYTES], rest: &'a [u8], align: usize) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *header;
        let name_bytes = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
        let description_bytes = usize::try_from(u32::from_le_bytes([e, f, g, h])).ok()?;
        let kind = u32::from_le_bytes([i, j, k, l]);

        let name = rest.get(..name_bytes)?;
        std::str::from_utf8(name.get(..name_bytes.checked_sub(1)?)?).ok()?;
        // Offsets are rounded up from the note's first byte, so with 8-byte alignment the header
        // counts.
        let aligned = |bytes: usize| (HEADER_BYTES + bytes).next_multiple_of(align) - HEADER_BYTES;
        let description_start = aligned(name_bytes);
        let description = rest.get(description_start..description_start.checked_add(description_bytes)?)?;
        let rest = rest.get(aligned(description_start + description_bytes)..)?;
        Some(Self { kind, name, description, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::{NoteError, Notes, read};
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::proptest;

    fn note(name: &[u8], kind: u64, description: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u64, description.len() as u64, kind] {
            bytes.extend(&word.to_le_bytes()[..4]);
        }
        for part in [name, description] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_version_is_found_behind_other_notes() {
        let notes = [note(b"GNU\0", 1, &[0; 16]), note(b"HERMIT\0", 0x5a00, &[4])].concat();
        assert_eq!(read(&notes, 4), Ok(Notes { thread_table: None }));
        assert_eq!(read(&notes[..notes.len() - 1], 4), Err(NoteError::Damaged));
        assert_eq!(read(&notes, 3), Err(NoteError::Damaged));
    }

    #[test]
    fn the_thread_table_is_found() {
        let version = note(b"HERMIT\0", 0x5a00, &[4]);
        let table = |description: &[u8]| {
            let notes = [note(b"AEROSTAT\0", 1, description), version.clone()].concat();
            read(&notes, 4).unwrap().thread_table
        };
        assert_eq!(table(&0x1234_5678_9abc_u64.to_le_bytes()), Some(0x1234_5678_9abc));
        assert_eq!(table(&[0; 4]), None, "no address has four bytes");
        assert_eq!(read(&note(b"AEROSTAT\0", 1, &[0; 8]), 4), Err(NoteError::Missing));
    }

    #[test]
    fn other_versions_and_owners_are_refused() {
        assert_eq!(read(&note(b"HERMIT\0", 0x5a00, &[3]), 4), Err(NoteError::WrongVersion(3)));
        assert_eq!(read(&note(b"HERMIT\0", 0x5a00, &[]), 4), Err(NoteError::Damaged));
        assert_eq!(read(&note(b"HARMIT\0", 0x5a00, &[4]), 4), Err(NoteError::Missing));
        assert_eq!(read(&note(b"", 0x5a00, &[4]), 4), Err(NoteError::Damaged));
        assert_eq!(read(&[], 4), Err(NoteError::Missing));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..64), align: u64) {
            let _ = read(&bytes, align);
            let _ = read(&bytes, 4);
        }
    }
}
