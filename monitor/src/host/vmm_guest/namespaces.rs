//! Namespaces of VMM processes.
//!
//! Those with nothing in them are made once for all guests of this supervisor, by a short-lived
//! process of the program (`aerostat_vmm::jail`). Each guest's process numbers are its own: its
//! process is the first of a namespace, sees no other, and ignores signals but SIGKILL and SIGSTOP.
//!
//! A host may refuse either. Then guests run without, and `aerostat doctor` says so.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use aerostat_vmm::MAKE_NAMESPACES;
use aerostat_vmm::jail::Kind;
use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Those that were made for this process.
static SHARED: Mutex<Option<Vec<OwnedFd>>> = Mutex::new(None);

/// Returns the namespaces that all guests join, in the order in which they are joined; none where
/// this host lets this user have none.
pub(in crate::host) fn shared(program: &Path) -> io::Result<Vec<OwnedFd>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.is_none() {
        *shared = Some(make(program)?);
    }
    shared.iter().flatten().map(OwnedFd::try_clone).collect()
}

/// Has a process make namespaces, opens them, and ends it.
fn make(program: &Path) -> io::Result<Vec<OwnedFd>> {
    let mut maker = Command::new(program);
    maker.arg(MAKE_NAMESPACES).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut maker = maker.spawn()?;
    let is_done = maker.stdout.as_mut().is_some_and(|output| output.read(&mut [0]).is_ok_and(|bytes| bytes == 1));
    let open = |kind: Kind| File::open(format!("/proc/{}/ns/{}", maker.id(), kind.file())).map(OwnedFd::from);
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::User || !geteuid().is_root());
    let opened = if is_done { kinds.map(open).collect() } else { Ok(Vec::new()) };
    // Closes its standard input, which ends it.
    drop(maker.stdin.take());
    maker.wait()?;
    opened
}

/// While this value lives, a process that this thread starts is the first of a new namespace of
/// process numbers. It is meant for one process.
#[derive(Debug)]
pub(in crate::host) struct OwnNumbers(Option<OwnedFd>);

impl OwnNumbers {
    pub(in crate::host) fn begin() -> Self {
        let Ok(ours) = File::open("/proc/self/ns/pid") else { return Self(None) };
        // SAFETY: the call changes only in which namespace the thread's children are.
        let begun = unsafe { unshare_unsafe(UnshareFlags::NEWPID) };
        Self(begun.is_ok().then(|| ours.into()))
    }

    /// Returns whether this host lets this user have such a namespace.
    #[must_use]
    pub(in crate::host) const fn are_own(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for OwnNumbers {
    fn drop(&mut self) {
        if let Some(ours) = &self.0 {
            // The way back needs no more than the way there.
            let _ = move_into_link_name_space(ours.as_fd(), Some(LinkNameSpaceType::ProcessID));
        }
    }
}
