//! Gates that read the repository's own text. The rules are pure: text in, findings out; only
//! [`read_folder`] touches the file system.

pub(crate) mod layers;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cargo::root;

/// A file of the repository.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// The path from the repository's root, with `/` between its parts.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A place that breaks a rule. Lines count from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Reads every file below `folder`, a path from the repository's root, whose name ends in
/// `.EXTENSION`, sorted by path.
///
/// # Errors
/// When a folder or a file can't be read.
pub(crate) fn read_folder(folder: &str, extension: &str) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).with_context(|| format!("reading the folder {folder}"))? {
            let entry = entry.with_context(|| format!("reading the folder {folder}"))?;
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().with_context(|| format!("asking what {path} is"))?.is_dir() {
                folders.push(path);
            } else if Path::new(&path).extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(root().join(&path)).with_context(|| format!("reading {path}"))?;
                files.push(SourceFile { path, text });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}
