//! What the two sides say to each other.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
    /// End the guest and the process.
    Stop,
}

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Memory that the machine has, balloon included.
    pub memory_frames: u64,
    /// Memory that the guest starts with; the rest is the initial balloon.
    pub initial_frames: u64,
    /// The guest's boot arguments.
    pub command_line: String,
    /// The guest's disks; a descriptor comes with each.
    pub disks: Vec<StartDisk>,
}

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
    /// Where the guest's console goes, if anywhere.
    pub log: Option<OwnedFd>,
    /// With a log, where it goes when it is full.
    pub previous_log: Option<OwnedFd>,
}

impl StartDescriptors {
    /// Returns all of them, as a message carries them.
    #[must_use]
    pub fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        let always = [&self.registers, &self.doorbell, &self.image];
        always.into_iter().chain(&self.disks).chain(&self.log).chain(&self.previous_log).map(AsFd::as_fd).collect()
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
    /// The guest did something that is not allowed.
    Fault(String),
    /// The process can't do its work.
    Failed(String),
}
