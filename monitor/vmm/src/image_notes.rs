//! The notes of an ELF image, and the one that is needed: which version of hermit-entry's protocol
//! the image expects. Pure.
//!
//! Every size is checked against how the loader will use it, as the loader slices unchecked.

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

/// Looks for the entry-version note in the bytes of the note segment.
pub(super) fn check(mut bytes: &[u8], align: u64) -> Result<(), NoteError> {
    let align = usize::try_from(align).ok().filter(|align| matches!(align, 4 | 8)).ok_or(NoteError::Damaged)?;
    let mut version = None;
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let note = Note::split(header, rest, align).ok_or(NoteError::Damaged)?;
        if note.kind == ENTRY_VERSION_NOTE && note.name == OWNER && version.is_none() {
            version = Some(*note.description.first().ok_or(NoteError::Damaged)?);
        }
        bytes = note.rest;
    }
    match version {
        Some(ENTRY_VERSION) => Ok(()),
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
    use super::{NoteError, check};
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
        assert_eq!(check(&notes, 4), Ok(()));
        assert_eq!(check(&notes[..notes.len() - 1], 4), Err(NoteError::Damaged));
        assert_eq!(check(&notes, 3), Err(NoteError::Damaged));
    }

    #[test]
    fn other_versions_and_owners_are_refused() {
        assert_eq!(check(&note(b"HERMIT\0", 0x5a00, &[3]), 4), Err(NoteError::WrongVersion(3)));
        assert_eq!(check(&note(b"HERMIT\0", 0x5a00, &[]), 4), Err(NoteError::Damaged));
        assert_eq!(check(&note(b"HARMIT\0", 0x5a00, &[4]), 4), Err(NoteError::Missing));
        assert_eq!(check(&note(b"", 0x5a00, &[4]), 4), Err(NoteError::Damaged));
        assert_eq!(check(&[], 4), Err(NoteError::Missing));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..64), align: u64) {
            let _ = check(&bytes, align);
            let _ = check(&bytes, 4);
        }
    }
}
