//! HTML text for guests: the documentation of the Rust standard library, on which the application
//! `index` works.

use std::fs;
use std::io::Write;

use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode};
use aerostat_tests::text::pack;
use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::reclaim::index::text;

const PAGE_BYTES: usize = 4096;
/// Bytes of text, as many as the guest has in memory.
const TEXT_BYTES: usize = 64 << 20;
/// Pages that the host compresses: about those that the guest evicts, which are the first.
const HOST_PAGES: usize = 4096;

/// The text, in memory and on a disk for guests.
pub(super) struct Text {
    file: NamedTempFile,
    bytes: Vec<u8>,
}

impl Text {
    /// Packs the documentation or, if it is not installed, the files of this repository, again and
    /// again until there is enough text.
    pub(super) fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let archive = folder.path().join("text.tar");
        println!("compressed text: {}", pack(&text()?, Some(TEXT_BYTES as u64), &archive)?);
        let packed = fs::read(&archive).with_context(|| format!("reading {}", archive.display()))?;
        let bytes: Vec<u8> = packed.into_iter().cycle().take(TEXT_BYTES).collect();
        let mut file = NamedTempFile::new().context("making a disk of text")?;
        file.write_all(&bytes).context("writing a disk of text")?;
        Ok(Self { file, bytes })
    }

    pub(super) fn pages(&self) -> &[[u8; PAGE_BYTES]] {
        &self.bytes.as_chunks().0[..HOST_PAGES]
    }

    pub(super) fn disk(&self) -> DataDisk {
        DataDisk { path: self.file.path().to_owned(), mode: DiskMode::ReadOnly, faults: DiskFaults::default() }
    }
}
