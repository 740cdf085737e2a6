//! A guest in its own VMM process.
//!
//! The handle owns the process: dropping it ends the process and waits a moment for it, so there
//! are no zombies. The messages of the process and the way it ended become one stream of events.
//! The last event is [`GuestEvent::Ended`], sent once the process is gone and its memory is free.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use aerostat_abi::boot::MAX_COMMAND_LINE;
use aerostat_abi::registers::{Epoch, RegisterPage};
use aerostat_abi::requests::Resources;
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use aerostat_link::message::{FromVmm, Start, StartDescriptors, StartDisk, ToVmm};
use aerostat_link::{Doorbell, Link, LinkError, Patience, SharedPage};

use super::cgroup::Location;
use super::disk::{DiskError, Disks};
use super::{EndReason, Ending, GuestEvent, GuestHandle, News, Observation, reaper};
use super::{log_file, oom, vmm_program};
use crate::clock::{Moment, monotonic_ns};
use crate::token_bucket::{Allowance, TokenBucket};
use crate::vmm::{self, BUILD_ID, ImageError, KvmError, LayoutError, check_kvm};

/// Messages that a process may send: it reports pressure two hundred times a second at most, and
/// requests as often, and the supervisor may be behind.
const MESSAGES: Allowance = Allowance { per_second: 600, burst: 2000 };
/// Problems that a process may report: it reports one, and panics of its threads.
const MOST_PROBLEMS: u32 = 4;
/// How long a process may take to end after the link was closed: a process that ends closes it, and
/// then removes its machine.
const HANG_UP_PATIENCE: Duration = Duration::from_secs(2);
/// Seconds that dropping a handle waits for the process, which has been killed.
const DROP_PATIENCE_S: i64 = 1;

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// The guest's name, to be seen in the list of processes.
    pub name: String,
    /// The guest's image.
    pub image: PathBuf,
    /// All memory that the machine has.
    pub memory: FrameCount,
    /// Memory that the guest starts with; it is its first target too. The rest is the initial
    /// balloon.
    pub initial_grant: FrameCount,
    /// The guest's boot arguments.
    pub command_line: String,
    /// The guest's disks.
    pub disks: Disks,
    /// The file that the guest's console is written to. An existing file is kept as the previous
    /// generation (`host::log_file`).
    pub log: Option<PathBuf>,
    /// The program that runs it ([`vmm_program`]).
    pub program: PathBuf,
}

/// Why a guest was not started. The failed start leaves nothing behind.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The host can't run guests.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The image is invalid.
    #[error("image {} {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ImageError,
    },
    /// Memory has an impossible size.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The grant is beyond the guest's memory.
    #[error("the initial grant {grant} exceeds the guest's memory {memory}")]
    GrantTooLarge {
        /// The grant.
        grant: FrameCount,
        /// Memory.
        memory: FrameCount,
    },
    /// The rest of memory would not be a balloon of huge frames.
    #[error("the initial grant {0} is not in steps of 2 MiB")]
    GrantUneven(FrameCount),
    /// The grant is too small for the image.
    #[error("the initial grant {grant} does not hold the image, which ends at {needed}")]
    GrantTooSmall {
        /// The grant.
        grant: FrameCount,
        /// Where the image ends.
        needed: FrameCount,
    },
    /// The command line can't be passed on.
    #[error("the command line has a zero byte or more than {MAX_COMMAND_LINE} bytes")]
    CommandLine,
    /// A disk can't be had.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The log can't be opened.
    #[error("log {} can't be opened: {source}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process can't be started.
    #[error("the guest's process can't be started from {}: {source}", program.display())]
    Process {
        /// The executable.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that the two processes share can't be made.
    #[error("the guest's process can't be set up: {0}")]
    SetUp(#[from] io::Error),
}

/// A guest in a VMM process.
#[derive(Debug)]
pub struct VmmGuest {
    /// Present until the handle is dropped.
    child: Option<Child>,
    process: OwnedFd,
    link: Option<Link>,
    /// Messages that the process may still send.
    messages: TokenBucket,
    /// Problems that it may still report.
    problems_left: u32,
    doorbell: Doorbell,
    registers: SharedPage,
    /// The process's memory, as the kernel counts it.
    statm: File,
    /// Watches the link and the process.
    events: OwnedFd,
    spawned_at_ns: u64,
    progress: Progress,
    /// When its process closed the link.
    hung_up: Option<Moment>,
    /// Whether this process has ended it.
    is_killed: bool,
    /// Where the kernel counts its OOM kills.
    group: Option<Location>,
}

/// The stages of a guest's end.
#[derive(Debug)]
enum Progress {
    Running,
    /// How the guest ended is known, from the process or from its exit.
    Ending(Ending),
    /// The last event has been returned.
    Ended,
}

impl VmmGuest {
    /// Starts a guest. It runs when this returns, or soon.
    ///
    /// The process ends with the *thread* that calls this, as the kernel sends it a signal then:
    /// call it from one that lives as long as the supervisor does.
    ///
    /// # Errors
    /// Problems that the caller can fix are found before anything is started.
    pub fn spawn(config: &GuestConfig) -> Result<Self, SpawnError> {
        check_kvm()?;
        let image = check(config)?;
        let disks = config.disks.open()?;
        let log = config.log.as_deref().map(begin_log).transpose()?;
        let (log, previous_log) = log.unzip();
        let (registers, register_file) = SharedPage::create(config.initial_grant)?;
        let (doorbell, their_doorbell) = Doorbell::pair()?;
        let (link, their_link) = Link::pair()?;
        let (disks, disk_files) = disks.into_iter().map(<(StartDisk, OwnedFd)>::from).unzip();
        let descriptors = StartDescriptors {
            registers: register_file,
            doorbell: their_doorbell,
            image: image.into(),
            disks: disk_files,
            log,
            previous_log,
        };
        let start = Start {
            memory_frames: config.memory.0,
            initial_frames: config.initial_grant.0,
            command_line: config.command_line.clone(),
            disks,
        };
        // The start message waits in the link for the process.
        link.send(&ToVmm::Start(start), &descriptors.borrowed(), Patience::DoNotWait)
            .map_err(|error| SpawnError::SetUp(io::Error::other(error.to_string())))?;

        let group = oom::watch_group();
        let spawned_at_ns = monotonic_ns();
        let child = Command::new(&config.program)
            .arg0(vmm_program::NAME)
            .args([&config.name, BUILD_ID])
            .stdin(Stdio::from(their_link))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| SpawnError::Process { program: config.program.clone(), source })?;
        let mut child = Orphan(Some(child));
        // A process that is gone already needs no score.
        let _ = oom::expose_vmm(child.get().id());
        let statm = File::open(format!("/proc/{}/statm", child.get().id()))?;
        let (process, events) = watch(child.get(), &link)?;
        Ok(Self {
            child: Some(child.adopt()),
            process,
            link: Some(link),
            messages: TokenBucket::new(MESSAGES),
            problems_left: MOST_PROBLEMS,
            doorbell,
            registers,
            statm,
            events,
            spawned_at_ns,
            progress: Progress::Running,
            hung_up: None,
            is_killed: false,
            group,
        })
    }

    /// Returns the process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Returns the monotonic clock just before the process was started, to compare with the boot
    /// stages of the register page.
    #[must_use]
    pub const fn spawned_at_ns(&self) -> u64 {
        self.spawned_at_ns
    }

    /// Returns the page that is shared with the process.
    #[must_use]
    pub fn registers(&self) -> &RegisterPage {
        &self.registers
    }

    /// Sends a target in the next epoch: for a caller that does not count epochs.
    pub fn set_target(&self, target: FrameCount) {
        self.registers.set_target(target);
        self.doorbell.ring();
    }

    /// Receives the next message of the process. A message that ends the guest closes the link, and
    /// so does an invalid one.
    fn receive(&mut self) -> Option<GuestEvent> {
        match self.link.as_ref()?.receive_plain::<FromVmm>(Patience::DoNotWait) {
            Ok(FromVmm::Pressure) if self.messages.take(Moment::now()) => return Some(GuestEvent::Pressure),
            Ok(FromVmm::Requested) if self.messages.take(Moment::now()) => return Some(GuestEvent::Requested),
            Ok(FromVmm::Inspected { lines }) if self.messages.take(Moment::now()) => {
                return Some(GuestEvent::Inspected(lines));
            }
            Ok(FromVmm::Problem { what }) if self.problems_left > 0 => {
                self.problems_left -= 1;
                return Some(GuestEvent::Problem(what.replace(char::is_control, "\u{fffd}")));
            }
            Ok(FromVmm::Pressure | FromVmm::Requested | FromVmm::Inspected { .. } | FromVmm::Problem { .. }) => {
                self.part(Ending::failed("its process floods the link"));
            }
            Ok(FromVmm::Ended(ending)) => self.part(ending.into()),
            Err(LinkError::WouldBlock) => {}
            Err(LinkError::Closed) => {
                self.hung_up = Some(Moment::now());
                self.close_link();
            }
            Err(error) => self.part(Ending::failed(error)),
        }
        None
    }

    /// Notes how the guest ended. Its process has no more to report or to do.
    fn part(&mut self, ending: Ending) {
        if matches!(self.progress, Progress::Running) {
            self.progress = Progress::Ending(ending);
        }
        self.close_link();
        self.kill();
    }

    /// Ends a process that has closed its end of the link and does not end by itself: nothing that
    /// happens to its guest would be known.
    fn check_hung_up(&mut self) {
        if self.hung_up.is_some_and(|since| Moment::now().since(since) >= HANG_UP_PATIENCE) {
            self.hung_up = None;
            self.part(Ending::failed("its process closed the link and did not end"));
        }
    }

    /// A closed link would stay readable: from now on only the process is watched.
    fn close_link(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = epoll::delete(&self.events, &link);
            reaper::leave(link);
        }
    }

    /// Returns the last event, once.
    fn end(&mut self, status: ExitStatus) -> Option<GuestEvent> {
        self.close_link();
        let _ = epoll::delete(&self.events, &self.process);
        self.registers.set_resident(FrameCount::ZERO);
        match std::mem::replace(&mut self.progress, Progress::Ended) {
            Progress::Running => {
                Some(GuestEvent::Ended(Ending { reason: self.silent_end(status), details: Vec::new() }))
            }
            Progress::Ending(ending) => Some(GuestEvent::Ended(ending)),
            Progress::Ended => None,
        }
    }

    /// Returns how a process ended that did not report it.
    fn silent_end(&self, status: ExitStatus) -> EndReason {
        const KILL: i32 = Signal::KILL.as_raw();
        match status.signal() {
            Some(KILL) if !self.is_killed => {
                oom::explain_kill(self.group.as_ref()).map_or(EndReason::Killed(KILL), EndReason::KilledForMemory)
            }
            Some(signal) => EndReason::Killed(signal),
            None => EndReason::Failed(format!("its process ended without a word ({status})")),
        }
    }
}

impl GuestHandle for VmmGuest {
    fn observe(&self) -> Observation {
        Observation::of_page(&self.registers)
    }

    fn send_target(&mut self, target: FrameCount, epoch: Epoch) {
        self.registers.publish_target(target, epoch);
        self.doorbell.ring();
    }

    fn send_resources(&mut self, resources: &Resources, news: News) {
        self.registers.set_resources(resources);
        if news == News::Announce {
            self.doorbell.ring();
        }
    }

    fn measure_resident(&self) -> Option<FrameCount> {
        vmm::read_anonymous(&self.statm).ok()
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    fn next_event(&mut self) -> Option<GuestEvent> {
        if matches!(self.progress, Progress::Ended) {
            return None;
        }
        // Checked first, so that all that an ended process sent is in the link by now.
        let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(event) = self.receive() {
            return Some(event);
        }
        if status.is_none() {
            self.check_hung_up();
        }
        self.end(status?)
    }

    fn reclaim_ballooned(&mut self) {
        if let Some(link) = &self.link {
            // A process that is behind with its messages has some of these already.
            let _ = link.send(&ToVmm::ReclaimBallooned, &[], Patience::DoNotWait);
        }
    }

    fn inspect(&mut self) {
        if let Some(link) = &self.link {
            // A process that is behind with its messages does not answer.
            let _ = link.send(&ToVmm::Inspect, &[], Patience::DoNotWait);
        }
    }

    fn request_stop(&mut self) {
        match &self.link {
            // A process that never reads is killed when its grace period ends.
            Some(link) => drop(link.send(&ToVmm::Stop, &[], Patience::DoNotWait)),
            // It can't be asked.
            None => self.kill(),
        }
    }

    fn kill(&mut self) {
        self.is_killed = true;
        // A process that is gone already needs no signal.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

impl Drop for VmmGuest {
    fn drop(&mut self) {
        self.kill();
        self.close_link();
        if let Some(mut child) = self.child.take() {
            let mut end = [PollFd::new(&self.process, PollFlags::IN)];
            let patience = Timespec { tv_sec: DROP_PATIENCE_S, tv_nsec: 0 };
            let has_ended = rustix::io::retry_on_intr(|| poll(&mut end, Some(&patience)));
            if has_ended.is_ok_and(|ended| ended > 0) {
                let _ = child.wait();
            } else {
                reaper::leave(Orphan(Some(child)));
            }
        }
    }
}

/// A process that no handle watches yet: killed and reaped when dropped.
struct Orphan(Option<Child>);

impl Orphan {
    fn get(&self) -> &Child {
        self.0.as_ref().expect("adopted last")
    }

    fn adopt(&mut self) -> Child {
        self.0.take().expect("adopted once")
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Checks all that can be checked without a process; returns the open image.
fn check(config: &GuestConfig) -> Result<File, SpawnError> {
    let GuestConfig { memory, initial_grant: grant, .. } = *config;
    vmm::check_size(memory)?;
    if grant > memory {
        return Err(SpawnError::GrantTooLarge { grant, memory });
    }
    if !grant.0.is_multiple_of(HUGE_FRAMES) {
        return Err(SpawnError::GrantUneven(grant));
    }
    if config.command_line.contains('\0') || config.command_line.len() > MAX_COMMAND_LINE {
        return Err(SpawnError::CommandLine);
    }
    let bad_image = |source| SpawnError::Image { path: config.image.clone(), source };
    let image = File::open(&config.image).map_err(|error| bad_image(error.into()))?;
    let info = vmm::check_file(&image, memory).map_err(bad_image)?;
    let needed = FrameCount::from_bytes_ceil(info.end);
    if grant < needed {
        return Err(SpawnError::GrantTooSmall { grant, needed });
    }
    Ok(image)
}

/// Creates a new log, and opens the file for its contents when it is full.
fn begin_log(path: &Path) -> Result<(OwnedFd, OwnedFd), SpawnError> {
    let failed = |source| SpawnError::Log { path: path.to_owned(), source };
    let log = log_file::begin(path).map_err(failed)?;
    Ok((log.into(), log_file::open_previous(path).map_err(failed)?.into()))
}

/// Returns a descriptor of the process, and one that becomes readable when the process sends or
/// ends.
fn watch(child: &Child, link: &Link) -> io::Result<(OwnedFd, OwnedFd)> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&events, link, EventData::new_u64(0), EventFlags::IN)?;
    epoll::add(&events, &process, EventData::new_u64(1), EventFlags::IN)?;
    Ok((process, events))
}
