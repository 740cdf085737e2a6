//! `bench`: builds what is measured with the profile in which it is used, then runs the program
//! `aerostat-bench` of the tests. That program links the monitor's library and boots guests through
//! it, so xtask stays small and quick to build.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use clap::Args;

use crate::cargo::{cargo, expect_success, target_dir};
use crate::{build, linux_guest, tools};

/// The programs that benches run: `aerostat-bench` is all of them, and finds the other beside it.
const PROGRAMS: [&str; 2] = ["aerostat-bench", "aerostat-hostile-vmm"];

/// The benches that boot no guest. They need neither KVM nor images.
const WITHOUT_GUESTS: [&str; 1] = ["reclaim"];

/// The bench that compares with a Linux guest under QEMU.
const WITH_LINUX: &str = "qemu";

/// The test guests that benches boot.
const GUESTS: [&str; 8] = [
    "bench_balloon",
    "bench_grants",
    "bench_memory",
    "bench_paging",
    "ignores_targets",
    "inflate",
    "native_compute",
    "small_application",
];

/// The options of the verb.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Run only this bench; `list` names them all
    name: Option<String>,
    /// Write the rows as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn perform(options: &Options) -> Result<ExitCode> {
    expect_success(
        cargo(["build", "--release", "-p", "aerostat-tests"]).args(PROGRAMS.map(|name| ["--bin", name]).as_flattened()),
    )?;
    let mut bench = Command::new(target_dir()?.join("release/aerostat-bench"));
    bench.args(&options.name);
    if options.name.as_deref().is_none_or(|name| !WITHOUT_GUESTS.contains(&name)) {
        build_guests(&mut bench)?;
    }
    if let Some(file) = &options.json {
        bench.arg("--json").arg(file);
    }
    if options.name.as_deref().is_none_or(|name| name == WITH_LINUX) {
        tools::qemu()?;
        bench.arg("--linux").arg(linux_guest::prepare()?);
    }
    let status = bench.status()?;
    ensure!(status.success(), "the bench failed ({status})");
    Ok(ExitCode::SUCCESS)
}

/// Builds the monitor and all guests that are measured, and passes their paths to `bench`.
fn build_guests(bench: &mut Command) -> Result<()> {
    tools::kvm()?;
    let aerostat = build::host()?;
    let apps = build::apps()?;
    for guest in GUESTS {
        build::measured_guest(guest)?;
    }
    bench.env("AEROSTAT_BIN", aerostat).env("AEROSTAT_APPS", &apps).env("AEROSTAT_GUESTS", &apps);
    Ok(())
}
