//! What a VMM process opens by name. It happens before the process enters its jail, in which
//! nothing can be opened.

use std::fs::{self, File};
use std::io;

use aerostat_link::message::StartDescriptors;
use kvm_ioctls::Kvm;
use rustix::process::Pid;

use super::machine;
use super::paging::Userfault;
use super::process::ProcessError;
use super::virtio::reopen_cached;

/// What a process adds to its score: the kernel's OOM killer takes it before the supervisor and
/// before most other processes on the host.
const OOM_SCORE: &str = "500";

/// The open files.
#[derive(Debug)]
pub(super) struct HostFiles {
    pub(super) kvm: Kvm,
    /// What the process's memory is measured by.
    pub(super) memory: MemoryFiles,
    /// What the guest is paged by, if it may be.
    pub(super) userfault: Option<io::Result<Userfault>>,
    /// For each disk that uses direct I/O, the same file without it.
    pub(super) cached_disks: Vec<Option<File>>,
}

/// The kernel's files about a process's memory.
#[derive(Debug)]
pub(super) struct MemoryFiles {
    pub(super) statm: File,
    pub(super) status: File,
}

impl HostFiles {
    /// Opens what a guest with these descriptors needs.
    pub(super) fn open(descriptors: &StartDescriptors) -> Result<Self, ProcessError> {
        let userfault = descriptors.host_swap.as_ref().map(|_| Userfault::new());
        let cached_disks = descriptors.disks.iter().map(reopen_cached).collect::<io::Result<_>>()?;
        Ok(Self { kvm: machine::open()?, memory: MemoryFiles::open()?, userfault, cached_disks })
    }
}

impl MemoryFiles {
    /// Opens those of this process.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { statm: File::open("/proc/self/statm")?, status: File::open("/proc/self/status")? })
    }
}

/// Makes the kernel end this process before its supervisor when the host has no memory left. It
/// does so itself, as the file is root's once the process can't be dumped.
pub(super) fn expose_to_oom_killer() {
    // A score may always be raised. On a host without such a file, the supervisor has none either.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
}

/// Returns the number of this process, as its supervisor knows it: this process may be the first of
/// a namespace.
pub(super) fn own_number() -> Pid {
    let link = rustix::fs::readlink("/proc/self", Vec::new()).ok();
    let number = link.and_then(|link| link.to_str().ok()?.parse().ok());
    number.and_then(Pid::from_raw).unwrap_or_else(rustix::process::getpid)
}
