//! One damaged image per case, and random damage.

use std::fs::File;
use std::io::Write;

use aerostat_abi::units::FrameCount;
use proptest::prelude::any;
use proptest::{prop_assert, proptest};

use super::{ImageError, ImageInfo, NoteError, check_file, check_image};

#[path = "../../tests/support/elf.rs"]
mod elf;

use elf::{BASE, CODE_OFFSET, SEGMENTS_OFFSET, image, segment};

const MEMORY: FrameCount = FrameCount::from_mib(8);
const NOTE_SEGMENT: usize = SEGMENTS_OFFSET;
const LOAD_SEGMENT: usize = SEGMENTS_OFFSET + 56;

fn check(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    check_file(&file, MEMORY)
}

/// A good image with `bytes` written over it at `offset`.
fn damaged(offset: usize, bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    let mut file = image(&[0xf4; 16], 0x3000);
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    check(&file)
}

#[test]
fn a_good_image_passes() {
    let info = check(&image(&[0xf4; 16], 0x3001)).unwrap();
    assert_eq!(info, ImageInfo { start: BASE, end: BASE + 0x3001, entry: BASE });
    assert_eq!(info.frames().end.0 - info.frames().start.0, 4);
}

#[test]
fn missing_and_unsuitable_files() {
    let missing = check_image("/nowhere/image".as_ref(), MEMORY).unwrap_err();
    assert!(matches!(missing, ImageError::Unreadable(_)), "{missing}");
    assert!(matches!(check_file(&File::open("/").unwrap(), MEMORY), Err(ImageError::NotAFile)));
    assert!(matches!(check(b""), Err(ImageError::NotElf)));
    assert!(matches!(check(b"#!/bin/sh\n"), Err(ImageError::NotElf)));
    assert!(matches!(check(b"\x7fELF\x02\x01"), Err(ImageError::CutShort("header"))));
}

#[test]
fn wrong_kinds_of_elf() {
    assert!(matches!(damaged(4, &[1]), Err(ImageError::Not64Bit)));
    assert!(matches!(damaged(5, &[2]), Err(ImageError::BigEndian)));
    assert!(matches!(damaged(18, &183_u16.to_le_bytes()), Err(ImageError::WrongMachine(183))));
    assert!(matches!(damaged(16, &[3]), Err(ImageError::PositionIndependent)));
    assert!(matches!(damaged(16, &[1]), Err(ImageError::NotExecutable(1))));
    assert!(matches!(damaged(NOTE_SEGMENT, &[2]), Err(ImageError::Dynamic)));
}

#[test]
fn cut_and_damaged_tables() {
    let good = image(&[0xf4; 16], 0x3000);
    assert!(matches!(check(&good[..100]), Err(ImageError::CutShort("program headers"))));
    assert!(matches!(check(&good[..CODE_OFFSET + 8]), Err(ImageError::CutShort("segments"))));
    assert!(matches!(damaged(32, &[65]), Err(ImageError::Damaged("program headers"))));
    assert!(matches!(damaged(56, &[0xff, 0xff]), Err(ImageError::Damaged("program headers"))));
    assert!(matches!(damaged(54, &[55]), Err(ImageError::Damaged("program headers"))));
    assert!(matches!(damaged(40, &u64::MAX.to_le_bytes()), Err(ImageError::Damaged("section headers"))));
    assert!(matches!(damaged(60, &[200]), Err(ImageError::CutShort("section headers"))));
    assert!(matches!(damaged(56, &[0]), Err(ImageError::Empty)));
}

#[test]
fn bad_segments() {
    let load = |offset, address, file_bytes, bytes| {
        damaged(LOAD_SEGMENT, &segment(1, offset, address, file_bytes, bytes, 4096)).unwrap_err()
    };
    assert!(matches!(load(0x1000, 0xf_f000, 16, 16), ImageError::TooLow(0xf_f000)));
    assert!(matches!(load(0x1000, 8 << 20, 16, 16), ImageError::LargerThanMemory { .. }));
    assert!(matches!(load(0x1000, BASE, 16, 7 << 20), ImageError::LargerThanMemory { .. }));
    assert!(matches!(load(0x1000, BASE, 16, 8), ImageError::Damaged("segments")));
    assert!(matches!(load(u64::MAX, BASE, 16, 16), ImageError::CutShort("segments")));
    assert!(matches!(load(0x1000, BASE, 16, u64::MAX), ImageError::Damaged("segments")));
    assert!(matches!(load(0x1000, BASE + 4096, 16, 16), ImageError::BadEntry(BASE)));
}

#[test]
fn unsorted_and_distant_segments() {
    let mut file = image(&[0xf4; 16], 0x3000);
    file[56] = 3;
    let third = LOAD_SEGMENT + 56;
    file[third..third + 56].copy_from_slice(&segment(1, 0x1000, BASE + 0x2000, 16, 16, 4096));
    assert!(matches!(check(&file), Err(ImageError::Unsorted)));
    file[third..third + 56].copy_from_slice(&segment(1, 0x1000, 1 << 30, 16, 16, 4096));
    let mut large = tempfile::tempfile().unwrap();
    large.write_all(&file).unwrap();
    assert!(matches!(check_file(&large, FrameCount::from_mib(4096)), Err(ImageError::TooHigh(_))));
    file[third..third + 56].copy_from_slice(&segment(7, 0, BASE, 0, u64::MAX, 8));
    assert!(matches!(check(&file), Err(ImageError::Damaged("thread-local segment"))));
}

#[test]
fn missing_and_bad_notes() {
    assert!(matches!(damaged(NOTE_SEGMENT, &[6]), Err(ImageError::Note(NoteError::Missing))));
    assert!(matches!(damaged(0x200 + 20, &[9]), Err(ImageError::Note(NoteError::WrongVersion(9)))));
    assert!(matches!(damaged(NOTE_SEGMENT + 32, &[0, 0, 1]), Err(ImageError::Damaged("notes"))));
    assert!(matches!(damaged(NOTE_SEGMENT + 8, &[2]), Err(ImageError::Damaged("notes"))));
    assert!(matches!(damaged(NOTE_SEGMENT + 32, &[0xff, 0xff]), Err(ImageError::CutShort("notes"))));
}

#[test]
fn errors_are_one_line() {
    let error = damaged(LOAD_SEGMENT, &segment(1, 0x1000, BASE, 16, 7 << 20, 4096)).unwrap_err();
    assert_eq!(error.to_string(), "is larger than memory: it ends at 9.0 MiB, the guest has 8.0 MiB");
}

proptest! {
    /// Whatever passes the check, the loader parses.
    #[test]
    fn random_damage_never_reaches_the_loader(offset in 0_usize..0x220, byte: u8, cut in any::<u16>()) {
        let mut file = image(&[0xf4; 16], 0x3000);
        file[offset] = byte;
        if cut < 0x1010 {
            file.truncate(usize::from(cut));
        }
        if check(&file).is_ok() {
            prop_assert!(hermit_entry::elf::KernelObject::parse(&file).is_ok());
        }
    }
}
