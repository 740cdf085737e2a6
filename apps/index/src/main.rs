//! A search engine's indexer: reads the text on its disk, builds an inverted index in memory,
//! queries it and logs a digest, so that another program can check it. The text is a plain POSIX
//! archive (ustar) on a mapped disk, and is not copied.
//!
//! `repeat=3 queries=4000`: the number of rounds, one by default, and of queries in each.
//! `docs/applications.md` defines index, queries and digest.
#![no_std]
#![no_main]

extern crate alloc;

mod failure;
mod plan;
mod progress;

use aerostat_guest::app::{self, Outcome};
use inverted_index::{Index, SortedIndex, queries};
use tar_no_std::TarArchiveRef;

use failure::Failure;
use plan::Plan;
use progress::Progress;

aerostat_guest::app!(main);

fn main() -> Outcome {
    match run() {
        Ok(0) => Outcome::Success,
        Ok(_) => Outcome::Failure,
        Err(failure) => {
            log::error!("{failure}");
            Outcome::Failure
        }
    }
}

/// Runs all rounds; returns the number of digests that differ from the first.
fn run() -> Result<u64, Failure> {
    let plan = Plan::parse(app::words())?;
    let archive = TarArchiveRef::new(app::map_disk()?)?;
    let mut progress = Progress::new(plan.rounds);
    let mut first = None;
    for _ in 0..plan.rounds {
        progress.begin_round();
        let index = build(&archive, &progress)?;
        progress.tell("reading the index");
        let digest = index.digest();
        progress.compare(digest, *first.get_or_insert(digest), index.bytes());
        let answers = queries(&index, plan.queries, |so_far| progress.tell_now_and_then("queries", so_far.queries));
        let metrics = index.index();
        log::info!(
            "{} terms, {} postings, {} files, {} queries with {} hits, digest {digest:016x}",
            metrics.terms(),
            metrics.postings(),
            metrics.files(),
            answers.queries,
            answers.hits
        );
        // Meanwhile any page of the index may have been evicted and restored.
        progress.tell("reading the index again");
        progress.compare(index.digest(), digest, index.bytes());
    }
    progress.tell("done");
    Ok(progress.errors())
}

fn build(archive: &TarArchiveRef<'static>, progress: &Progress) -> Result<SortedIndex, Failure> {
    let mut index = Index::default();
    for file in archive.entries() {
        let files = index.files();
        index.add_file(file.data()).map_err(|why| Failure::Index { why, files })?;
        progress.tell_now_and_then("files indexed", u64::from(files) + 1);
    }
    progress.tell("sorting the terms");
    let files = index.files();
    index.sort().map_err(|why| Failure::Index { why, files })
}
