//! Packs files into a plain POSIX archive (ustar). The same files always make the same bytes.

use std::fmt;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tar::{Builder, EntryType, Header};
use tempfile::NamedTempFile;

/// The smallest file, in bytes, that the format can't hold: its header has eleven octal digits.
const TOO_LARGE: u64 = 1 << 33;

/// Counts of the files that were packed and skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files in the archive.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files and folders that could not be read.
    pub unreadable: u64,
    /// Entries that are neither regular files nor folders: links, sockets, devices.
    pub not_regular: u64,
    /// Files that are too large for the format, or whose names are too long for it.
    pub unfit: u64,
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, {} MiB", self.files, self.bytes >> 20)?;
        let skipped = [
            (self.unreadable, "unreadable"),
            (self.not_regular, "not regular files"),
            (self.unfit, "too large or with too long a name for the format"),
        ];
        for (count, what) in skipped.into_iter().filter(|&(count, _)| count > 0) {
            write!(f, "; skipped {count} {what}")?;
        }
        Ok(())
    }
}

/// Packs the files at and below `paths` into `archive`, in the order of `paths` and, within each,
/// in the order of names. It stops before a file that would bring the text to more than `limit`
/// bytes. Names in the archive begin with the last part of the given path. Files that can't be
/// packed are skipped and counted.
///
/// # Errors
/// When a path does not exist, when there is nothing to pack, or when the archive can't be written.
/// An older archive then stays as it was.
pub fn pack(paths: &[PathBuf], limit: Option<u64>, archive: &Path) -> Result<Packed> {
    // The new archive replaces the old one by a rename: a guest that still reads the old one keeps
    // its file.
    let folder = archive.parent().filter(|parent| *parent != Path::new("")).unwrap_or_else(|| Path::new("."));
    let creating = || format!("creating a file in {}", folder.display());
    let file = NamedTempFile::new_in(folder).with_context(creating)?;
    let mut packer = Packer {
        builder: Builder::new(BufWriter::new(file)),
        packed: Packed::default(),
        left: limit.unwrap_or(u64::MAX),
        is_full: false,
    };
    for path in paths {
        let found = path.canonicalize().with_context(|| format!("{} can't be packed", path.display()))?;
        let name = found.file_name().map_or_else(|| PathBuf::from("text"), PathBuf::from);
        packer.add(&found, &name)?;
    }
    let packed = packer.packed;
    ensure!(packed.files > 0, "there is no file to pack in {}: {packed}", listed(paths));
    let writing = || format!("writing {}", archive.display());
    let file = packer.builder.into_inner().and_then(|writer| Ok(writer.into_inner()?)).with_context(writing)?;
    file.persist(archive).with_context(writing)?;
    Ok(packed)
}

struct Packer<W: Write> {
    builder: Builder<W>,
    packed: Packed,
    /// Bytes of text that may still be added.
    left: u64,
    is_full: bool,
}

impl<W: Write> Packer<W> {
    /// Adds a file, or a folder with all files in it.
    fn add(&mut self, path: &Path, name: &Path) -> Result<()> {
        if self.is_full {
            return Ok(());
        }
        let Ok(metadata) = path.symlink_metadata() else {
            self.packed.unreadable += 1;
            return Ok(());
        };
        if metadata.is_dir() {
            return self.add_folder(path, name);
        }
        if !metadata.is_file() {
            self.packed.not_regular += 1;
            return Ok(());
        }
        self.add_file(path, name, metadata.len())
    }

    fn add_folder(&mut self, path: &Path, name: &Path) -> Result<()> {
        let Ok(entries) = fs::read_dir(path) else {
            self.packed.unreadable += 1;
            return Ok(());
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names.iter().try_for_each(|entry| self.add(&path.join(entry), &name.join(entry)))
    }

    fn add_file(&mut self, path: &Path, name: &Path, length: u64) -> Result<()> {
        let mut header = Header::new_ustar();
        if length >= TOO_LARGE || header.set_path(name).is_err() {
            self.packed.unfit += 1;
            return Ok(());
        }
        if length > self.left {
            self.is_full = true;
            return Ok(());
        }
        let Ok(text) = fs::read(path) else {
            self.packed.unreadable += 1;
            return Ok(());
        };
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(text.len() as u64);
        header.set_cksum();
        self.builder.append(&header, &text[..]).context("writing the archive")?;
        self.packed.files += 1;
        self.packed.bytes += text.len() as u64;
        self.left = self.left.saturating_sub(text.len() as u64);
        Ok(())
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Packed, pack};
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn contents(archive: &Path) -> Vec<(String, String)> {
        let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
        let read = |mut entry: tar::Entry<'_, fs::File>| {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        };
        archive.entries().unwrap().map(|entry| read(entry.unwrap())).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|&(name, text)| (name.into(), text.into())).collect()
    }

    #[test]
    fn a_folder_is_packed_in_the_order_of_names_and_skipped_files_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("b")).unwrap();
        fs::write(root.join("c"), "third").unwrap();
        fs::write(root.join("b/x"), "second").unwrap();
        fs::write(root.join("a"), "first").unwrap();
        fs::write(root.join("n".repeat(120)), "a name that has no place").unwrap();
        symlink("a", root.join("link")).unwrap();
        let archive = folder.path().join("text.tar");
        let packed = pack(&[root.clone(), root.join("c")], None, &archive).unwrap();
        assert_eq!(packed, Packed { files: 4, bytes: 21, unreadable: 0, not_regular: 1, unfit: 1 });
        let expected = [("root/a", "first"), ("root/b/x", "second"), ("root/c", "third"), ("c", "third")];
        assert_eq!(contents(&archive), pairs(&expected));
        assert_eq!(fs::metadata(&archive).unwrap().len() % 512, 0, "whole sectors");

        let once = fs::read(&archive).unwrap();
        pack(&[root.clone(), root.join("c")], None, &archive).unwrap();
        assert!(fs::read(&archive).unwrap() == once, "the same files make the same archive");

        let packed = pack(&[root], Some(12), &archive).unwrap();
        assert_eq!((packed.files, packed.bytes), (2, 11), "the third file is above the limit");
    }

    #[test]
    fn an_error_leaves_the_old_archive_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("text.tar");
        fs::write(&archive, "old").unwrap();
        let missing = pack(&[folder.path().join("nowhere")], None, &archive).unwrap_err();
        assert!(missing.to_string().contains("nowhere can't be packed"), "{missing}");
        let empty = folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        let nothing = pack(&[empty], None, &archive).unwrap_err();
        assert!(nothing.to_string().contains("there is no file to pack in"), "{nothing}");
        assert_eq!(fs::read_to_string(&archive).unwrap(), "old");
    }
}
