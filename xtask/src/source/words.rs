//! The words gate: words that only this project used, and words that hide who acts, do not return.
//!
//! `docs/glossary.md` says which words are used. The words that are gone are listed only here. They
//! are found in any case, as plurals, in identifiers and in names of files, too: `HungryGuests` has
//! the words "hungry" and "guests".

use super::{Finding, SourceFile};

/// Words and phrases that are gone, each with what to write instead.
const GONE: &[(&str, &str)] = &[
    ("anybody", "the party that acts: a thread, the application, the monitor"),
    ("book", "metadata, accounts"),
    ("by and by", "gradually"),
    ("carver", "bump allocator"),
    ("conversation", "session"),
    ("dear", "expensive"),
    ("errand", "task, request"),
    ("foreign", "untrusted, another's"),
    ("greet", "negotiate"),
    ("greeted", "negotiated"),
    ("greeting", "negotiation"),
    ("happening", "event"),
    ("harvest", "host reclaim"),
    ("harvested", "reclaimed by the host"),
    ("himself", "the party's name"),
    ("hindered", "stalled"),
    ("hindrance", "stall reason"),
    ("hungry", "below target, waiting for memory"),
    ("ladder", "allocation slow path"),
    ("ledger", "page list"),
    ("look out", "sample, poll"),
    ("lookout", "sample, poll"),
    ("magazine", "per-CPU frame cache"),
    ("mean harm", "are malicious"),
    ("means harm", "is malicious"),
    ("nobody", "the party that does not act: no thread, no guest"),
    ("nub", "ring-0 stub"),
    ("of late", "recently"),
    ("promise", "commit"),
    ("promised", "committed"),
    ("somebody", "the party that acts: a thread, the application, the monitor"),
    ("tide", "phases"),
    ("who means", "a malicious party"),
    ("whoever", "the party that acts: a thread, the application, the monitor"),
    ("whomever", "the party's name"),
];

/// Files that may name what is gone.
const FILES: &[&str] = &[
    // What others call it.
    "docs/glossary.md",
    // What it was called before.
    "CHANGELOG.md",
    "xtask/src/source/words.rs",
];

/// Phrases of others, each in the one file that may quote it.
const QUOTES: &[(&str, &str)] = &[
    // The title of a paper.
    ("docs/decisions/0032-cache-frames-per-cpu.md", "Magazines and Vmem"),
    ("guest-kernel/src/mm/frame_cache.rs", "Magazines and Vmem"),
    // QEMU's name for the first message of its monitor.
    ("tests/src/qmp.rs", "greeting"),
    // A key of the report's first version.
    ("monitor/src/report.rs", "harvested_mib"),
    // A part of Rust's documentation.
    ("xtask/src/text.rs", "\"book\""),
];

/// Returns the places where a word that is gone stands in a file or in its name.
pub(super) fn findings(files: &[SourceFile]) -> Vec<Finding> {
    let checked = files.iter().filter(|file| !FILES.contains(&file.path.as_str()));
    checked.flat_map(findings_of_file).collect()
}

fn findings_of_file(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (gone, instead) in gone_words(&file.path) {
        findings.push(file.finding(1, format!("the file's name has \"{gone}\": write {instead}")));
    }
    for (number, line) in file.lines() {
        for (gone, instead) in gone_words(&without_quotes(&file.path, line)) {
            findings.push(file.finding(number, format!("\"{gone}\" is gone: write {instead}")));
        }
    }
    findings
}

/// Returns the entries of [`GONE`] that stand in `text`.
fn gone_words(text: &str) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let words = words(text);
    GONE.iter().filter(move |(gone, _)| {
        let phrase: Vec<&str> = gone.split(' ').collect();
        words.windows(phrase.len()).any(|found| found.iter().zip(&phrase).all(|(found, word)| is(found, word)))
    })
}

/// Returns whether `found` is `word` or its plural.
fn is(found: &str, word: &str) -> bool {
    found.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest == "s")
}

/// Returns the words of a text in lower case. They end where letters end and where an identifier in
/// camel case has its next capital letter.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for letter in text.chars() {
        if !letter.is_alphabetic() || (was_lower && letter.is_uppercase()) {
            words.push(String::new());
        }
        was_lower = letter.is_lowercase();
        if letter.is_alphabetic() {
            words.last_mut().expect("the list of words is never empty").extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn without_quotes(path: &str, line: &str) -> String {
    let quotes = QUOTES.iter().filter(|(file, _)| *file == path);
    quotes.fold(line.to_owned(), |line, (_, quote)| line.replace(quote, ""))
}

#[cfg(test)]
mod tests {
    use super::super::SourceFile;
    use super::{FILES, GONE, QUOTES, findings};

    fn findings_in(path: &str, text: &str) -> Vec<(usize, String)> {
        let file = SourceFile { path: path.to_owned(), text: text.to_owned() };
        findings(&[file]).into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    #[test]
    fn a_word_that_is_gone_is_found_with_its_line() {
        let found = findings_in("a.rs", "fn main() {\n    // The frame is kept in a Magazine.\n}\n");
        assert_eq!(found, [(2, "\"magazine\" is gone: write per-CPU frame cache".to_owned())]);
    }

    #[test]
    fn words_are_found_in_identifiers_phrases_plurals_and_file_names() {
        for text in ["struct HungryGuest;", "let is_hungry = 1;", "HUNGRY", "\"hungry\"", "a, By and By, b", "tides"] {
            assert_eq!(findings_in("a.rs", text).len(), 1, "{text}");
        }
        assert_eq!(findings_in("monitor/src/ledger.rs", "").len(), 1);
    }

    #[test]
    fn parts_of_other_words_are_not_found() {
        assert!(findings_in("a.md", "The nubile bookkeeper latest rounds up by and large; tidy.").is_empty());
    }

    #[test]
    fn files_and_quotes_that_are_allowed_are_not_found() {
        assert!(findings_in("CHANGELOG.md", "The ledger is a page list.").is_empty());
        let quoted = "tests/src/qmp.rs";
        assert!(findings_in(quoted, "// QEMU sends a greeting first.").is_empty());
        assert_eq!(findings_in(quoted, "// Nobody reads the greeting.").len(), 1);
        assert_eq!(findings_in("a.rs", "// QEMU sends a greeting first.").len(), 1);
    }

    /// An exception that is not needed any more would let the word return.
    #[test]
    fn every_exception_is_still_needed() {
        let files = SourceFile::read_all().expect("the repository can be read");
        let text = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
        for path in FILES {
            assert!(text(path).is_some(), "{path} is not there");
        }
        for (path, quote) in QUOTES {
            assert!(text(path).is_some_and(|text| text.contains(quote)), "{path} has no {quote:?}");
        }
    }

    #[test]
    fn words_are_listed_in_alphabetical_order_and_lower_case() {
        assert!(GONE.is_sorted_by(|(one, _), (next, _)| one < next));
        assert!(GONE.iter().all(|(word, _)| *word == word.to_lowercase()));
    }
}
