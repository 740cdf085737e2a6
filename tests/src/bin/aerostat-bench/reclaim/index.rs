//! The trace of a program that builds an inverted index of real text. It is recorded on the host
//! from the library of the application `index`, which reports every access to its memory. This
//! module calls the library in the same order as the application.
//!
//! Offsets are the library's. The recorder places each of its areas in an address space. A table
//! that has grown is not used again at its old place.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use aerostat_tests::text::pack;
use anyhow::{Context, Result, ensure};
use inverted_index::{Area, Index, Watch, queries};

use super::trace::Trace;

const PAGE_BYTES: u64 = 4096;
/// Addresses between the beginnings of two areas.
const AREA_BYTES: u64 = 1 << 33;
/// The most text that is indexed, in bytes.
const TEXT_BYTES: u64 = 16 << 20;
/// How often the index is built. The second time reads the text again and uses freed memory again.
const ROUNDS: usize = 2;
/// Bytes of a header in the archive, which is read before each file.
const HEADER_BYTES: u64 = 512;
/// Queries to the finished index.
const QUERIES: u64 = 4000;

/// Records a trace of indexing the documentation of the Rust standard library or, if it is not
/// installed, the files of this repository.
pub(crate) fn record() -> Result<Trace> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let path = folder.path().join("text.tar");
    let packed = pack(&text()?, Some(TEXT_BYTES), &path)?;
    println!("traces index_*: {packed}");
    let archive = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut files = Vec::new();
    for file in tar::Archive::new(Cursor::new(&archive)).entries()? {
        let file = file?;
        let start = file.raw_file_position();
        let bytes = usize::try_from(start)?..usize::try_from(start + file.size())?;
        files.push(File { start, text: &archive[bytes] });
    }
    trace_of(&files)
}

/// Records a trace of indexing words that are made up by a rule. Some are far more frequent than
/// others, as in texts.
#[cfg(test)]
pub(crate) fn record_made_up_text() -> Trace {
    let text = |document: u32| {
        let words = (0..1000_u32).map(move |place| {
            let number = (document * 1000 + place).wrapping_mul(0x9e37_79b9).rotate_left(place % 32) % 100_000;
            format!("word{} ", 1_000_000 / (number + 10))
        });
        words.collect::<String>()
    };
    let texts: Vec<String> = (0..150).map(text).collect();
    let mut end = 0;
    let files: Vec<File<'_>> = texts
        .iter()
        .map(|text| {
            let start = end + HEADER_BYTES;
            end = (start + text.len() as u64).next_multiple_of(HEADER_BYTES);
            File { start, text: text.as_bytes() }
        })
        .collect();
    trace_of(&files).expect("there is memory for a small index")
}

/// Returns the files and folders to index.
pub(crate) fn text() -> Result<Vec<PathBuf>> {
    let rustc = Command::new("rustc").args(["--print", "sysroot"]).output().context("asking rustc for its root")?;
    let documentation = Path::new(String::from_utf8_lossy(&rustc.stdout).trim()).join("share/doc/rust/html/std");
    if documentation.is_dir() {
        return Ok(vec![documentation]);
    }
    eprintln!(
        "aerostat-bench: the Rust documentation is not installed (`rustup component add rust-docs`): \
         the traces index_* are of this repository's files; do not compare them with others"
    );
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let parts = ["abi", "apps", "docs", "fleets", "guest-kernel", "monitor", "tests", "xtask", "Cargo.lock"];
    Ok(parts.map(|part| repository.join(part)).to_vec())
}

/// A file in the archive.
struct File<'a> {
    /// Where its text begins in the archive.
    start: u64,
    text: &'a [u8],
}

/// Builds the index, digests it, queries it and digests it again, in each round.
fn trace_of(files: &[File<'_>]) -> Result<Trace> {
    let recorder = Recorder::default();
    for _ in 0..ROUNDS {
        let mut index = Index::watched_by(&recorder);
        for file in files {
            recorder.touch(file.start - HEADER_BYTES, HEADER_BYTES);
            recorder.file_start.set(file.start);
            index.add_file(file.text)?;
        }
        let index = index.sort()?;
        let digest = index.digest();
        queries(&index, QUERIES, |_| ());
        ensure!(index.digest() == digest, "the queries changed the index");
    }
    Ok(Trace::new(recorder.touches.into_inner()))
}

/// Records the pages that are touched.
#[derive(Debug, Default)]
struct Recorder {
    touches: RefCell<Vec<u32>>,
    /// The beginning of the file that is being read.
    file_start: Cell<u64>,
}

impl Watch for &Recorder {
    fn touched(&self, area: Area, offset: usize, bytes: usize) {
        let start = match area {
            Area::Text => self.file_start.get(),
            Area::Records => AREA_BYTES,
            Area::Pool => 2 * AREA_BYTES,
            Area::Order => 3 * AREA_BYTES,
            Area::Table(growths) => (4 + u64::from(growths)) * AREA_BYTES,
        };
        self.touch(start + offset as u64, bytes as u64);
    }
}

impl Recorder {
    fn touch(&self, at: u64, bytes: u64) {
        let mut touches = self.touches.borrow_mut();
        for page in at / PAGE_BYTES..=(at + bytes.max(1) - 1) / PAGE_BYTES {
            let page = u32::try_from(page).expect("areas end below 2^44");
            if touches.last() != Some(&page) {
                touches.push(page);
            }
        }
    }
}
