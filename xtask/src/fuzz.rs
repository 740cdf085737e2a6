//! Fuzzing, as a part of `test --long`: libFuzzer with the stable compiler, without `cargo fuzz`.
//!
//! The targets (`monitor/fuzz`) are ordinary programs that libFuzzer's `main` is linked into. The
//! fuzzer needs to know which edges an input takes, so compiler flags make LLVM count them. They
//! are the flags that `cargo fuzz --sanitizer none` passes, except the one that traces comparisons,
//! which costs four fifths of the speed. Inputs that reach new edges are kept in the target
//! directory for the next run. Inputs that are worth keeping for good are the seeds, in git.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{cargo, expect_success, root, target_dir};
use crate::tools;

/// The package that holds the targets.
const PACKAGE: &str = "aerostat-fuzz";
const TARGETS: [&str; 6] = ["balloon_port", "control_request", "fleet_file", "link", "qmp_session", "virtio_disk"];
/// For each target.
const SECONDS: u32 = 60;
/// The longest input: some two hundred steps of a script.
const MOST_BYTES: u32 = 2000;
/// Flags for coverage of edges, for assertions, which releases do without, and for one code
/// generation unit per crate, so that no edge is counted twice.
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

/// Builds the targets and returns the commands that fuzz each for a minute, from its seeds and the
/// inputs that earlier runs have found.
///
/// # Errors
/// When a tool is missing or a target can't be built.
pub(crate) fn commands() -> Result<Vec<Command>> {
    tools::cpp_compiler()?;
    let host = tools::host()?;
    let folder = target_dir()?.join("fuzz");
    // With `--target`, the flags do not apply to build scripts, which run during the build.
    let mut build = cargo(["build", "--release", "--package", PACKAGE, "--bins", "--target", &host]);
    build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", FLAGS.join(" ")).env("CARGO_PROFILE_RELEASE_LTO", "off");
    expect_success(&mut build)?;
    TARGETS.iter().map(|target| command(target, &folder, &host)).collect()
}

fn command(target: &str, folder: &Path, host: &str) -> Result<Command> {
    let corpus = folder.join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
    let mut fuzz = Command::new(folder.join(host).join("release").join(target));
    fuzz.arg(corpus).arg(root().join("monitor/fuzz/seeds").join(target));
    fuzz.args([format!("-max_total_time={SECONDS}"), format!("-max_len={MOST_BYTES}"), "-len_control=0".to_owned()]);
    // libFuzzer writes an input that fails to this folder and prints its name.
    fuzz.arg(format!("-artifact_prefix={}/", folder.display()));
    fuzz.args(["-print_final_stats=1", "-verbosity=0"]);
    Ok(fuzz)
}
