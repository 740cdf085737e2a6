//! Which parts of a VMM process's jail this host lacks, for `aerostat doctor`.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use aerostat_vmm::CHECK_JAIL;
use rustix::process::geteuid;

use super::namespaces::{self, OwnNumbers};

/// Returns what VMM processes run without, each as a noun.
///
/// # Errors
///
/// Returns the system's error where the program can't be run, or can't enter its jail.
pub fn missing_in_jail(program: &Path) -> io::Result<Vec<String>> {
    let mut missing = Vec::new();
    if !geteuid().is_root() {
        missing.push("users of their own".to_owned());
    }
    if namespaces::shared(program)?.is_empty() {
        missing.push("empty namespaces".to_owned());
    }
    let (words, can_have_numbers) = {
        let numbers = OwnNumbers::begin();
        let mut check = Command::new(program);
        let asked = check.arg(CHECK_JAIL).env_clear().stdin(Stdio::null()).stderr(Stdio::null()).output()?;
        if !asked.status.success() {
            return Err(io::Error::other(format!("the program can't enter its jail ({})", asked.status)));
        }
        (asked.stdout, numbers.are_own())
    };
    if !can_have_numbers {
        missing.push("process numbers of their own".to_owned());
    }
    missing.extend(String::from_utf8_lossy(&words).lines().map(str::to_owned));
    Ok(missing)
}
