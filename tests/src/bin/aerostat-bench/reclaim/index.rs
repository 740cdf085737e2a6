//! The trace of a program that builds an inverted index of real text, recorded on the host.
//!
//! The program is a model of the guest's: it really reads the text and really builds a hash table of terms and their lists of
//! documents, but lays them out in an address space of its own ([`Heap`]) and notes which pages each step touches. Afterwards it
//! answers queries, and last it goes through the whole index in the order of the terms, as one does to write or verify it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::trace::Trace;

const PAGE_BYTES: u64 = 4096;
/// Text that is indexed at most.
const TEXT_BYTES: u64 = 32 << 20;
/// Addresses of the text; the heap begins behind them.
const TEXT_END: u64 = 1 << 32;
/// Bytes of a hash table's bucket: the hash and the address of the entry.
const BUCKET_BYTES: u64 = 16;
/// Bytes of an entry besides its term: address, length and capacity of the list, length of the term.
const ENTRY_BYTES: u64 = 32;
/// Bytes of a posting: a document's number and the word's place in it.
const POSTING_BYTES: u64 = 8;
/// Queries of two terms each that the finished index answers.
const QUERIES: usize = 4000;

/// Indexes the HTML documentation of the Rust toolchain, or, where it isn't installed, the files of this repository.
pub(crate) fn record() -> Result<Trace> {
    let files = text_files()?;
    let mut program = Program::default();
    let mut read = 0;
    for (document, file) in (0..).zip(&files) {
        let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        read += text.len() as u64;
        program.index(document, &text);
        if read >= TEXT_BYTES {
            break;
        }
    }
    ensure!(read > 0, "found no text to index");
    Ok(program.finish())
}

/// Indexes words that are made up by rule, some far more frequent than others, as in texts.
#[cfg(test)]
pub(crate) fn of_made_up_text() -> Trace {
    let mut program = Program::default();
    for document in 0..300_u32 {
        let words = (0..1000_u32).map(|place| {
            let number = (document * 1000 + place).wrapping_mul(0x9e37_79b9).rotate_left(place % 32) % 100_000;
            format!("word{} ", 1_000_000 / (number + 10))
        });
        program.index(document, words.collect::<String>().as_bytes());
    }
    program.finish()
}

fn text_files() -> Result<Vec<PathBuf>> {
    let rustc = Command::new("rustc").args(["--print", "sysroot"]).output().context("asking rustc for its root")?;
    let documentation = Path::new(String::from_utf8_lossy(&rustc.stdout).trim()).join("share/doc");
    let mut files = Vec::new();
    if documentation.is_dir() {
        collect(&documentation, &["html"], &mut files)?;
    }
    if files.is_empty() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        collect(&repository, &["rs", "md", "toml", "s", "lock"], &mut files)?;
    }
    files.sort();
    Ok(files)
}

/// The files below `folder` with one of the `extensions`, build output and hidden folders left out.
fn collect(folder: &Path, extensions: &[&str], files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, extensions, files)?;
            }
        } else if path.extension().is_some_and(|known| extensions.iter().any(|extension| known == *extension)) {
            files.push(path);
        }
    }
    Ok(())
}

/// An address space that notes what is touched in it.
#[derive(Debug, Default)]
struct Heap {
    touches: Vec<u32>,
    /// Where the next block comes from if none of its size is free.
    end: u64,
    /// Free blocks by the logarithm of their size.
    free: BTreeMap<u32, Vec<u64>>,
}

impl Heap {
    fn allocate(&mut self, bytes: u64) -> u64 {
        let size = bytes.next_power_of_two();
        if let Some(block) = self.free.entry(size.ilog2()).or_default().pop() {
            return block;
        }
        let at = self.end.next_multiple_of(size.min(PAGE_BYTES));
        self.end = at + size;
        TEXT_END + at
    }

    fn free(&mut self, at: u64, bytes: u64) {
        self.free.entry(bytes.next_power_of_two().ilog2()).or_default().push(at);
    }

    fn touch(&mut self, at: u64, bytes: u64) {
        for page in at / PAGE_BYTES..=(at + bytes.max(1) - 1) / PAGE_BYTES {
            let page = u32::try_from(page).expect("the address space ends below 2^44");
            if self.touches.last() != Some(&page) {
                self.touches.push(page);
            }
        }
    }
}

/// A term and where its list lies.
#[derive(Clone, Debug)]
struct Term {
    entry: u64,
    hash: u64,
    list: u64,
    length: u64,
    capacity: u64,
}

/// The program that builds the index.
#[derive(Debug, Default)]
struct Program {
    memory: Heap,
    text_end: u64,
    /// The hash table's place and its number of buckets, a power of two.
    table: u64,
    buckets: u64,
    places: HashMap<Vec<u8>, usize>,
    terms: Vec<Term>,
    /// A sample of the terms as they came: what users ask for.
    asked: Vec<usize>,
}

impl Program {
    fn index(&mut self, document: u32, text: &[u8]) {
        for word in words(text) {
            let term = text[word.clone()].to_ascii_lowercase();
            self.memory.touch(self.text_end + word.start as u64, word.len() as u64);
            self.add(term, document);
        }
        self.text_end = (self.text_end + text.len() as u64).next_multiple_of(PAGE_BYTES);
    }

    fn add(&mut self, word: Vec<u8>, document: u32) {
        if self.terms.len() as u64 * 8 >= self.buckets * 7 {
            self.grow_table();
        }
        let hash = hash(&word);
        self.memory.touch(self.bucket(hash), BUCKET_BYTES);
        let entry_bytes = ENTRY_BYTES + word.len() as u64;
        let place = match self.places.entry(word) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let entry = self.memory.allocate(entry_bytes);
                let list = self.memory.allocate(4 * POSTING_BYTES);
                self.terms.push(Term { entry, hash, list, length: 0, capacity: 4 });
                *new.insert(self.terms.len() - 1)
            }
        };
        if self.asked.len() < 2 * QUERIES && hash.wrapping_mul(u64::from(document) | 1) >> 54 == 0 {
            self.asked.push(place);
        }
        let term = &mut self.terms[place];
        self.memory.touch(term.entry, entry_bytes);
        append(&mut self.memory, term);
    }

    fn bucket(&self, hash: u64) -> u64 {
        self.table + hash % self.buckets * BUCKET_BYTES
    }

    fn grow_table(&mut self) {
        let (old, old_buckets) = (self.table, self.buckets);
        self.buckets = (old_buckets * 2).max(1024);
        self.table = self.memory.allocate(self.buckets * BUCKET_BYTES);
        for bucket in 0..old_buckets {
            self.memory.touch(old + bucket * BUCKET_BYTES, BUCKET_BYTES);
            // A bucket's content goes to one of two places.
            self.memory.touch(self.table + bucket * BUCKET_BYTES, BUCKET_BYTES);
            self.memory.touch(self.table + (bucket + old_buckets) * BUCKET_BYTES, BUCKET_BYTES);
        }
        if old_buckets > 0 {
            self.memory.free(old, old_buckets * BUCKET_BYTES);
        }
    }

    /// Answers, writes out and hands over what was recorded.
    fn finish(mut self) -> Trace {
        self.answer();
        self.write_out();
        Trace::new(self.memory.touches)
    }

    /// Each query reads the lists of two terms.
    fn answer(&mut self) {
        for place in self.asked.clone() {
            self.memory.touch(self.bucket(self.terms[place].hash), BUCKET_BYTES);
            self.read(place);
        }
    }

    fn write_out(&mut self) {
        let mut order: Vec<(Vec<u8>, usize)> = self.places.drain().collect();
        order.sort();
        for (_, place) in order {
            self.read(place);
        }
    }

    fn read(&mut self, place: usize) {
        let term = &self.terms[place];
        self.memory.touch(term.entry, ENTRY_BYTES);
        self.memory.touch(term.list, term.length * POSTING_BYTES);
    }
}

/// Adds a document to a term's list, which moves to a place twice as large when it is full.
fn append(memory: &mut Heap, term: &mut Term) {
    if term.length == term.capacity {
        let (old, bytes) = (term.list, term.capacity * POSTING_BYTES);
        term.capacity *= 2;
        term.list = memory.allocate(2 * bytes);
        memory.touch(old, bytes);
        memory.touch(term.list, bytes);
        memory.free(old, bytes);
    }
    memory.touch(term.list + term.length * POSTING_BYTES, POSTING_BYTES);
    term.length += 1;
}

/// Where the words of a text are: runs of letters and digits.
fn words(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].iter().position(u8::is_ascii_alphanumeric)?;
        let rest = &text[start..];
        let length = rest.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(rest.len());
        at = start + length;
        Some(start..at)
    })
}

/// FNV-1a (Fowler, Noll, Vo), its upper bits mixed down.
fn hash(word: &[u8]) -> u64 {
    let hash = word
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash ^ (hash >> 32)
}
