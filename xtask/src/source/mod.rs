//! Gates on the text of the repository, for what no compiler or linter checks.
//!
//! A gate is a pure function from the files to its findings, so its tests need no files. `check`
//! runs all of [`GATES`].

mod layers;
mod widths;
mod words;

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::{root, shown};

/// All gates, in the order in which they run.
pub(crate) const GATES: [Gate; 3] = [
    Gate { name: "layers", find: layers::findings },
    Gate { name: "words", find: words::findings },
    Gate { name: "widths", find: widths::findings },
];

/// One rule that the text of the repository must keep.
#[derive(Clone, Copy)]
pub(crate) struct Gate {
    pub(crate) name: &'static str,
    find: fn(&[SourceFile]) -> Vec<Finding>,
}

/// A file of the repository.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// The path from the repository's root, with `/` between its parts.
    path: String,
    text: String,
}

/// A place that breaks a rule. Lines count from 1.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Gate {
    /// Prints every place that breaks the rule.
    ///
    /// # Errors
    /// When there is such a place.
    pub(crate) fn check(self, files: &[SourceFile]) -> Result<()> {
        let findings = (self.find)(files);
        for finding in &findings {
            println!("{finding}");
        }
        ensure!(findings.is_empty(), "{} places, listed above", findings.len());
        Ok(())
    }
}

impl SourceFile {
    /// Reads the files with code or prose that are in git or are about to be: all that no
    /// `.gitignore` names.
    ///
    /// # Errors
    /// When git can't list the files, or a file can't be read.
    pub(crate) fn read_all() -> Result<Vec<Self>> {
        let mut list = Command::new("git");
        list.current_dir(root()).args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]);
        let listed = list.output().with_context(|| format!("starting {}", shown(&list)))?;
        ensure!(listed.status.success(), "`{}` failed: {}", shown(&list), String::from_utf8_lossy(&listed.stderr));
        let paths = String::from_utf8(listed.stdout).context("paths of the repository are UTF-8")?;
        // A file that was deleted may still be in git.
        let paths = paths.split_terminator('\0').filter(|path| is_text(path) && root().join(path).exists());
        paths.map(Self::read).collect()
    }

    fn read(path: &str) -> Result<Self> {
        let text = fs::read_to_string(root().join(path)).with_context(|| format!("reading {path}"))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Returns the lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    fn finding(&self, line: usize, what: String) -> Finding {
        Finding { path: self.path.clone(), line, what }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Returns whether a file has code or prose that the gates read.
fn is_text(path: &str) -> bool {
    [".rs", ".s", ".toml", ".md"].iter().any(|extension| path.ends_with(extension))
}
