//! `build`: the programs `aerostat` and `aerostat-vmm` for this host, and the guest images for the
//! bare-metal target.
//!
//! A plain `cargo build` can't build guests: they are for another target and are linked by the
//! kernel's script. Applications (`apps/*`) are built with the profile `release`, test guests
//! (`tests/guests`) with `checked`, which keeps every assertion. All images go below `target/` of
//! this repository, whatever cargo's target directory is, since fleet files name them by path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo::{BARE_METAL, STATIC, cargo, expect_success, root, select, target_dir};
use crate::tools;

/// The package that holds the test guests.
pub(crate) const TEST_GUESTS: &str = "aerostat-test-guests";
/// The program that runs a guest.
const VMM: &str = "aerostat-vmm";
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
/// `aerostat-vmm` is linked statically with musl, as each guest starts the program anew: the
/// dynamic linker, and what glibc asks of the processor before `main`, take most of that time
/// otherwise.
pub(crate) fn host() -> Result<PathBuf> {
    tools::static_target()?;
    expect_success(&mut cargo(["build", "--release", "-p", "aerostat"]))?;
    expect_success(&mut cargo(["build", "--release", "--target", STATIC, "-p", VMM, "--bin", VMM]))?;
    let (target, release) = (target_dir()?, Path::new("release"));
    let beside = target.join(release).join(VMM);
    replace(&target.join(STATIC).join(release).join(VMM), &beside)
        .with_context(|| format!("copying {VMM} to {}", beside.display()))?;
    Ok(target.join(release).join("aerostat"))
}

/// Copies `file` to `place`, where the present file may be running.
fn replace(file: &Path, place: &Path) -> io::Result<()> {
    let new = place.with_extension("new");
    fs::copy(file, &new)?;
    fs::rename(new, place)
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
