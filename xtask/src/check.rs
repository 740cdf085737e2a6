//! `check`: every static gate a change must pass. All gates run, whatever fails, and the end lists all that failed. The tests are
//! `xtask test`'s alone, so that CI runs each of them once.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build::{TEST_GUESTS, app_packages};
use crate::cargo::{BARE_METAL, cargo, expect_success, select};
use crate::tools;

const GUEST_KERNEL: &str = "aerostat-guest";
const BALLOON_DRIVER: &str = "aerostat-balloon-driver";
const POLICIES: &str = "aerostat-reclaim-policy";
const INDEX_LIBRARY: &str = "inverted-index";

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
    let mut gates = vec![
        Gate { name: "rustfmt", command: cargo(["fmt", "--all", "--check"]) },
        Gate { name: "clippy, host", command: cargo(["clippy", "--all-targets", "--", "-D", "warnings"]) },
        Gate { name: "clippy, bare metal", command: bare_metal_clippy()? },
        Gate {
            name: "rustdoc, host",
            command: rustdoc(&[
                "-p",
                "aerostat",
                "-p",
                "aerostat-abi",
                "-p",
                BALLOON_DRIVER,
                "-p",
                POLICIES,
                "-p",
                INDEX_LIBRARY,
                "-p",
                "aerostat-tests",
                "-p",
                "xtask",
            ]),
        },
        Gate { name: "rustdoc, bare metal", command: rustdoc(&["--target", BARE_METAL, "-p", GUEST_KERNEL]) },
    ];
    gates.extend(audit());
    Ok(gates)
}

fn bare_metal_clippy() -> Result<Command> {
    let mut command = cargo([
        "clippy",
        "--target",
        BARE_METAL,
        "-p",
        GUEST_KERNEL,
        "-p",
        BALLOON_DRIVER,
        "-p",
        POLICIES,
        "-p",
        INDEX_LIBRARY,
        "-p",
        TEST_GUESTS,
    ]);
    select(&mut command, &app_packages()?);
    command.args(["--", "-D", "warnings"]);
    Ok(command)
}

/// The guest kernel's modules are complete on bare metal only, so that is where its documentation is built.
fn rustdoc(selection: &[&str]) -> Command {
    let mut command = cargo(["doc", "--no-deps", "--document-private-items"]);
    command.args(selection);
    command.env("RUSTDOCFLAGS", "-D warnings");
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
