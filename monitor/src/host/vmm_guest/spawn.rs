//! Starting a guest.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use aerostat_abi::boot::MAX_COMMAND_LINE;
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
use aerostat_link::message::{Start, StartDescriptors, StartDisk, StartHostSwap, SuccessionDescriptors, ToVmm};
use aerostat_link::{Doorbell, Link, Patience, SharedPage};
use thiserror::Error;

use super::last_words;
use super::namespaces::{self, OwnNumbers};
use super::record::{GuestRecord, Succession};
use super::{Parts, VmmGuest};
use crate::clock::monotonic_ns;
use crate::host::cgroup::PoolGroup;
use crate::host::disk::{DiskError, Disks, HostSwap};
use crate::host::process::Process;
use crate::host::run_directory::GuestFiles;
use crate::host::{capacity, disk, log_file, oom, vmm_program};
use crate::vmm::{self, BUILD_ID, ImageError, KvmError, LayoutError};

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// The guest's name, to be seen in the list of processes.
    pub name: String,
    /// The guest's image.
    pub image: PathBuf,
    /// All memory that the machine has.
    pub memory: FrameCount,
    /// The first target. The guest starts with it, up to 1 GiB, and gets more as soon as it runs.
    /// The rest is the initial balloon.
    pub initial_grant: FrameCount,
    /// The guest's boot arguments.
    pub command_line: String,
    /// The guest's disks.
    pub disks: Disks,
    /// The file that the guest may be paged to; `None` for a guest that is not to be paged.
    pub host_swap: Option<HostSwap>,
    /// The file that the guest's console is written to. An existing file is kept as the previous
    /// generation (`host::log_file`).
    pub log: Option<PathBuf>,
    /// Where its process gets a control group of its own; `None` where there are none.
    pub pool: Option<Arc<PoolGroup>>,
    /// The program that runs it ([`vmm_program`]).
    pub program: PathBuf,
    /// What another supervisor finds the guest by; `None` if the guest ends with its supervisor.
    pub succession: Option<Arc<Succession>>,
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
    /// A process of an earlier supervisor still runs a guest of this name.
    #[error("a guest of this name still runs in a process of an earlier supervisor; wait until its lease has ended")]
    StillRuns,
    /// What another supervisor finds the guest by can't be made.
    #[error("the guest's files in the run directory can't be written: {0}")]
    RunDirectory(io::Error),
    /// Something that the two processes share can't be made.
    #[error("the guest's process can't be set up: {0}")]
    SetUp(#[from] io::Error),
}

impl VmmGuest {
    /// Starts a guest. It runs when this returns, or soon.
    ///
    /// # Errors
    /// Problems that the caller can fix are found before anything is started.
    pub fn spawn(config: &GuestConfig) -> Result<Self, SpawnError> {
        let features = vmm::features()?.to_vec();
        let image = check(config)?;
        let disks = config.disks.open()?;
        let (host_swap, unpaged) = open_host_swap(config);
        let (host_swap, host_swap_file) = host_swap.unzip();
        let log = config.log.as_deref().map(begin_log).transpose()?;
        let (log, previous_log) = log.unzip();
        let (registers, register_file) = SharedPage::create(config.initial_grant)?;
        let (doorbell, their_doorbell) = Doorbell::pair()?;
        let (link, their_link) = Link::pair()?;
        let (disks, disk_files) = disks.into_iter().map(<(StartDisk, OwnedFd)>::from).unzip();
        let spawned_at_ns = monotonic_ns();
        let succession = config.succession.as_deref();
        let heir = succession.map(|succession| Heir::prepare(succession, config, spawned_at_ns)).transpose()?;
        let (files, succession_descriptors) = heir.map(|heir| (heir.files, heir.descriptors)).unzip();
        let descriptors = StartDescriptors {
            registers: register_file,
            doorbell: their_doorbell,
            image: image.into(),
            disks: disk_files,
            host_swap: host_swap_file,
            succession: succession_descriptors,
            namespaces: namespaces::shared(&config.program)?,
            log,
            previous_log,
        };
        let start = Start {
            memory_frames: config.memory.0,
            initial_frames: config.initial_grant.min(vmm::ALWAYS_ATTACHED).0,
            command_line: config.command_line.clone(),
            features,
            disks,
            host_swap,
            lease: succession.map(|succession| succession.lease),
            namespaces: descriptors.namespaces.len(),
        };
        let limit = capacity::vmm_limit(config.initial_grant, config.memory);
        let own_group = config.pool.as_ref().map(|pool| pool.guest(&config.name, limit)).transpose()?;
        let (last_words, standard_error) = last_words::pipe()?;
        let mut command = Command::new(&config.program);
        command
            .arg0(vmm_program::NAME)
            .args([&config.name, BUILD_ID])
            .env_clear()
            .stdin(Stdio::from(their_link))
            // What it has to say comes over the link. A detached fleet must not hold the standard
            // error of the command that started it.
            .stdout(Stdio::null())
            .stderr(Stdio::from(standard_error));
        let own_numbers = OwnNumbers::begin();
        let child = match &own_group {
            Some(group) => group.spawn(&mut command),
            None => command.spawn(),
        };
        drop(own_numbers);
        let child = child.map_err(|source| SpawnError::Process { program: config.program.clone(), source })?;
        let process = Process::of_child(child)?;
        // The process loads itself meanwhile. It touches memory for the guest only after the start
        // message, and by then is in its control group.
        link.send(&ToVmm::Start(start), &descriptors.borrowed(), Patience::DoNotWait)
            .map_err(|error| SpawnError::SetUp(io::Error::other(error.to_string())))?;
        // The first look-up takes as long as a tenth of a start.
        let group = match &own_group {
            Some(group) => oom::watch(group.location().clone()),
            None => oom::watch_group(),
        };
        let mut guest = Self::new(Parts {
            process,
            link,
            doorbell,
            registers,
            spawned_at_ns,
            memory: config.memory,
            group,
            own_group,
        })?;
        guest.unpaged = unpaged;
        let guest = guest.with_last_words(last_words);
        Ok(guest.with_files(files.map(Prepared::keep)))
    }
}

/// A guest's files that no handle has yet: removed when dropped.
struct Prepared(Option<Arc<GuestFiles>>);

impl Prepared {
    fn keep(mut self) -> Arc<GuestFiles> {
        self.0.take().expect("kept once")
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(files) = self.0.take() {
            files.remove();
        }
    }
}

/// What another supervisor finds a guest by, made before its process.
struct Heir {
    files: Prepared,
    descriptors: SuccessionDescriptors,
}

impl Heir {
    fn prepare(succession: &Succession, config: &GuestConfig, spawned_at_ns: u64) -> Result<Self, SpawnError> {
        let listener = succession.files.bind().map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => SpawnError::StillRuns,
            _ => SpawnError::RunDirectory(error),
        })?;
        let files = Prepared(Some(Arc::clone(&succession.files)));
        let ended = succession.files.create_ended().map_err(SpawnError::RunDirectory)?;
        let record = GuestRecord { spec: succession.spec.clone(), memory: config.memory, spawned_at_ns };
        record.write(&succession.files).map_err(SpawnError::RunDirectory)?;
        Ok(Self { files, descriptors: SuccessionDescriptors { listener, ended: ended.into() } })
    }
}

/// Makes the guest's host swap file. Without one the guest runs and can't be paged: then also
/// returns why.
fn open_host_swap(config: &GuestConfig) -> (Option<(StartHostSwap, OwnedFd)>, Option<String>) {
    let Some(HostSwap { faults }) = &config.host_swap else { return (None, None) };
    match disk::make_host_swap(config.memory) {
        Ok(file) => (Some((StartHostSwap { faults: faults.clone() }, file.into())), None),
        Err(error) => (None, Some(format!("this guest can't be paged by the host: {error}"))),
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
