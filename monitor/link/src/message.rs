//! What the two sides say to each other.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::{DiskFaults, DiskMode, DiskRole, OpenDisk};

/// The longest text about a problem.
pub const MOST_PROBLEM_BYTES: usize = 512;

/// A message of the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ToVmm {
    /// Build the machine and run it. With the descriptors of [`StartDescriptors`].
    Start(Start),
    /// Release what is resident in ballooned frames.
    ReclaimBallooned,
    /// Report where the guest's processor is.
    Inspect,
    /// Stop the guest's processor.
    Pause,
    /// Let it go on.
    Resume,
    /// Serve this supervisor from now on. With the descriptors of [`TakeOverDescriptors`].
    TakeOver,
    /// End the guest and the process.
    Stop,
}

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Memory that the machine has, balloon included.
    pub memory_frames: u64,
    /// Memory that the guest starts with; the rest is the initial balloon. The target may be
    /// larger.
    pub initial_frames: u64,
    /// The guest's boot arguments.
    pub command_line: String,
    /// The features of its processor.
    pub features: Vec<CpuidLeaf>,
    /// The guest's disks; a descriptor comes with each.
    pub disks: Vec<StartDisk>,
    /// Where the guest may be paged to; `None` if it can't be paged.
    pub host_swap: Option<StartHostSwap>,
    /// How long the guest runs on without a supervisor, until another one takes it over; `None` if
    /// it ends with its supervisor. With [`SuccessionDescriptors`].
    pub lease: Option<Duration>,
    /// How many namespaces the process joins; a descriptor comes with each.
    pub namespaces: usize,
}

/// A host swap file without its descriptor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartHostSwap {
    /// For tests.
    pub faults: DiskFaults,
}

/// What CPUID returns for one leaf and subleaf: leaf, subleaf, KVM's flags, EAX, EBX, ECX and EDX.
pub type CpuidLeaf = [u32; 7];

/// A disk without its file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartDisk {
    /// Which disk it is.
    pub role: DiskRole,
    /// What the guest may do with it.
    pub mode: DiskMode,
    /// For tests.
    pub faults: DiskFaults,
}

impl StartDisk {
    /// Returns the disk with its file.
    #[must_use]
    pub fn with_file(&self, file: OwnedFd) -> OpenDisk {
        OpenDisk { role: self.role, mode: self.mode, faults: self.faults.clone(), file: file.into() }
    }
}

impl From<OpenDisk> for (StartDisk, OwnedFd) {
    fn from(disk: OpenDisk) -> Self {
        (StartDisk { role: disk.role, mode: disk.mode, faults: disk.faults }, disk.file.into())
    }
}

/// The descriptors that come with [`ToVmm::Start`], in this order.
#[derive(Debug)]
pub struct StartDescriptors {
    /// The register page.
    pub registers: OwnedFd,
    /// What becomes readable when the supervisor has set a target.
    pub doorbell: OwnedFd,
    /// The image, open for reading.
    pub image: OwnedFd,
    /// The files of [`Start::disks`].
    pub disks: Vec<OwnedFd>,
    /// The file of [`Start::host_swap`]: as large as the machine's memory, open for direct I/O.
    pub host_swap: Option<OwnedFd>,
    /// With a lease, what another supervisor finds the process by.
    pub succession: Option<SuccessionDescriptors>,
    /// Empty namespaces, in the order in which they are joined.
    pub namespaces: Vec<OwnedFd>,
    /// Where the guest's console goes, if anywhere.
    pub log: Option<OwnedFd>,
    /// With a log, where it goes when it is full.
    pub previous_log: Option<OwnedFd>,
}

/// What a VMM process needs to outlive its supervisor.
#[derive(Debug)]
pub struct SuccessionDescriptors {
    /// A named socket, on which the process listens for the next supervisor.
    pub listener: OwnedFd,
    /// Where the process writes how its guest ended.
    pub ended: OwnedFd,
}

/// The descriptors that come with [`ToVmm::TakeOver`], in this order.
#[derive(Debug)]
pub struct TakeOverDescriptors {
    /// The new register page.
    pub registers: OwnedFd,
    /// The new doorbell.
    pub doorbell: OwnedFd,
}

impl TakeOverDescriptors {
    /// Returns all of them, as a message carries them.
    #[must_use]
    pub fn borrowed(&self) -> [BorrowedFd<'_>; 2] {
        [self.registers.as_fd(), self.doorbell.as_fd()]
    }

    /// Sorts the descriptors that came with a message; `None` where there are too few or too many.
    #[must_use]
    pub fn from_received(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [registers, doorbell] = descriptors.try_into().ok()?;
        Some(Self { registers, doorbell })
    }
}

impl StartDescriptors {
    /// Returns all of them, as a message carries them.
    #[must_use]
    pub fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        let always = [&self.registers, &self.doorbell, &self.image];
        let succession = self.succession.iter().flat_map(|succession| [&succession.listener, &succession.ended]);
        let logs = self.log.iter().chain(&self.previous_log);
        always
            .into_iter()
            .chain(&self.disks)
            .chain(&self.host_swap)
            .chain(succession)
            .chain(&self.namespaces)
            .chain(logs)
            .map(AsFd::as_fd)
            .collect()
    }

    /// Sorts the descriptors that came with `start`; `None` where there are too few.
    #[must_use]
    pub fn from_received(descriptors: Vec<OwnedFd>, start: &Start) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        Some(Self {
            registers: descriptors.next()?,
            doorbell: descriptors.next()?,
            image: descriptors.next()?,
            disks: start.disks.iter().map(|_| descriptors.next()).collect::<Option<_>>()?,
            host_swap: match start.host_swap {
                Some(_) => Some(descriptors.next()?),
                None => None,
            },
            succession: match start.lease {
                Some(_) => Some(SuccessionDescriptors { listener: descriptors.next()?, ended: descriptors.next()? }),
                None => None,
            },
            namespaces: (0..start.namespaces).map(|_| descriptors.next()).collect::<Option<_>>()?,
            log: descriptors.next(),
            previous_log: descriptors.next(),
        })
    }
}

/// A message of a VMM process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum FromVmm {
    /// A thread in the guest waits for memory.
    Pressure,
    /// By its report in the register page, the guest uses its memory otherwise than before.
    UseChanged,
    /// The guest has filed a request, which is in the register page.
    Requested,
    /// Where the guest's processor is: registers and return addresses, as asked.
    Inspected {
        /// The lines of the answer.
        lines: Vec<String>,
    },
    /// Something does not work as it should, and the guest goes on.
    Problem {
        /// What, in one line.
        what: String,
    },
    /// What a supervisor that takes the process over has to know.
    Standing(Standing),
    /// The process serves the supervisor that sent [`ToVmm::TakeOver`], and uses its register page.
    TakenOver,
    /// The guest ended; the process ends next.
    Ended(Ending),
}

impl FromVmm {
    /// Returns the message about a problem, which is cut where it is long.
    #[must_use]
    pub fn problem(what: &dyn fmt::Display) -> Self {
        let mut what = what.to_string();
        what.truncate(what.floor_char_boundary(MOST_PROBLEM_BYTES));
        Self::Problem { what }
    }
}

/// The targets of a guest whose supervisor is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Memory that the machine has, balloon included.
    pub memory_frames: u64,
    /// The last target that was published. The guest may grow to it and not beyond.
    pub target_frames: u64,
    /// The epoch of the last target.
    pub epoch: u64,
    /// The guest's size.
    pub size_frames: u64,
}

/// How a guest ended, as its process reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// The reason.
    pub reason: Reason,
    /// Registers and log lines, which help to understand it.
    pub details: Vec<String>,
}

impl Ending {
    /// Returns the end of a process that can't do its work, for this reason.
    #[must_use]
    pub fn failed(why: impl ToString) -> Self {
        Self { reason: Reason::Failed(why.to_string()), details: Vec::new() }
    }
}

/// The reasons for an end that a VMM process knows. Only the supervisor can tell that a VMM process
/// was killed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The guest wrote this code of [`GuestExit`](aerostat_abi::exit::GuestExit).
    Exited(u8),
    /// The supervisor asked for it.
    Stopped,
    /// No supervisor took the process over in the time of its lease.
    LeaseEnded,
    /// The guest did something that is not allowed.
    Fault(String),
    /// The process can't do its work.
    Failed(String),
}
