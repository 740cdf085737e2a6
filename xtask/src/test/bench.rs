//! The commands that run each part of the tests.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::cargo::{cargo, select, shown};
use crate::linux_guest;
use crate::workspace::{TestFile, Workspace};

/// The part of a test's name that says that it needs KVM.
const ON_KVM: &str = "kvm::";
/// The part of a test's name that says that it needs QEMU.
const ON_QEMU: &str = "qemu";

/// All that is needed to run the tests: paths of the images, the test files that boot them, and the
/// user's filter.
pub(super) struct Bench {
    environment: Vec<(&'static str, PathBuf)>,
    files: Vec<TestFile>,
    /// The packages whose unit tests a plain `cargo test` leaves out.
    packages: Vec<String>,
    filter: Option<String>,
}

impl Bench {
    /// Builds all that the tests boot.
    pub(super) fn build(filter: Option<String>) -> Result<Self> {
        build::tested_vmm()?;
        let mut environment = vec![
            ("AEROSTAT_BIN", build::host()?),
            ("AEROSTAT_APPS", build::apps()?),
            ("AEROSTAT_GUESTS", build::test_guests()?),
        ];
        match linux_guest::prepare() {
            Ok(folder) => environment.push(("AEROSTAT_LINUX", folder)),
            Err(error) => println!("SKIPPED: tests with Linux guests, as there is none: {error:#}"),
        }
        let workspace = Workspace::load()?;
        Ok(Self { environment, files: workspace.left_out_tests()?, packages: workspace.left_out_packages(), filter })
    }

    /// Returns the commands for all that a plain `cargo test` runs and for the unit tests that it
    /// leaves out.
    pub(super) fn host_tests(&self) -> [Command; 2] {
        [self.filtered(cargo(["test", "--no-fail-fast"])), self.filtered(self.left_out_units())]
    }

    fn left_out_units(&self) -> Command {
        let mut command = cargo(["test", "--no-fail-fast", "--lib", "--bins"]);
        select(&mut command, &self.packages);
        command
    }

    /// Returns the command for the tests that need no machine.
    pub(super) fn without_machine(&self) -> Command {
        self.run(|file| !file.needs_machine)
    }

    /// Returns the command for the tests that need KVM.
    pub(super) fn kvm(&self) -> Command {
        let mut command = self.run(|file| file.needs_machine);
        command.args(["--skip", ON_QEMU]);
        command
    }

    /// Returns the command for the tests that need QEMU; `None` if the filter matches none of them.
    pub(super) fn qemu(&self) -> Result<Option<Command>> {
        let mut list = self.run(|file| file.needs_machine);
        list.args(["--skip", ON_KVM]);
        let mut names = names([list])?;
        // A test must match the user's filter and "qemu". The test runner has no filter for both
        // at once, so the command names the tests.
        names.retain(|name| name.contains(ON_QEMU));
        if names.is_empty() {
            return Ok(None);
        }
        let mut command = self.files(|file| file.needs_machine);
        command.args(["--", "--exact"]).args(names);
        Ok(Some(command))
    }

    /// Returns the commands for the tests that take minutes, which are marked as ignored. `--tests`
    /// leaves out ignored examples in comments, which are not meant to run.
    pub(super) fn long(&self) -> [Command; 3] {
        let host = cargo(["test", "--no-fail-fast", "--tests"]);
        [host, self.left_out_units(), self.files(|_| true)].map(|command| {
            let mut command = self.filtered(command);
            command.arg("--ignored");
            command
        })
    }

    /// Returns the command for the tests in the files that are `wanted` and match the filter.
    fn run(&self, wanted: impl Fn(&TestFile) -> bool) -> Command {
        self.filtered(self.files(wanted))
    }

    fn files(&self, wanted: impl Fn(&TestFile) -> bool) -> Command {
        let mut command = cargo(["test", "--no-fail-fast"]);
        let files: Vec<&TestFile> = self.files.iter().filter(|file| wanted(file)).collect();
        let mut packages: Vec<String> = files.iter().map(|file| file.package.clone()).collect();
        packages.dedup();
        select(&mut command, &packages);
        for file in files {
            command.args(["--test", &file.name]);
        }
        command.envs(self.environment.iter().map(|(name, path)| (name, path)));
        command
    }

    fn filtered(&self, mut command: Command) -> Command {
        command.arg("--").args(&self.filter);
        command
    }
}

/// Returns the names of the tests that `commands` would run.
pub(super) fn names(commands: impl IntoIterator<Item = Command>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for mut list in commands {
        let answer = list.arg("--list").output().with_context(|| format!("starting {}", shown(&list)))?;
        ensure!(answer.status.success(), "`{}` failed:\n{}", shown(&list), String::from_utf8_lossy(&answer.stderr));
        let listed = String::from_utf8_lossy(&answer.stdout);
        names.extend(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned));
    }
    Ok(names)
}
