//! `test`: the host tests, then guests under KVM, then guests under QEMU; with `--qemu` only those,
//! and with `--long` also what takes minutes.
//!
//! Guests are booted by the test files that a plain `cargo test` leaves out ([`crate::workspace`]):
//! the integration tests of `aerostat-tests`, which get the paths of all images from the
//! environment, and the monitor's own. No list here names them. A test needs QEMU if its name
//! contains `qemu`. Every other test of these files needs KVM, unless the head of its file says
//! that it needs no machine.

mod bench;

use std::fmt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::cargo::expect_success;
use crate::{fuzz, tools};

use bench::Bench;

/// The options of the verb.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Run only tests whose names contain this
    filter: Option<String>,
    /// Skip the tests that need KVM, and say so: for machines without it
    #[arg(long)]
    no_kvm: bool,
    /// Run the tests that need QEMU, and no others
    #[arg(long, conflicts_with = "no_kvm")]
    qemu: bool,
    /// Run the tests that take minutes, too
    #[arg(long, conflicts_with_all = ["no_kvm", "qemu"])]
    long: bool,
}

/// The result of one part of the tests.
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Skipped(why) => write!(f, "SKIPPED: {why}"),
        }
    }
}

pub(crate) fn perform(options: &Options) -> Result<ExitCode> {
    if !options.no_kvm && !options.qemu {
        tools::kvm().context("`cargo xtask test --no-kvm` leaves out the tests that need KVM")?;
    }
    tools::qemu()?;
    let bench = Bench::build(options.filter.clone())?;
    let on_qemu: (&str, Part<'_>) = ("guests under QEMU", &|| run_qemu(&bench));
    let parts: &[(&str, Part<'_>)] = if options.qemu {
        &[on_qemu]
    } else {
        &[
            ("host tests", &|| Ok(outcome(&mut bench.host_tests()))),
            ("command line", &|| Ok(outcome(&mut [bench.without_machine()]))),
            ("guests under KVM", &|| if options.no_kvm { skip_kvm(&bench) } else { Ok(outcome(&mut [bench.kvm()])) }),
            on_qemu,
            ("long tests", &|| if options.long { Ok(outcome(&mut bench.long())) } else { skip_long(&bench) }),
            ("fuzzing", &|| if options.long { Ok(run_fuzzer()) } else { Ok(skip_fuzzing()) }),
        ]
    };
    let mut summary = Vec::new();
    for &(name, part) in parts {
        println!("\n== {name}");
        let start = Instant::now();
        summary.push((name, part()?, start.elapsed()));
    }
    print_summary(&summary);
    let failed = summary.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs one part of the tests.
type Part<'a> = &'a dyn Fn() -> Result<Outcome>;

fn run_qemu(bench: &Bench) -> Result<Outcome> {
    Ok(match bench.qemu()? {
        Some(command) => outcome(&mut [command]),
        None => skipped("no test for QEMU has a name like this"),
    })
}

fn skip_kvm(bench: &Bench) -> Result<Outcome> {
    let count = bench::names([bench.kvm()])?.len();
    Ok(skipped(&format!("{count} tests need KVM, and --no-kvm was given")))
}

fn skip_long(bench: &Bench) -> Result<Outcome> {
    let count = bench::names(bench.long())?.len();
    Ok(skipped(&format!("{count} tests take minutes; `cargo xtask test --long` runs them")))
}

fn run_fuzzer() -> Outcome {
    match fuzz::commands() {
        Ok(mut commands) => outcome(&mut commands),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn skip_fuzzing() -> Outcome {
    skipped("fuzzing takes minutes; `cargo xtask test --long` does it, and the host tests have played its seeds")
}

fn skipped(why: &str) -> Outcome {
    println!("SKIPPED: {why}");
    Outcome::Skipped(why.to_owned())
}

/// Runs all `commands`, even if one fails.
fn outcome(commands: &mut [Command]) -> Outcome {
    let failures = commands.iter_mut().filter_map(|command| expect_success(command).err());
    let failures: Vec<String> = failures.map(|error| format!("{error:#}")).collect();
    if failures.is_empty() { Outcome::Passed } else { Outcome::Failed(failures.join("; ")) }
}

fn print_summary(summary: &[(&str, Outcome, Duration)]) {
    println!("\n== summary");
    for (name, outcome, time) in summary {
        println!("{name:<18} {:>5.1} s  {outcome}", time.as_secs_f64());
    }
}
