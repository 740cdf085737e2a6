//! Where the repository is, and how the verbs run cargo and other commands in it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The target that guests are built for.
pub(crate) const BARE_METAL: &str = "x86_64-unknown-none";
/// The target of programs that are linked statically.
pub(crate) const STATIC: &str = "x86_64-unknown-linux-musl";

/// Returns the repository's root.
pub(crate) fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
    Path::new(&manifest).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Returns cargo's target directory, which the user's configuration may have moved. It is found
/// through the path of xtask, which runs from there.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let xtask = env::current_exe().context("finding the running xtask")?;
    let Some(target) = xtask.ancestors().nth(2) else {
        bail!("{} does not look like cargo's TARGET/PROFILE/xtask", xtask.display());
    };
    Ok(target.to_path_buf())
}

/// Returns a command for the cargo that runs xtask, in the repository's root.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root()).args(arguments);
    command
}

/// Runs `command` to its end.
///
/// # Errors
/// When it can't be started or fails; the error names it.
pub(crate) fn expect_success(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", shown(command));
    Ok(())
}

/// Returns the command as a user would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Adds `-p NAME` for each of `packages`.
pub(crate) fn select(command: &mut Command, packages: &[String]) {
    for package in packages {
        command.args(["-p", package]);
    }
}
