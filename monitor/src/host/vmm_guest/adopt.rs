//! Taking over guests whose supervisor is gone.
//!
//! The run directory has a record of each ([`find_survivors`]). A process that still listens is
//! told who the new supervisor is; both agree on a version of the protocol; the process says which
//! target was published last, and is handed a new register page and a new doorbell. It sends no
//! descriptors. Which process it is comes from the kernel, as the peer of the connection, and the
//! process is only watched once it has answered: its number can't have passed to another.
//!
//! What a process says is bounded as always. It may claim any size up to that of its machine until
//! the first acknowledged target; its resident memory is measured from outside.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::units::FrameCount;
use aerostat_link::handshake::{Answer, Hello, Verdict, Versions};
use aerostat_link::message::{FromVmm, Standing, TakeOverDescriptors, ToVmm};
use aerostat_link::{Doorbell, Link, LinkError, Patience, SharedPage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::record::{GuestRecord, recorded_ending};
use super::{Parts, VmmGuest};
use crate::clock::Moment;
use crate::host::cgroup::GuestGroup;
use crate::host::process::Process;
use crate::host::run_directory::{GuestFiles, RunDirectory};
use crate::host::{Ending, oom};
use crate::vmm::BUILD_ID;

/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(10);
/// The last epoch that a process is believed: there are enough left.
const MOST_EPOCH: u64 = u64::MAX / 2;

/// A guest of an earlier supervisor, by the run directory. Its process may be gone.
#[derive(Debug)]
pub struct Survivor {
    /// Its name.
    pub name: String,
    /// Its files.
    pub files: Arc<GuestFiles>,
}

/// A guest that was taken over.
#[derive(Debug)]
pub struct Adopted {
    /// Its handle.
    pub guest: VmmGuest,
    /// What the earlier supervisor wrote down.
    pub record: GuestRecord,
    /// The target that is in force, at most the machine's memory.
    pub target: FrameCount,
    /// Its epoch.
    pub epoch: Epoch,
    /// The guest's size as its process says, at most the machine's memory.
    pub size: FrameCount,
}

/// Why a guest was not taken over.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// Its process is gone.
    #[error("its process has ended{}", .0.as_ref().map_or(String::new(), |ending| format!(": {}", ending.reason)))]
    Gone(Option<Ending>),
    /// Another supervisor has it.
    #[error("another supervisor has it")]
    Supervised,
    /// Its process speaks no version of the protocol that this build speaks.
    #[error(
        "its process is of build {build} and speaks versions {oldest} to {newest} of the protocol; a supervisor of that build can take it over",
        oldest = .versions.oldest, newest = .versions.newest
    )]
    OtherVersion {
        /// What it speaks.
        versions: Versions,
        /// Its build.
        build: String,
    },
    /// Its process listens and does not answer in time: it was stopped, or it hangs.
    #[error("its process does not answer")]
    Silent,
    /// Its process is another user's, or says what can't be.
    #[error("its process {0}")]
    Untrusted(&'static str),
    /// Its record can't be read.
    #[error("its record can't be read: {0}")]
    Record(io::Error),
    /// Something that the two processes share can't be made.
    #[error("it can't be taken over: {0}")]
    SetUp(#[from] io::Error),
}

/// Returns the guests of earlier supervisors of this fleet, by name.
///
/// # Errors
///
/// Returns the system's error where the run directory can't be read.
pub fn find_survivors(directory: &RunDirectory) -> io::Result<Vec<Survivor>> {
    let survivor = |name: String| {
        let files = Arc::new(directory.guest(&name)?);
        Ok(Survivor { files, name })
    };
    directory.guest_names()?.into_iter().map(survivor).collect()
}

impl Survivor {
    /// Reads what the earlier supervisor wrote down of the guest.
    ///
    /// # Errors
    ///
    /// Returns the system's error, also for what is no record.
    pub fn record(&self) -> io::Result<GuestRecord> {
        GuestRecord::read(&self.files)
    }

    /// Takes the guest over, within `patience`. For a thread that may wait.
    ///
    /// # Errors
    ///
    /// Returns [`AdoptError`]. The guest's process is as it was, and under its lease.
    pub fn adopt(&self, patience: Duration) -> Result<Adopted, AdoptError> {
        VmmGuest::adopt(self, patience)
    }

    /// Kills the guest's process, if there is one: for a guest that can't be taken over. Returns
    /// whether it is gone.
    #[must_use]
    pub fn kill(&self) -> bool {
        if let Ok((_, mut process)) = connect(&self.files) {
            // It is killed when it is dropped.
            process.own();
        }
        matches!(connect(&self.files), Err(AdoptError::Gone(_)))
    }
}

impl VmmGuest {
    /// Takes a guest over: [`Survivor::adopt`].
    ///
    /// # Errors
    ///
    /// Returns [`AdoptError`].
    pub fn adopt(survivor: &Survivor, patience: Duration) -> Result<Adopted, AdoptError> {
        let files = &survivor.files;
        let deadline = Moment::now().after(patience);
        let mut earlier = None;
        loop {
            // A process that is gone needs no record.
            let attempt = Attempt::begin(files, deadline);
            let attempt = attempt.and_then(|attempt| attempt.finish(&survivor.record().map_err(AdoptError::Record)?));
            let error = match attempt {
                Ok(adopted) => return Ok(adopted.with_files(Arc::clone(files))),
                Err(error) => error,
            };
            // Its process may not have noticed yet that its supervisor is gone, or may serve
            // another candidate.
            let is_final = !matches!(error, AdoptError::Supervised | AdoptError::Silent);
            if is_final || Moment::now() >= deadline {
                // The last attempt may have been too short to hear anything.
                return Err(if matches!(error, AdoptError::Silent) { earlier.unwrap_or(error) } else { error });
            }
            earlier = Some(error);
            thread::sleep(PAUSE);
        }
    }
}

/// An attempt that has come as far as knowing the guest's targets.
struct Attempt {
    link: Link,
    process: Process,
    standing: Standing,
    deadline: Moment,
}

impl Attempt {
    /// Connects, agrees on a version, and hears what the targets are.
    fn begin(files: &GuestFiles, deadline: Moment) -> Result<Self, AdoptError> {
        let (link, process) = connect(files)?;
        let hello = Hello { versions: Versions::OURS, build: BUILD_ID.to_owned() };
        send(&link, |link| link.send(&hello, &[], Patience::DoNotWait))?;
        let Answer { verdict, versions, build } = receive(&link, deadline)?;
        match verdict {
            Verdict::Welcome(version) if Some(version) == Versions::OURS.common(versions) => {}
            Verdict::Welcome(_) => return Err(AdoptError::Untrusted("chose a version that it does not speak")),
            Verdict::Supervised => return Err(AdoptError::Supervised),
            Verdict::NoCommonVersion => {
                let build = build.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
                return Err(AdoptError::OtherVersion { versions, build });
            }
        }
        match receive(&link, deadline)? {
            FromVmm::Standing(standing) => Ok(Self { link, process, standing, deadline }),
            _ => Err(AdoptError::Untrusted("says nothing of its targets")),
        }
    }

    /// Hands over a register page and a doorbell, and makes the handle.
    fn finish(self, record: &GuestRecord) -> Result<Adopted, AdoptError> {
        let Self { link, process, standing, deadline } = self;
        if standing.epoch > MOST_EPOCH || standing.memory_frames != record.memory.0 {
            return Err(AdoptError::Untrusted("says what its record contradicts"));
        }
        let target = FrameCount(standing.target_frames).min(record.memory);
        let epoch = Epoch(standing.epoch).next();
        let (registers, register_file) = SharedPage::create_at(target, epoch)?;
        let (doorbell, their_doorbell) = Doorbell::pair()?;
        let descriptors = TakeOverDescriptors { registers: register_file, doorbell: their_doorbell };
        send(&link, |link| link.send(&ToVmm::TakeOver, &descriptors.borrowed(), Patience::DoNotWait))?;
        let FromVmm::TakenOver = receive(&link, deadline)? else {
            return Err(AdoptError::Untrusted("does not use its new register page"));
        };
        let group = oom::watch_group_of(process.pid());
        let spawned_at_ns = record.spawned_at_ns;
        let own_group = group.as_ref().and_then(GuestGroup::adopt);
        let parts =
            Parts { process, link, doorbell, registers, spawned_at_ns, memory: record.memory, group, own_group };
        let guest = VmmGuest::new(parts)?;
        let size = FrameCount(standing.size_frames).min(record.memory);
        Ok(Adopted { guest, record: record.clone(), target, epoch, size })
    }
}

impl Adopted {
    /// Makes the handle own the process and its files.
    fn with_files(mut self, files: Arc<GuestFiles>) -> Self {
        self.guest.process.own();
        self.guest = self.guest.with_files(Some(files));
        self
    }
}

/// Connects to a guest's process.
fn connect(files: &GuestFiles) -> Result<(Link, Process), AdoptError> {
    let gone = || AdoptError::Gone(recorded_ending(files));
    let socket = match files.connect() {
        Ok(socket) => socket,
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => gone(),
                // Its queue is full.
                io::ErrorKind::WouldBlock => AdoptError::Silent,
                _ => AdoptError::SetUp(error),
            });
        }
    };
    let peer = sockopt::socket_peercred(&socket).map_err(io::Error::from)?;
    if peer.uid != geteuid() {
        return Err(AdoptError::Untrusted("belongs to another user"));
    }
    let process = Process::of_other(peer.pid).map_err(|_| gone())?;
    Ok((Link::new(socket), process))
}

/// Sends a message on a fresh connection, where there is room for it.
fn send(link: &Link, message: impl FnOnce(&Link) -> Result<(), LinkError>) -> Result<(), AdoptError> {
    // A candidate that was refused or took too long is hung up on.
    message(link).map_err(|_| AdoptError::Silent)
}

/// Receives a message before `deadline`.
fn receive<M: DeserializeOwned>(link: &Link, deadline: Moment) -> Result<M, AdoptError> {
    loop {
        match link.receive_plain(Patience::DoNotWait) {
            Ok(message) => return Ok(message),
            Err(LinkError::WouldBlock) => {}
            Err(LinkError::Closed) => return Err(AdoptError::Silent),
            Err(_) => return Err(AdoptError::Untrusted("says what makes no sense")),
        }
        let left = deadline.since(Moment::now());
        if left.is_zero() {
            return Err(AdoptError::Silent);
        }
        let patience = Timespec::try_from(left).map_err(|error| AdoptError::SetUp(io::Error::other(error)))?;
        let mut readable = [PollFd::new(link, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut readable, Some(&patience))).map_err(io::Error::from)?;
    }
}
