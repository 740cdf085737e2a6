//! Compares `docs/balloon-port.md`, which describes the protocol, with the constants.

use aerostat_abi::{batch, port, statistics};

const DOCUMENT: &str = include_str!("../../docs/balloon-port.md");

#[track_caller]
fn says(sentence: &str) {
    // The lines of the document may be wrapped at any word.
    let document = DOCUMENT.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(document.contains(sentence), "docs/balloon-port.md does not say: {sentence}");
}

#[test]
fn the_version_is_the_one_of_the_code() {
    says(&format!("This page describes version {} as it is", port::VERSION));
    says(&format!("* **Version** is {}.", port::VERSION));
}

#[test]
fn the_port_is_the_one_of_the_code() {
    says(&format!("with `DX` = **{:#x}**", port::PORT));
}

#[test]
fn the_limit_on_a_batch_is_the_one_of_the_code() {
    says(&format!("entries, 1 to {}", batch::CAPACITY));
    says(&format!("no entries, or more than {}", batch::CAPACITY));
    says(&format!("in batches of {}", batch::CAPACITY));
}

#[test]
fn the_record_of_a_report_ends_where_the_code_says() {
    says(&format!("{} bytes", statistics::BYTES));
}
