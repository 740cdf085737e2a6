//! `check`: runs every static gate that a change must pass. All gates run, even if one fails, and
//! the end lists those that failed. No gate runs tests, so CI runs each test once, by `xtask test`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build::{TEST_GUESTS, app_packages};
use crate::cargo::{BARE_METAL, cargo, expect_success, select};
use crate::source::{self, SourceFile};
use crate::tools;
use crate::workspace::Workspace;

/// The package that can be built only where there is a C++ compiler.
const FUZZER: &str = "aerostat-fuzz";

/// The commands that check something, each with the gate's name, and the gates that this machine
/// can't run, each with the reason.
#[derive(Default)]
struct Plan {
    commands: Vec<(&'static str, Command)>,
    skipped: Vec<String>,
}

pub(crate) fn perform() -> Result<ExitCode> {
    tools::bare_metal_target()?;
    let plan = Plan::new()?;
    let files = SourceFile::read_all()?;
    let mut failures = Vec::new();
    let mut check = |name: &str, gate: &mut dyn FnMut() -> Result<()>| {
        println!("\n== {name}");
        if let Err(error) = gate() {
            failures.push(format!("{name}: {error:#}"));
        }
    };
    for gate in source::GATES {
        check(gate.name, &mut || gate.check(&files));
    }
    for (name, mut command) in plan.commands {
        check(name, &mut || expect_success(&mut command));
    }
    println!();
    for skipped in &plan.skipped {
        println!("SKIPPED {skipped}");
    }
    for failure in &failures {
        println!("FAILED {failure}");
    }
    if !failures.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    match plan.skipped.len() {
        0 => println!("check: all gates passed"),
        count => println!("check: all gates passed but {count}, which this machine can't check"),
    }
    Ok(ExitCode::SUCCESS)
}

impl Plan {
    fn new() -> Result<Self> {
        let mut plan = Self::default();
        plan.add("rustfmt", cargo(["fmt", "--all", "--check"]));
        plan.add_lints()?;
        plan.add_dependencies();
        Ok(plan)
    }

    fn add(&mut self, name: &'static str, command: Command) {
        self.commands.push((name, command));
    }

    fn add_lints(&mut self) -> Result<()> {
        let workspace = Workspace::load()?;
        let images = [app_packages()?, vec![TEST_GUESTS.to_owned()]].concat();
        let bare_metal = workspace.bare_metal(&images);
        let mut host = workspace.host(&images);
        if let Err(why) = tools::cpp_compiler() {
            self.skipped.push(format!("the lints of {FUZZER}: {why}"));
            host.retain(|package| package != FUZZER);
        }
        // Modules of the guest kernel are complete only on bare metal, so the packages of images
        // are documented there.
        let documented: Vec<String> = host.iter().filter(|package| !bare_metal.contains(package)).cloned().collect();
        self.add("clippy, host", clippy(&["--all-targets"], &host));
        self.add("clippy, tests with guests", clippy_of_left_out_tests(&workspace)?);
        self.add("clippy, bare metal", clippy(&["--target", BARE_METAL], &bare_metal));
        self.add("rustdoc, host", rustdoc(&[], &documented));
        self.add("rustdoc, bare metal", rustdoc(&["--target", BARE_METAL], &bare_metal));
        Ok(())
    }

    /// Adds the gates for dependencies, by the rules of `deny.toml`. Advisories have a gate of
    /// their own, as they need the network.
    fn add_dependencies(&mut self) {
        if tools::has_cargo_subcommand("deny") {
            self.add("dependencies", cargo(["deny", "check", "bans", "licenses", "sources"]));
            self.add("advisories", cargo(["deny", "check", "advisories"]));
            return;
        }
        let install = "cargo-deny is not installed: `cargo install cargo-deny --locked`";
        self.skipped.push(format!("licences and sources of dependencies: {install}"));
        if tools::has_cargo_subcommand("audit") {
            self.add("advisories", cargo(["audit"]));
        } else {
            self.skipped.push(format!("advisories about dependencies: {install}"));
        }
    }
}

fn clippy(options: &[&str], packages: &[String]) -> Command {
    let mut command = cargo(["clippy"]);
    select(&mut command, packages);
    command.args(options).args(["--", "-D", "warnings"]);
    command
}

/// Returns the lints of the test files that `--all-targets` leaves out, since a plain `cargo test`
/// does.
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
