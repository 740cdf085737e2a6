//! Reports tests that this machine can't run.

use std::io::{self, Write};
use std::thread;

/// Prints that the calling test is left out, and why. It does not use the print macros, as the test
/// runner captures their output.
pub fn skip(why: &str) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    // An error means that standard error is closed and has no reader.
    let _ = writeln!(io::stderr(), "SKIPPED {name}: {why}");
}
