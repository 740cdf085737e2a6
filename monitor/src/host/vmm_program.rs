//! The program that runs a guest, `aerostat-vmm`: where it is, and whether it is of this build.
//!
//! It lies beside `aerostat`. The two are built separately, so one may be older than the other: the
//! program is asked for its build before the first start, and a VMM process compares it with the
//! supervisor's again.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aerostat_vmm::{ASK_BUILD, BUILD_ID};
use thiserror::Error;

/// The program's file name.
pub const NAME: &str = "aerostat-vmm";

/// Why no guest can be started.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It is not where it has to be.
    #[error("{} is missing, which runs the guests; build it with `cargo build -p {NAME}`, or copy it there", .0.display())]
    Missing(PathBuf),
    /// It can't be started.
    #[error("{}, which runs the guests, can't be started: {source}", program.display())]
    Unusable {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is older or newer than this program.
    #[error(
        "{} is not of this program's build; build both with `cargo build -p aerostat -p {NAME}`, or install both anew",
        .0.display()
    )]
    OtherBuild(PathBuf),
}

/// Finds the program beside the running one, and checks that both are of the same build.
///
/// # Errors
/// Returns a sentence that says what to do.
pub fn find() -> Result<PathBuf, ProgramError> {
    let unusable = |source| ProgramError::Unusable { program: NAME.into(), source };
    let program = env::current_exe().map_err(unusable)?.with_file_name(NAME);
    check(&program)?;
    Ok(program)
}

fn check(program: &Path) -> Result<(), ProgramError> {
    if !program.exists() {
        return Err(ProgramError::Missing(program.to_owned()));
    }
    let mut command = Command::new(program);
    let asked = command.arg(ASK_BUILD).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let answer = asked.map_err(|source| ProgramError::Unusable { program: program.to_owned(), source })?;
    if answer.stdout.trim_ascii() == BUILD_ID.as_bytes() {
        Ok(())
    } else {
        Err(ProgramError::OtherBuild(program.to_owned()))
    }
}
