//! `build`: the programs `aerostat` and `aerostat-vmm` for this host, and the guest images for the
//! bare-metal target.
//!
//! A plain `cargo build` can't build guests: they are for another target and are linked by the
//! kernel's script. Applications (`apps/*`) are built with the profile `release`, test guests
//! (`tests/guests`) with `checked`, which keeps every assertion. All images go below `target/` of
//! this repository, whatever cargo's target directory is, since fleet files name them by path.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo::{BARE_METAL, cargo, expect_success, root, select, target_dir};
use crate::tools;

/// The package that holds the test guests.
pub(crate) const TEST_GUESTS: &str = "aerostat-test-guests";
/// An application that the tests boot as a test guest, too.
const TORTURE: &str = "torture";

pub(crate) fn perform() -> Result<ExitCode> {
    let built = [host()?, apps()?, test_guests()?];
    for path in built {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the `aerostat` command, and beside it `aerostat-vmm`, which it starts; returns the
/// command's path.
///
/// `aerostat-vmm` is linked statically where the host has the libraries for that: each guest starts
/// the program anew, and the dynamic linker takes a third of that time.
pub(crate) fn host() -> Result<PathBuf> {
    expect_success(&mut cargo(["build", "--release", "-p", "aerostat"]))?;
    let mut vmm = cargo(["rustc", "--release", "-p", "aerostat-vmm", "--bin", "aerostat-vmm"]);
    if tools::can_link_statically() {
        vmm.args(["--", "-C", "target-feature=+crt-static"]);
    }
    expect_success(&mut vmm)?;
    Ok(target_dir()?.join("release/aerostat"))
}

/// Builds `aerostat-vmm` as tests are built, for those that start guests: cargo builds a test's own
/// package only.
pub(crate) fn tested_vmm() -> Result<()> {
    expect_success(&mut cargo(["build", "-p", "aerostat-vmm"]))
}

/// Builds the images of all applications; returns the folder that holds them.
pub(crate) fn apps() -> Result<PathBuf> {
    tools::bare_metal_target()?;
    let mut command = guest_build("release");
    select(&mut command, &app_packages()?);
    expect_success(&mut command)?;
    Ok(images("release"))
}

/// Builds the images of all test guests; returns the folder that holds them.
pub(crate) fn test_guests() -> Result<PathBuf> {
    tools::bare_metal_target()?;
    expect_success(guest_build("checked").args(["-p", TEST_GUESTS, "-p", TORTURE]))?;
    Ok(images("checked"))
}

/// Builds one test guest for a bench: with the profile of applications, into their folder.
pub(crate) fn measured_guest(name: &str) -> Result<()> {
    expect_success(guest_build("release").args(["-p", TEST_GUESTS, "--bin", name]))
}

/// Returns the names of the applications' packages, which are those of their folders.
pub(crate) fn app_packages() -> Result<Vec<String>> {
    let folder = root().join("apps");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Returns the command that builds images with a profile; the caller adds the packages.
fn guest_build(profile: &str) -> Command {
    let mut command = cargo(["build", "--profile", profile, "--target", BARE_METAL, "--target-dir"]);
    command.arg(images_root());
    command
}

/// Returns the folder in which cargo leaves the images of a profile.
fn images(profile: &str) -> PathBuf {
    images_root().join(BARE_METAL).join(profile)
}

fn images_root() -> PathBuf {
    root().join("target")
}
