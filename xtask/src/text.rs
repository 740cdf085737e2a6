//! Guests that build an index: packs the text for their disks before a run, and checks their
//! indexes afterwards. The program `aerostat-text` of the tests does both. Its index has nothing in
//! common with the guests' but the definition.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{cargo, expect_success, root, target_dir};
use crate::{fleet_file, tools};

/// The application that builds an index.
const IMAGE: &str = "index";
/// Parts of the Rust toolchain's documentation, in the order of packing.
const DOCUMENTATION: [&str; 5] = ["std", "alloc", "book", "reference", "core"];
/// How much of the documentation is packed. A guest indexes this in about two seconds.
const DOCUMENTATION_MIB: u64 = 256;

/// The guests of a fleet that build an index.
pub(crate) struct Indexers {
    guests: Vec<Indexer>,
    /// The files and folders to pack, and the limit in MiB; `None` if no guest reads the packed
    /// text.
    text: Option<(Vec<PathBuf>, Option<u64>)>,
    /// The program that packs and checks.
    program: PathBuf,
}

struct Indexer {
    name: String,
    disk: PathBuf,
}

impl Indexers {
    /// Finds the guests of a fleet file that build an index of a disk; `None` if there are none. An
    /// invalid file has none: `aerostat up` will report its errors.
    ///
    /// # Errors
    /// When no guest reads the `text` that the user names, when no text is found for guests that
    /// read it, or when the program can't be built.
    pub(crate) fn of_fleet(fleet: &Path, text: Option<&Path>) -> Result<Option<Self>> {
        let guests = indexers(fleet);
        let is_packed = guests.iter().any(|guest| is_same_place(&guest.disk, &packed_text()));
        ensure!(
            is_packed || text.is_none(),
            "no guest of {} runs `{IMAGE}` with the disk {}, where --text goes",
            fleet.display(),
            packed_text().display()
        );
        if guests.is_empty() {
            return Ok(None);
        }
        let text = match text {
            _ if !is_packed => None,
            Some(path) => Some((vec![path.to_path_buf()], None)),
            None => Some((documentation()?, Some(DOCUMENTATION_MIB))),
        };
        expect_success(&mut cargo(["build", "--release", "-p", "aerostat-tests", "--bin", "aerostat-text"]))?;
        Ok(Some(Self { guests, text, program: target_dir()?.join("release/aerostat-text") }))
    }

    /// Packs the text and opens the folder of the guests' logs: the user's, or else one below
    /// `target/`.
    pub(crate) fn prepare(&self, folder: Option<&Path>) -> Result<Logs<'_>> {
        self.pack_text()?;
        self.open_logs(folder)
    }

    /// Packs the text into the file that fleet files name as a disk.
    fn pack_text(&self) -> Result<()> {
        let Some((paths, limit_mib)) = &self.text else { return Ok(()) };
        let mut pack = Command::new(&self.program);
        pack.arg("pack").arg("--into").arg(packed_text());
        if let Some(mib) = limit_mib {
            pack.args(["--limit-mib", &mib.to_string()]);
        }
        expect_success(pack.args(paths))
    }

    fn open_logs(&self, folder: Option<&Path>) -> Result<Logs<'_>> {
        let folder = folder.map_or_else(|| root().join("target/run-logs"), Path::to_path_buf);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let mut logs = Logs { indexers: self, folder, lengths: Vec::new() };
        for guest in &self.guests {
            logs.lengths.push(fs::metadata(logs.path(guest)).map_or(0, |metadata| metadata.len()));
        }
        Ok(logs)
    }
}

/// The logs of guests that are about to run.
pub(crate) struct Logs<'a> {
    indexers: &'a Indexers,
    folder: PathBuf,
    /// The length of each log before the run, in bytes.
    lengths: Vec<u64>,
}

impl Logs<'_> {
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Compares every index that the guests have logged with one that the host builds.
    pub(crate) fn verify(&self) -> Result<()> {
        for (guest, length) in self.indexers.guests.iter().zip(&self.lengths) {
            println!("checking the index of {:?} against one that the host builds", guest.name);
            let mut verify = Command::new(&self.indexers.program);
            verify.arg("verify").args(["--from", &length.to_string()]).arg(&guest.disk).arg(self.path(guest));
            expect_success(&mut verify)?;
        }
        Ok(())
    }

    fn path(&self, guest: &Indexer) -> PathBuf {
        self.folder.join(format!("{}.log", guest.name))
    }
}

/// Returns the guests of a fleet file whose image is the indexer's and that have a disk.
fn indexers(fleet: &Path) -> Vec<Indexer> {
    let directory = fleet_file::directory(fleet);
    let indexer = |guest: &toml::Value| {
        let value = |key: &str| guest.get(key).and_then(toml::Value::as_str);
        let is_indexer = Path::new(value("image")?).file_name()? == IMAGE;
        is_indexer.then_some(Indexer { name: value("name")?.to_owned(), disk: directory.join(value("disk")?) })
    };
    fleet_file::guests(fleet).iter().filter_map(indexer).collect()
}

/// Returns the file that text is packed into, which fleet files name as a disk.
fn packed_text() -> PathBuf {
    root().join("target/text.tar")
}

/// Returns whether two paths name one file, which need not exist yet.
fn is_same_place(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| path.parent().and_then(|parent| parent.canonicalize().ok());
    one.file_name() == other.file_name() && folder(one).is_some() && folder(one) == folder(other)
}

/// Returns the default text.
fn documentation() -> Result<Vec<PathBuf>> {
    let folder = tools::sysroot()?.join("share/doc/rust/html");
    let parts: Vec<PathBuf> = DOCUMENTATION.iter().map(|part| folder.join(part)).filter(|part| part.is_dir()).collect();
    if parts.is_empty() {
        bail!(
            "the Rust toolchain's documentation, which guests index, is not installed: \
             `rustup component add rust-docs`, or name a text of your own by --text"
        );
    }
    Ok(parts)
}
