//! `check`: every static gate a change must pass. All gates run, whatever fails, and the end lists all that failed. The tests are
//! `xtask test`'s alone, so that CI runs each of them once.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build::{TEST_GUESTS, app_packages};
use crate::cargo::{BARE_METAL, cargo, expect_success, select};
use crate::tools;
use crate::workspace::Workspace;

/// The package that can be built only where C++ can be compiled.
const FUZZER: &str = "aerostat-fuzz";

/// One thing that must hold.
struct Gate {
    name: &'static str,
    command: Command,
}

pub(crate) fn perform() -> Result<ExitCode> {
    tools::bare_metal_target()?;
    let mut failures = Vec::new();
    for mut gate in gates()? {
        println!("\n== {}", gate.name);
        if let Err(error) = expect_success(&mut gate.command) {
            failures.push(format!("{}: {error:#}", gate.name));
        }
    }
    println!();
    if failures.is_empty() {
        println!("check: all gates passed");
        return Ok(ExitCode::SUCCESS);
    }
    for failure in &failures {
        println!("FAILED {failure}");
    }
    Ok(ExitCode::FAILURE)
}

fn gates() -> Result<Vec<Gate>> {
    let workspace = Workspace::load()?;
    let images = [app_packages()?, vec![TEST_GUESTS.to_owned()]].concat();
    let bare_metal = workspace.bare_metal(&images);
    let mut host = workspace.host(&images);
    if let Err(why) = tools::cpp_compiler() {
        println!("check: SKIPPED {FUZZER}: {why}");
        host.retain(|package| package != FUZZER);
    }
    // Modules of the guest kernel are complete on bare metal only, so what images are made of is documented there.
    let documented_on_host: Vec<String> =
        host.iter().filter(|package| !bare_metal.contains(package)).cloned().collect();
    let mut gates = vec![
        Gate { name: "rustfmt", command: cargo(["fmt", "--all", "--check"]) },
        Gate { name: "clippy, host", command: clippy(&["--all-targets"], &host) },
        Gate { name: "clippy, tests with guests", command: clippy_of_left_out_tests(&workspace)? },
        Gate { name: "clippy, bare metal", command: clippy(&["--target", BARE_METAL], &bare_metal) },
        Gate { name: "rustdoc, host", command: rustdoc(&[], &documented_on_host) },
        Gate { name: "rustdoc, bare metal", command: rustdoc(&["--target", BARE_METAL], &bare_metal) },
    ];
    gates.extend(audit());
    Ok(gates)
}

fn clippy(options: &[&str], packages: &[String]) -> Command {
    let mut command = cargo(["clippy"]);
    select(&mut command, packages);
    command.args(options).args(["--", "-D", "warnings"]);
    command
}

/// To cargo, all targets are those that it would test by itself.
fn clippy_of_left_out_tests(workspace: &Workspace) -> Result<Command> {
    let files = workspace.left_out_tests()?;
    let mut packages: Vec<String> = files.iter().map(|file| file.package.clone()).collect();
    packages.dedup();
    let options: Vec<&str> = files.iter().flat_map(|file| ["--test", &file.name]).collect();
    Ok(clippy(&options, &packages))
}

fn rustdoc(options: &[&str], packages: &[String]) -> Command {
    let mut command = cargo(["doc", "--no-deps", "--document-private-items"]);
    select(&mut command, packages);
    command.args(options).env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// The dependency audit, with whichever tool is at hand.
fn audit() -> Option<Gate> {
    if tools::has_cargo_subcommand("deny") {
        return Some(Gate { name: "dependency audit", command: cargo(["deny", "check", "advisories"]) });
    }
    if tools::has_cargo_subcommand("audit") {
        return Some(Gate { name: "dependency audit", command: cargo(["audit"]) });
    }
    println!("check: neither cargo-deny nor cargo-audit is installed, so dependencies are not audited");
    None
}
