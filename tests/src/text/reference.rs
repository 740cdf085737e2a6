//! A simple inverted index, written from the definition in `docs/applications.md`. It has nothing
//! in common with the application's index but that definition.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// The longest term, in bytes.
const LONGEST_TERM: usize = 255;
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The positions of a term, by file.
type Places = BTreeMap<u32, Vec<u32>>;

/// The index of an archive.
#[derive(Debug, Default)]
pub struct Reference {
    terms: BTreeMap<String, Places>,
    files: u32,
}

/// The numbers in the line that the application logs about an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Metrics {
    terms: usize,
    postings: usize,
    files: u32,
    queries: u64,
    hits: usize,
    digest: u64,
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { terms, postings, files, queries, hits, digest } = self;
        write!(
            f,
            "{terms} terms, {postings} postings, {files} files, {queries} queries with {hits} hits, \
             digest {digest:016x}"
        )
    }
}

/// Compares each index that a guest logged with the reference for the `archive` on the guest's
/// disk; returns the line that both agree on.
///
/// # Errors
/// When the archive can't be read, or the guest logged no index or a different one.
pub fn verify(archive: &Path, log: &str) -> Result<String> {
    let found: Vec<&str> = log.lines().filter_map(logged_index).collect();
    ensure!(!found.is_empty(), "the guest logged no index: it did not come to the end");
    let reference = Reference::of_archive(archive)?;
    for &line in &found {
        let Some(queries) = logged_queries(line) else { bail!("the guest logged `{line}`, which tells no queries") };
        let expected = reference.metrics(queries).to_string();
        ensure!(line == expected, "the guest logged `{line}`, the host finds `{expected}`");
    }
    Ok(found[0].to_owned())
}

/// Returns what follows `index: ` in a line about an index.
fn logged_index(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("index: ")?;
    rest.contains(", digest ").then_some(rest.trim_end())
}

fn logged_queries(line: &str) -> Option<u64> {
    let (before, _) = line.split_once(" queries with ")?;
    before.rsplit(' ').next()?.parse().ok()
}

impl Reference {
    /// Reads all regular files of an archive.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn of_archive(archive: &Path) -> Result<Self> {
        let reading = || format!("reading {}", archive.display());
        let file = File::open(archive).with_context(reading)?;
        let mut reference = Self::default();
        let mut text = Vec::new();
        for entry in tar::Archive::new(BufReader::new(file)).entries().with_context(reading)? {
            let mut entry = entry.with_context(reading)?;
            if entry.header().entry_type().is_file() {
                text.clear();
                entry.read_to_end(&mut text).with_context(reading)?;
                reference.add(&text);
            }
        }
        Ok(reference)
    }

    fn add(&mut self, text: &[u8]) {
        let runs = text.split(|byte| !byte.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
        for (position, run) in (0..).zip(runs) {
            let term = run[..run.len().min(LONGEST_TERM)].to_ascii_lowercase();
            let term = String::from_utf8(term).expect("letters and digits of ASCII are UTF-8");
            self.terms.entry(term).or_default().entry(self.files).or_default().push(position);
        }
        self.files += 1;
    }

    fn metrics(&self, queries: u64) -> Metrics {
        let queries = if self.terms.is_empty() { 0 } else { queries };
        Metrics {
            terms: self.terms.len(),
            postings: self.terms.values().map(postings).sum(),
            files: self.files,
            queries,
            hits: self.hits(queries),
            digest: self.digest(),
        }
    }

    fn digest(&self) -> u64 {
        let mut digest = FNV_BASIS;
        let mut add = |bytes: &[u8]| {
            bytes.iter().for_each(|&byte| digest = (digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        };
        for (term, places) in &self.terms {
            add(term.as_bytes());
            add(&[0]);
            add(&u32::try_from(postings(places)).expect("postings are counted with 32 bits").to_le_bytes());
            for (file, positions) in places {
                for position in positions {
                    add(&file.to_le_bytes());
                    add(&position.to_le_bytes());
                }
            }
        }
        digest
    }

    fn hits(&self, queries: u64) -> usize {
        let mut ranked: Vec<(usize, &str)> =
            self.terms.iter().map(|(term, places)| (postings(places), term.as_str())).collect();
        // Stable: terms of the same frequency stay in the order of their texts.
        ranked.sort_by_key(|&(count, _)| std::cmp::Reverse(count));
        let mut random = SplitMix64(0);
        let mut draw = || {
            let count = ranked.len() as u64;
            let choices = u64::from(count.ilog2()) + 1;
            let span = count.min(2 << (random.next() % choices));
            let rank = usize::try_from(random.next() % span).expect("ranks are indices");
            &self.terms[ranked[rank].1]
        };
        let mut hits = 0;
        for _ in 0..queries {
            let (one, other) = (draw(), draw());
            hits += one.keys().filter(|file| other.contains_key(file)).count();
        }
        hits
    }
}

fn postings(places: &Places) -> usize {
    places.values().map(Vec::len).sum()
}

/// Steele, Lea, Flood, OOPSLA 2014.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::verify;
    use crate::text::pack;
    use inverted_index::{Index, queries};
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Returns the line that the application logs about its index of the files at and below `path`.
    fn logged(path: &Path) -> String {
        let mut files = vec![path.to_owned()];
        let mut index = Index::default();
        while let Some(path) = files.pop() {
            if path.is_dir() {
                let mut inside: Vec<PathBuf> =
                    fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
                inside.sort();
                files.extend(inside.into_iter().rev());
            } else {
                index.add_file(&fs::read(path).unwrap()).unwrap();
            }
        }
        let index = index.sort().unwrap();
        let answers = queries(&index, 500, |_| ());
        let (metrics, digest) = (index.index(), index.digest());
        let (terms, postings, files) = (metrics.terms(), metrics.postings(), metrics.files());
        format!(
            "[    0.529275] INFO  index: {terms} terms, {postings} postings, {files} files, \
             {} queries with {} hits, digest {digest:016x}\n",
            answers.queries, answers.hits
        )
    }

    #[test]
    fn the_applications_index_agrees_and_a_wrong_one_is_refused() {
        let text = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("text.tar");
        pack(&[text.to_owned()], None, &archive).unwrap();
        let log = logged(text);
        let agreed = verify(&archive, &log).unwrap();
        assert!(log.contains(&agreed) && agreed.contains(" 500 queries with "), "{agreed}");
        assert!(verify(&archive, &log.repeat(2)).is_ok(), "of two builds");

        let (before, digest) = log.trim_end().split_at(log.trim_end().len() - 1);
        let wrong = format!("{before}{}\n", if digest == "0" { "1" } else { "0" });
        let error = verify(&archive, &format!("{log}{wrong}")).unwrap_err().to_string();
        assert!(error.contains("the guest logged") && error.contains("the host finds"), "{error}");
        let error = verify(&archive, "nothing here\n").unwrap_err().to_string();
        assert!(error.contains("logged no index"), "{error}");
        assert!(verify(&folder.path().join("nowhere.tar"), &log).is_err());
    }
}
