//! Namespaces in which there is nothing.
//!
//! A network namespace takes half a millisecond to make, and the kernel longer to remove, with the
//! lock held that every change of the host's network needs. An empty one has nothing that guests
//! could share, as filters keep them from making anything there. So a supervisor has one of each
//! kind made once, by a short-lived process of the program ([`make`]), and every VMM process joins
//! them, which takes microseconds and nothing at its end. Only the namespace of process numbers is
//! each process's own; the supervisor makes it with the process.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A kind of namespace that guests share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In which a user without privileges owns the others.
    User,
    /// Names of files.
    Mount,
    /// Interfaces, and sockets without a file's name.
    Network,
    /// System V objects and message queues.
    Ipc,
    /// The host's name.
    Uts,
}

impl Kind {
    /// All kinds, in the order in which they are joined: the first gives the right to join the
    /// others.
    pub const ALL: [Self; 5] = [Self::User, Self::Network, Self::Ipc, Self::Uts, Self::Mount];

    /// Returns the file of `/proc/PID/ns` that stands for a process's namespace.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mnt",
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
        }
    }
}

/// Joins namespaces, in the order of [`Kind::ALL`].
pub(super) fn join(namespaces: Vec<OwnedFd>) -> Result<(), Errno> {
    if namespaces.is_empty() {
        return Err(Errno::OPNOTSUPP);
    }
    let any = None::<LinkNameSpaceType>;
    namespaces.iter().try_for_each(|namespace| move_into_link_name_space(namespace.as_fd(), any))
}

/// Moves this process into new namespaces with nothing in them, writes a line, and keeps them until
/// its standard input ends. The supervisor opens them meanwhile, by `/proc`. For a process with one
/// thread.
///
/// # Errors
///
/// Returns the system's error: this host does not let this user have them.
pub fn make() -> io::Result<()> {
    let (user, group) = (geteuid(), getegid());
    let mut kinds = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if !user.is_root() {
        kinds |= libc::CLONE_NEWUSER;
    }
    // SAFETY: the process has one thread and shares nothing that the call would separate.
    check(unsafe { libc::unshare(kinds) })?;
    if !user.is_root() {
        // The user keeps the number, so that a VMM process still knows its supervisor by it.
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("{0} {0} 1", user.as_raw()))?;
        write("/proc/self/gid_map", &format!("{0} {0} 1", group.as_raw()))?;
    }
    let mut output = io::stdout();
    empty_mounts()?;
    output.write_all(b"\n")?;
    output.flush()?;
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

/// Makes an empty directory that can't be written to the only mount.
fn empty_mounts() -> io::Result<()> {
    // A directory that every host has.
    const PLACE: &CStr = c"/proc";
    const SEALED: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(c"none", c"/", (c"", libc::MS_REC | libc::MS_PRIVATE))?;
    mount(c"none", PLACE, (c"tmpfs", SEALED))?;
    rustix::process::chdir(PLACE)?;
    rustix::process::pivot_root(".", ".")?;
    // SAFETY: the path is a string; what was the root before lies above the new one now.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) })?;
    rustix::process::chdir("/")?;
    mount(c"none", c"/", (c"", SEALED | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY))
}

fn mount(source: &CStr, target: &CStr, (kind, flags): (&CStr, libc::c_ulong)) -> io::Result<()> {
    // SAFETY: all three are strings, and a mount has no data here.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, ptr::null()) })
}

fn write(path: &str, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
