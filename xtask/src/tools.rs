//! What a verb needs from the machine. A function finds it, or installs it where no question has to
//! be asked, or returns an error that says how to install it.

use std::env;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{BARE_METAL, STATIC, expect_success, root};

/// The program that emulates a PC.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
const QEMU_PACKAGE: &str = "qemu-system-x86";

/// Makes sure that the standard library for guests is installed.
pub(crate) fn bare_metal_target() -> Result<()> {
    rust_target(BARE_METAL, "guests need")
}

/// Makes sure that the standard library for statically linked programs is installed.
pub(crate) fn static_target() -> Result<()> {
    rust_target(STATIC, "aerostat-vmm needs")
}

fn rust_target(target: &str, who_needs: &str) -> Result<()> {
    if sysroot()?.join("lib/rustlib").join(target).join("lib").is_dir() {
        return Ok(());
    }
    eprintln!("xtask: installing the Rust target {target}");
    expect_success(Command::new("rustup").args(["target", "add", target]).current_dir(root()))
        .with_context(|| format!("{who_needs} the Rust target {target}: `rustup target add {target}`"))
}

/// Returns the folder in which the Rust toolchain is installed.
pub(crate) fn sysroot() -> Result<PathBuf> {
    ask_rustc("sysroot").map(PathBuf::from)
}

/// Returns the output of `rustc --print WHAT`.
fn ask_rustc(what: &str) -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(rustc).args(["--print", what]).current_dir(root()).output();
    let answer = asked.with_context(|| format!("asking rustc for its {what}"))?;
    ensure!(answer.status.success(), "`rustc --print {what}` failed: {}", String::from_utf8_lossy(&answer.stderr));
    let text = String::from_utf8(answer.stdout).with_context(|| format!("rustc names its {what} in UTF-8"))?;
    Ok(text.trim().to_owned())
}

/// Makes sure that QEMU is installed.
pub(crate) fn qemu() -> Result<()> {
    if find_program(QEMU).is_some() {
        return Ok(());
    }
    if find_program("apt-get").is_none() {
        bail!("{QEMU} is not installed: install it with your package manager, then try again");
    }
    if !is_root() {
        bail!("{QEMU} is not installed: `sudo apt-get install {QEMU_PACKAGE}`, then try again");
    }
    eprintln!("xtask: installing {QEMU_PACKAGE}");
    let apt = |arguments: &[&str]| {
        expect_success(Command::new("apt-get").arg("-q").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt(&["update"])?;
    apt(&["install", "--yes", "--no-install-recommends", QEMU_PACKAGE])?;
    ensure!(find_program(QEMU).is_some(), "{QEMU_PACKAGE} was installed, yet {QEMU} is not in PATH");
    Ok(())
}

/// Returns the target that cargo builds for by default.
pub(crate) fn host() -> Result<String> {
    ask_rustc("host-tuple")
}

/// Makes sure that there is a C++ compiler, since libFuzzer is built from source.
pub(crate) fn cpp_compiler() -> Result<()> {
    let is_there = env::var_os("CXX").is_some() || find_program("c++").is_some();
    ensure!(is_there, "there is no C++ compiler: `sudo apt-get install g++`, or name yours in CXX, then try again");
    Ok(())
}

/// Makes sure that KVM can be used.
pub(crate) fn kvm() -> Result<()> {
    let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") else { return Ok(()) };
    match error.kind() {
        ErrorKind::NotFound => bail!("this machine has no /dev/kvm: Aerostat's guests need a Linux host with KVM"),
        ErrorKind::PermissionDenied => {
            bail!("you may not open /dev/kvm: `sudo usermod -aG kvm $USER`, log in again, then try again")
        }
        _ => Err(error).context("opening /dev/kvm"),
    }
}

/// Returns whether cargo has the subcommand `name`.
pub(crate) fn has_cargo_subcommand(name: &str) -> bool {
    find_program(&format!("cargo-{name}")).is_some()
}

/// Finds the executable `name` in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn is_root() -> bool {
    let asked = Command::new("id").arg("-u").output();
    asked.is_ok_and(|answer| answer.stdout.trim_ascii() == b"0")
}
