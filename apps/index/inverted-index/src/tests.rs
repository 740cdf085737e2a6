//! Compares the index with a simple model and with known results.

extern crate std;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

use crate::{Answers, Area, InFile, Index, LONGEST_TERM, Posting, SortedIndex, Watch, queries, tokens};

/// Terms with their occurrences.
type Model = BTreeMap<Vec<u8>, Occurrences>;

/// File and position of each occurrence.
type Occurrences = Vec<(u32, u32)>;

fn model(files: &[Vec<u8>]) -> Model {
    let mut model = Model::new();
    for (file, text) in (0..).zip(files) {
        let runs = text.split(|byte| !byte.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
        for (position, run) in (0..).zip(runs) {
            let term = run[..run.len().min(LONGEST_TERM)].to_ascii_lowercase();
            model.entry(term).or_default().push((file, position));
        }
    }
    model
}

fn build(files: &[Vec<u8>]) -> SortedIndex {
    let mut index = Index::default();
    files.iter().for_each(|text| index.add_file(text).unwrap());
    index.sort().unwrap()
}

fn contents(index: &SortedIndex) -> Model {
    let pairs = |Posting { file, position }| (file, position);
    index.terms().map(|(term, postings)| (term.to_vec(), postings.map(pairs).collect())).collect()
}

/// Generates files of repeated words in several spellings, of arbitrary bytes and of long runs.
fn any_files() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let words = vec(prop_oneof!["[a-d]{1,2}", "[A-Da-d0-3]{1,4}[ .<]", "(xy ){1,99}", "[a-z]{250,260} "], 0..20);
    let text = words.prop_map(|words: Vec<String>| words.join(" ").into_bytes());
    vec(prop_oneof![text, vec(any::<u8>(), 0..200)], 0..8)
}

proptest! {
    #[test]
    fn terms_postings_and_files_equal_those_of_the_model(files in any_files()) {
        let (model, index) = (model(&files), build(&files));
        prop_assert_eq!(contents(&index), model.clone());
        let terms: Vec<&[u8]> = index.terms().map(|(term, _)| term).collect();
        prop_assert!(terms.is_sorted());
        let postings = model.values().map(Vec::len).sum::<usize>() as u64;
        let metrics = index.index();
        prop_assert_eq!((metrics.files() as usize, metrics.terms() as usize), (files.len(), model.len()));
        prop_assert_eq!(metrics.postings(), postings);
    }

    #[test]
    fn files_with_both_terms_are_counted(files in any_files(), one in "[a-d]{1,2}", other in "[a-d]{1,2}") {
        let (model, index) = (model(&files), build(&files));
        let files_of = |term: &str| {
            let mut files: Vec<u32> = model.get(term.as_bytes()).into_iter().flatten().map(|&(file, _)| file).collect();
            files.dedup();
            files
        };
        let counted = index.files(one.as_bytes()).into_iter().flatten();
        let counts = counted.map(|InFile { file, count }| (file, count as usize)).collect::<Vec<_>>();
        let occurrences = model.get(one.as_bytes()).into_iter().flatten();
        let count = |file| occurrences.clone().filter(|&&(other, _)| other == file).count();
        prop_assert_eq!(counts, files_of(&one).into_iter().map(|file| (file, count(file))).collect::<Vec<_>>());
        let others = files_of(&other);
        let both = files_of(&one).iter().filter(|&file| others.contains(file)).count();
        prop_assert_eq!(index.files_with_both(one.as_bytes(), other.as_bytes()) as usize, both);
        prop_assert_eq!(index.files(one.as_bytes()).is_some(), model.contains_key(one.as_bytes()));
    }

    #[test]
    fn frequent_terms_come_first(files in any_files()) {
        let (model, index) = (model(&files), build(&files));
        let ranked = model.iter().map(|(term, postings)| (usize::MAX - postings.len(), term.clone()));
        let mut expected: Vec<_> = ranked.collect();
        expected.sort();
        for (rank, (_, term)) in (0..).zip(&expected) {
            prop_assert_eq!(index.by_frequency(rank), Some(&term[..]));
        }
        prop_assert!(index.by_frequency(index.index().terms()).is_none());
    }

    #[test]
    fn the_digest_differs_for_different_files(files in any_files(), file in 0..8_usize, at in 0..100_usize) {
        let mut others = files.clone();
        let Some(byte) = others.get_mut(file).and_then(|text| text.get_mut(at)) else { return Ok(()) };
        *byte = if byte.is_ascii_alphanumeric() { b'-' } else { b'q' };
        prop_assert!(build(&files).digest() != build(&others).digest());
        prop_assert_eq!(build(&files).digest(), build(&files).digest());
    }
}

#[test]
fn terms_are_runs_of_letters_and_digits_in_lower_case() {
    let text = "<p class=x>Don't panic: \u{e4}42B</p>";
    let mut tokens = tokens(text.as_bytes());
    let mut terms = Vec::new();
    while let Some(token) = tokens.next_token() {
        terms.push((String::from_utf8(token.term.to_vec()).unwrap(), token.start));
    }
    let expected = [("p", 1), ("class", 3), ("x", 9), ("don", 11), ("t", 15), ("panic", 17), ("42b", 26), ("p", 31)];
    assert_eq!(terms, expected.map(|(term, start)| (String::from(term), start)));
}

/// Lists that outgrow a block of the pool, and more terms than several tables hold.
#[test]
fn long_lists_and_many_terms_are_kept() {
    let mut index = Index::default();
    for file in 0..100_u32 {
        let words = (0..4000_u32).map(|number| std::format!("common w{} ", number.wrapping_mul(file) % 70_001));
        index.add_file(words.collect::<String>().as_bytes()).unwrap();
    }
    assert_eq!(index.postings(), 100 * 8000);
    assert!(index.bytes() > 6 << 20, "{} bytes", index.bytes());
    let index = index.sort().unwrap();
    let all = index.postings(b"common").unwrap();
    assert!(all.eq((0..100).flat_map(|file| (0..4000).map(move |number| Posting { file, position: 2 * number }))));
    assert_eq!(index.files_with_both(b"common", b"w0"), 100, "each file begins with it");
}

/// Other programs compute the same numbers, so they may change only with the definition.
#[test]
fn digest_and_queries_follow_the_definition() {
    let empty = build(&[]);
    assert_eq!(empty.digest(), 0xcbf2_9ce4_8422_2325, "the FNV offset basis");
    assert_eq!(queries(&empty, 10, |_| ()), Answers::default());
    let index = build(&[b"b a".to_vec(), b"A".to_vec()]);
    let stream = b"a\0\x02\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0b\0\x01\0\0\0\0\0\0\0\0\0\0\0";
    let digest = stream
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |digest, &byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    assert_eq!(index.digest(), digest);
    let mut calls = 0;
    let answers = queries(&index, 100, |_| calls += 1);
    assert_eq!((calls, answers.queries), (100, 100));
    assert!(
        (100..200).contains(&answers.hits),
        "each pair of terms shares a file, and one pair shares two: {answers:?}"
    );
}

/// Accesses to the text cover its terms, and accesses to the pool stay within it.
#[test]
fn a_watch_sees_every_area() {
    #[derive(Debug, Default)]
    struct Seen(RefCell<BTreeMap<Area, (usize, usize)>>);
    impl Watch for &Seen {
        fn touched(&self, area: Area, offset: usize, bytes: usize) {
            let mut areas = self.0.borrow_mut();
            let (count, end) = areas.entry(area).or_default();
            *count += bytes;
            *end = (*end).max(offset + bytes);
        }
    }
    let seen = Seen::default();
    let mut index = Index::watched_by(&seen);
    index.add_file(b"one two, one").unwrap();
    let index = index.sort().unwrap();
    assert_eq!(queries(&index, 3, |_| ()).queries, 3);
    let areas = seen.0.borrow();
    assert_eq!(
        areas.keys().copied().collect::<Vec<_>>(),
        [Area::Text, Area::Table(1), Area::Records, Area::Pool, Area::Order]
    );
    assert_eq!(areas[&Area::Text], (9, 12));
    assert_eq!(areas[&Area::Pool].1, 2 * (3 + 2 * 12), "two terms of three bytes, two slices of twelve for each");
    assert!(areas[&Area::Records].1 == 2 * 64 && areas[&Area::Order].1 <= 2 * 4);
}
