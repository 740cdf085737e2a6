//! Tests that this machine can't run.

use std::io::{self, Write};
use std::thread;

/// Says that the test that calls this is left out, and why. Not through the print macros: the test
/// runner would keep that to itself.
pub fn skip(why: &str) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    // A closed standard error has no reader who could miss it.
    let _ = writeln!(io::stderr(), "SKIPPED {name}: {why}");
}
