//! `test`: the host tests, then guests under KVM, then the same guests under QEMU's emulation; with `--long` also what takes minutes.
//!
//! Guests are booted by the integration tests of `aerostat-tests`, which learn from the environment where everything lies. They
//! are named `kvm::…` and `qemu::…` where a behaviour is shown on both machines; all others need KVM. So do the monitor's own.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cargo::{cargo, expect_success, shown};
use crate::{build, fuzz, tools};

/// The packages whose test files are named below.
const PACKAGES: [&str; 2] = ["aerostat-tests", "aerostat"];
/// Test files that need no machine at all.
const COMMAND_LINE: [&str; 1] = ["bad_input"];
/// Test files whose tests boot guests under KVM.
const KVM: [&str; 13] = [
    "vmm",
    "behaviours",
    "balloon",
    "balloon_application",
    "isolation",
    "hostile",
    "hostile_vmm",
    "applications",
    "fleet",
    "fleet_faults",
    "many_guests",
    "swap",
    "torture",
];
/// Test files whose tests boot guests under QEMU.
const QEMU: [&str; 2] = ["behaviours", "swap"];
/// Test files with tests that take minutes, which are marked as ignored.
const LONG: [&str; 2] = ["torture", "hostile"];

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Run only tests whose names contain this
    filter: Option<String>,
    /// Skip the tests that need KVM, and say so: for machines without it
    #[arg(long)]
    no_kvm: bool,
    /// Run the tests that take minutes, too
    #[arg(long, conflicts_with = "no_kvm")]
    long: bool,
}

/// What became of one part of the tests.
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
    if !options.no_kvm {
        tools::kvm().context("`cargo xtask test --no-kvm` leaves out the tests that need KVM")?;
    }
    tools::qemu()?;
    let bench = Bench::build(options.filter.clone())?;
    let parts: [(&str, Part<'_>); 6] = [
        ("host tests", &|| Ok(outcome(&mut bench.filtered(cargo(["test", "--no-fail-fast"]))))),
        ("command line", &|| Ok(outcome(&mut bench.boots(&COMMAND_LINE, None)))),
        ("guests under KVM", &|| if options.no_kvm { bench.skip_kvm() } else { Ok(outcome(&mut bench.kvm())) }),
        ("guests under QEMU", &|| Ok(outcome(&mut bench.boots(&QEMU, Some("kvm::"))))),
        ("long tests", &|| if options.long { Ok(outcome(&mut bench.long())) } else { bench.skip_long() }),
        ("fuzzing", &|| if options.long { Ok(run_fuzzer()) } else { Ok(skip_fuzzing()) }),
    ];
    let mut summary = Vec::new();
    for (name, part) in parts {
        println!("\n== {name}");
        let start = Instant::now();
        summary.push((name, part()?, start.elapsed()));
    }
    print_summary(&summary);
    let failed = summary.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

type Part<'a> = &'a dyn Fn() -> Result<Outcome>;

/// What the tests run on: paths of what was built, and the user's filter.
struct Bench {
    environment: [(&'static str, PathBuf); 3],
    filter: Option<String>,
}

impl Bench {
    fn build(filter: Option<String>) -> Result<Self> {
        let environment = [
            ("AEROSTAT_BIN", build::host()?),
            ("AEROSTAT_APPS", build::apps()?),
            ("AEROSTAT_GUESTS", build::test_guests()?),
        ];
        Ok(Self { environment, filter })
    }

    fn kvm(&self) -> Command {
        self.boots(&KVM, Some("qemu::"))
    }

    /// The command that runs the tests in `files`, all but those of a machine.
    fn boots(&self, files: &[&str], skipped: Option<&str>) -> Command {
        let mut command = cargo(["test", "--no-fail-fast"]);
        for package in PACKAGES {
            command.args(["-p", package]);
        }
        for file in files {
            command.args(["--test", file]);
        }
        let mut command = self.filtered(command);
        if let Some(machine) = skipped {
            command.args(["--skip", machine]);
        }
        for (name, path) in &self.environment {
            command.env(name, path);
        }
        command
    }

    fn filtered(&self, mut command: Command) -> Command {
        command.arg("--").args(&self.filter);
        command
    }

    /// The tests that take minutes.
    fn long(&self) -> Command {
        let mut command = self.boots(&LONG, None);
        command.arg("--ignored");
        command
    }

    fn skip_kvm(&self) -> Result<Outcome> {
        skipped(self.kvm(), "need KVM, and --no-kvm was given")
    }

    fn skip_long(&self) -> Result<Outcome> {
        skipped(self.long(), "take minutes; `cargo xtask test --long` runs them")
    }
}

fn run_fuzzer() -> Outcome {
    match fuzz::command() {
        Ok(mut command) => outcome(&mut command),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn skip_fuzzing() -> Outcome {
    let why = "fuzzing takes minutes; `cargo xtask test --long` does it, and the host tests have played its seeds";
    println!("SKIPPED: {why}");
    Outcome::Skipped(why.to_owned())
}

/// Counts the tests that `list` would run instead of running them.
fn skipped(mut list: Command, why: &str) -> Result<Outcome> {
    let answer = list.arg("--list").output().with_context(|| format!("starting {}", shown(&list)))?;
    ensure!(answer.status.success(), "`{}` failed:\n{}", shown(&list), String::from_utf8_lossy(&answer.stderr));
    let listed = String::from_utf8_lossy(&answer.stdout);
    let count = listed.lines().filter(|line| line.ends_with(": test")).count();
    let why = format!("{count} tests {why}");
    println!("SKIPPED: {why}");
    Ok(Outcome::Skipped(why))
}

fn outcome(command: &mut Command) -> Outcome {
    match expect_success(command) {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn print_summary(summary: &[(&str, Outcome, Duration)]) {
    println!("\n== summary");
    for (name, outcome, time) in summary {
        println!("{name:<18} {:>5.1} s  {outcome}", time.as_secs_f64());
    }
}
