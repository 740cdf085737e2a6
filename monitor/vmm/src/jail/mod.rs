//! The jail: what a VMM process gives up before it reads anything that a guest controls.
//!
//! A guest that takes its VMM process over finds a process that can open nothing, start nothing,
//! signal nothing and connect to nothing. What it holds are the descriptors that its guest needs
//! anyway. [`begin`] is the process's first act; [`enter`] comes after all that needs a name or a
//! privilege was opened (`host_files`), and before the image is parsed. It costs less than a
//! millisecond and nothing when the process ends.
//!
//! One mechanism a file, in the order in which they are applied:
//!
//! * `namespaces`: no mount, network, host name or System V object of the host
//! * `credentials`: a user of its own without capabilities, `no_new_privs`, not dumpable
//! * `limits`: no core dump, few descriptors and threads, bounded memory and files
//! * `landlock`: no file may be opened, even where a name were found
//! * `seccomp`: the calls that each kind of thread makes, by their arguments
//!
//! Each covers for the others. Where a host lacks one, the process goes on with the rest, and
//! `aerostat doctor` says so.

mod credentials;
mod landlock;
mod limits;
mod namespaces;
mod seccomp;

use std::fmt;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::Pid;
use thiserror::Error;

pub use self::limits::Bounds;
pub use self::namespaces::{Kind, make as make_namespaces};
pub use self::seccomp::{Thread, VIOLATION, confine, record_violations_in};

/// A mechanism of the jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Namespaces that are empty.
    Namespaces,
    /// Limits of resources.
    Limits,
    /// A user of its own without capabilities.
    Credentials,
    /// Landlock.
    Landlock,
    /// Filters of system calls.
    Seccomp,
}

/// Why the process is not in its jail.
#[derive(Debug, Error)]
#[error("its jail can't be entered: {mechanism}: {cause}")]
pub struct JailError {
    mechanism: Mechanism,
    cause: Errno,
}

/// Who enters the jail.
#[derive(Debug)]
pub struct Inmate {
    /// The process's number, as its supervisor knows it.
    pub process: Pid,
    /// What the process may use at most.
    pub bounds: Bounds,
    /// Empty namespaces of the supervisor's.
    pub namespaces: Vec<OwnedFd>,
}

/// Leaves what the process has inherited: descriptors but the standard streams, and the session.
/// For the process's first act.
pub fn begin() {
    // What a caller of the supervisor left open. Linux before 5.9 lacks the call, and then the
    // supervisor's descriptors are closed by `exec` all the same.
    // SAFETY: this process has opened nothing yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    // Fails where the process leads a session already.
    let _ = rustix::process::setsid();
}

/// Enters the jail; returns which mechanisms this host lacks. For a process with one thread.
///
/// # Errors
///
/// Fails where a mechanism that is there can't be applied: the process must not go on.
pub fn enter(inmate: Inmate) -> Result<Vec<Mechanism>, JailError> {
    let Inmate { process, bounds, namespaces } = inmate;
    let mut missing = Vec::new();
    let mut apply = |mechanism, outcome: Result<(), Errno>| match outcome {
        Ok(()) => Ok(()),
        Err(cause) if is_lacking(cause) => {
            missing.push(mechanism);
            Ok(())
        }
        Err(cause) => Err(JailError { mechanism, cause }),
    };
    let failed = |mechanism| move |cause| JailError { mechanism, cause };
    apply(Mechanism::Namespaces, namespaces::join(namespaces))?;
    // Every host has users and limits.
    let user = credentials::drop(process).map_err(failed(Mechanism::Credentials))?;
    limits::set(&bounds, user).map_err(failed(Mechanism::Limits))?;
    apply(Mechanism::Landlock, landlock::restrict())?;
    apply(Mechanism::Seccomp, seccomp::begin())?;
    Ok(missing)
}

/// Returns whether an error says that the host has no such mechanism, or does not let this user
/// have it.
fn is_lacking(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM)
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Limits => "limits",
            Self::Credentials => "a user of its own",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        })
    }
}
