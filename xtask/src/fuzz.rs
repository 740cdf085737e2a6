//! Fuzzing, as a part of `test --long`: libFuzzer, with the stable compiler and no subcommand
//! besides.
//!
//! The targets (`monitor/fuzz`) are ordinary programs that libFuzzer's `main` is linked into. What
//! makes them worth a fuzzer's while is that LLVM counts edges in them, which is a matter of
//! compiler flags: those that `cargo fuzz --sanitizer none` passes, but for watching comparisons,
//! which costs four fifths of the speed. Inputs that led anywhere new are kept beside what is
//! built, for the next time; those that are worth keeping for good are the seeds.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{cargo, expect_success, root, target_dir};
use crate::tools;

/// The package that holds the targets.
const PACKAGE: &str = "aerostat-fuzz";
const TARGET: &str = "balloon_port";
const SECONDS: u32 = 60;
/// Some two hundred steps.
const MOST_BYTES: u32 = 2000;
/// Coverage of edges, assertions that releases do without, and all of a crate's code in one unit:
/// what is counted must not come twice.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Ccodegen-units=1",
];

/// The command that builds the target and fuzzes it for a minute, from its seeds and what earlier
/// runs have found.
///
/// # Errors
/// When something is missing that this needs, or the target can't be built.
pub(crate) fn command() -> Result<Command> {
    tools::cpp_compiler()?;
    let host = tools::host()?;
    let folder = target_dir()?.join("fuzz");
    // With a target named, the flags concern it alone, and not what runs during the build.
    let mut build = cargo(["build", "--release", "--package", PACKAGE, "--bin", TARGET, "--target", &host]);
    build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", FLAGS.join(" ")).env("CARGO_PROFILE_RELEASE_LTO", "off");
    expect_success(&mut build)?;
    let corpus = folder.join("corpus").join(TARGET);
    fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
    let mut fuzz = Command::new(folder.join(host).join("release").join(TARGET));
    fuzz.arg(corpus).arg(root().join("monitor/fuzz/seeds").join(TARGET));
    fuzz.args([format!("-max_total_time={SECONDS}"), format!("-max_len={MOST_BYTES}"), "-len_control=0".to_owned()]);
    // An input that breaks something is left here, and named.
    fuzz.arg(format!("-artifact_prefix={}/", folder.display()));
    fuzz.args(["-print_final_stats=1", "-verbosity=0"]);
    Ok(fuzz)
}
