//! Guests that build an index: the text on their disks, and the check of what they made of it. Both
//! are done by the program `aerostat-text` of the tests, which computes the index once more with
//! nothing in common with the guests' but its definition.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{cargo, expect_success, root, target_dir};
use crate::tools;

/// The application that builds an index.
const IMAGE: &str = "index";
/// Parts of the Rust toolchain's documentation, in the order of packing, and how much of them is
/// packed: what a guest indexes in about two seconds.
const DOCUMENTATION: [&str; 5] = ["std", "alloc", "book", "reference", "core"];
const DOCUMENTATION_MIB: u64 = 256;

/// Guests of a fleet that build an index.
pub(crate) struct Indexers {
    guests: Vec<Indexer>,
    /// What to pack, and up to how many MiB, if one of them reads the packed text.
    text: Option<(Vec<PathBuf>, Option<u64>)>,
    /// The program that packs and checks.
    program: PathBuf,
}

struct Indexer {
    name: String,
    disk: PathBuf,
}

impl Indexers {
    /// The guests of a fleet file that build an index of a disk, if there are any. What is wrong
    /// with the file is for `aerostat up` to say.
    ///
    /// # Errors
    /// When there is `text` that nobody reads, when there should be some and is none, or when the
    /// program can't be built.
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

    /// Packs the text where the guests look for it.
    pub(crate) fn pack_text(&self) -> Result<()> {
        let Some((paths, limit_mib)) = &self.text else { return Ok(()) };
        let mut pack = Command::new(&self.program);
        pack.arg("pack").arg("--into").arg(packed_text());
        if let Some(mib) = limit_mib {
            pack.args(["--limit-mib", &mib.to_string()]);
        }
        expect_success(pack.args(paths))
    }

    /// The guests' logs: in the user's folder, or else in one of the repository's build output.
    pub(crate) fn open_logs(&self, folder: Option<&Path>) -> Result<Logs<'_>> {
        let folder = folder.map_or_else(|| root().join("target/run-logs"), Path::to_path_buf);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let mut logs = Logs { indexers: self, folder, lengths: Vec::new() };
        for guest in &self.guests {
            logs.lengths.push(fs::metadata(logs.path(guest)).map_or(0, |metadata| metadata.len()));
        }
        Ok(logs)
    }
}

/// Logs of guests that are going to run.
pub(crate) struct Logs<'a> {
    indexers: &'a Indexers,
    folder: PathBuf,
    /// Bytes that earlier runs have left in each: logs are only ever appended to.
    lengths: Vec<u64>,
}

impl Logs<'_> {
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Compares every index that was logged with the host's own.
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

/// Guests of a fleet file whose image is the indexer's and that have a disk.
fn indexers(fleet: &Path) -> Vec<Indexer> {
    let directory = fleet.parent().unwrap_or(Path::new(""));
    let table = fs::read_to_string(fleet).ok().and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
    let guests = table.get("guest").and_then(toml::Value::as_array);
    let indexer = |guest: &toml::Value| {
        let value = |key: &str| guest.get(key).and_then(toml::Value::as_str);
        let is_indexer = Path::new(value("image")?).file_name()? == IMAGE;
        is_indexer.then_some(Indexer { name: value("name")?.to_owned(), disk: directory.join(value("disk")?) })
    };
    guests.into_iter().flatten().filter_map(indexer).collect()
}

/// Where text is packed: fleet files name it as a disk.
fn packed_text() -> PathBuf {
    root().join("target/text.tar")
}

/// Whether two paths name one file, which may not be there yet.
fn is_same_place(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| path.parent().and_then(|parent| parent.canonicalize().ok());
    one.file_name() == other.file_name() && folder(one).is_some() && folder(one) == folder(other)
}

/// The default text.
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
