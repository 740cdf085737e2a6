//! Starting a QEMU for an image of ours, and taking one over from an earlier supervisor.
//!
//! A QEMU outlives a supervisor that is killed, without a lease: it can't be told to end by itself.
//! The next supervisor of the fleet finds its socket in the run directory and takes it over. Only
//! its exit code is lost then, which the kernel tells the parent alone.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use rustix::process::Pid;
use thiserror::Error;

use super::attach::{Watched, find_out};
use super::command_line::{Accelerator, Description, Drive, arguments};
use super::complaints::Complaints;
use super::connection::{ConnectError, Socket};
use super::guest::{End, Ownership, Parts, Possession, QemuGuest};
use super::tracker::{Owner, Tracker};
use super::worker::{Desk, Worker};
use crate::clock::{Moment, monotonic_ns};
use crate::fleet::GuestSpec;
use crate::host::cgroup::{GuestGroup, Location, PoolGroup};
use crate::host::disk::{DiskError, OpenDisk};
use crate::host::process::{Exit, Process};
use crate::host::run_directory::GuestFiles;
use crate::host::vmm_guest::GuestRecord;
use crate::host::{Origin, capacity, log_file, oom};
use crate::vmm;

/// The program that is started.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// How long a QEMU that has closed its socket may take to end.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// What to start.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// The guest.
    pub spec: GuestSpec,
    /// Its first target. The guest comes to it as soon as its driver runs.
    pub target: FrameCount,
    /// The file that the guest's console is written to.
    pub log: Option<PathBuf>,
    /// Where QEMU is controlled, and what another supervisor finds the guest by.
    pub files: Arc<GuestFiles>,
    /// Where its process gets a control group of its own; `None` where there are none.
    pub pool: Option<Arc<PoolGroup>>,
    /// The program, for [`PROGRAM`] where it is another one.
    pub program: PathBuf,
}

/// Why a guest was not started, or not taken over.
#[derive(Debug, Error)]
pub enum QemuError {
    /// There is no QEMU.
    #[error("{} is not installed; `sudo apt-get install qemu-system-x86` does that", .0.display())]
    Missing(PathBuf),
    /// It can't be started.
    #[error("{} can't be started: {source}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended.
    #[error("QEMU ended at its start ({how}): {}", .why.as_deref().unwrap_or("it did not say why"))]
    Ended {
        /// How.
        how: String,
        /// What it wrote last.
        why: Option<String>,
    },
    /// The QEMU of an earlier supervisor has ended.
    #[error("its QEMU has ended")]
    Gone,
    /// It can't be controlled.
    #[error("QEMU can't be controlled: {0}")]
    Control(String),
    /// A QEMU of an earlier supervisor still runs the guest.
    #[error("a QEMU of an earlier supervisor still runs a guest of this name; end it first")]
    StillRuns,
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
    /// Something of the system can't be had.
    #[error("QEMU can't be set up: {0}")]
    SetUp(#[from] io::Error),
}

impl QemuGuest {
    /// Starts a guest. For a thread that may wait: it returns when QEMU runs the guest.
    ///
    /// # Errors
    ///
    /// [`QemuError`]. The failed start leaves nothing behind.
    pub fn spawn(config: &QemuConfig) -> Result<Self, QemuError> {
        let QemuConfig { spec, target, log, files, pool, program } = config;
        let disks = spec.disks.open()?;
        if let Some(path) = log {
            log_file::begin(path).map_err(|source| QemuError::Log { path: path.clone(), source })?;
        }
        let listener = files.listen_monitor().map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => QemuError::StillRuns,
            _ => error.into(),
        })?;
        let complaints = Complaints::new()?;
        let drives: Vec<_> = disks.iter().map(drive).collect();
        let line = arguments(Description {
            name: &spec.name,
            image: &spec.image,
            memory: spec.limits.max,
            command_line: &spec.command_line,
            drives: &drives,
            log: log.as_deref(),
            accelerator: accelerator(),
        });
        let record = GuestRecord { spec: spec.clone(), memory: spec.limits.max, spawned_at_ns: monotonic_ns() };
        let mut command = Command::new(program);
        command
            .args(line)
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .stderr(complaints.writer()?)
            .process_group(0);
        use_small_pages(&mut command);
        let limit = capacity::qemu_limit(spec.limits.max);
        let group = pool.as_ref().map(|pool| pool.guest(&spec.name, limit)).transpose()?;
        let child = match &group {
            Some(group) => group.spawn(&mut command),
            None => command.spawn(),
        };
        let child = child.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => QemuError::Missing(program.clone()),
            _ => QemuError::Program { program: program.clone(), source },
        })?;
        let pid = Pid::from_child(&child);
        let mut process = Process::of_child(child)?;
        // A process that is gone already needs no score.
        let _ = oom::expose_vmm(process.pid());
        let found =
            Socket::Of(Arc::clone(files)).connect(Moment::now()).map_err(|error| error.to_string()).and_then(|open| {
                find_out(open, Tracker::new(Owner::Us { first: *target })).map_err(|error| error.to_string())
            });
        let (tracker, connection) = match found {
            Ok(found) => found,
            Err(why) => {
                files.remove();
                return Err(ended(&mut process, &complaints).unwrap_or(QemuError::Control(why)));
            }
        };
        record.write(files)?;
        let possession = Possession {
            files: Some(Arc::clone(files)),
            _disks: disks,
            complaints: Some(complaints),
            end: End::Open,
            _group: group,
        };
        let watched = Watched::of(process, pid)?;
        Self::begin(Begun { possession, watched, pid, origin: Origin::Started, log: log.clone() }, tracker, connection)
    }

    /// Takes a guest over from an earlier supervisor. For a thread that may wait.
    ///
    /// # Errors
    ///
    /// [`QemuError`]. A QEMU that can't be controlled is killed.
    pub fn adopt(files: Arc<GuestFiles>) -> Result<Self, QemuError> {
        let control = |why: &dyn ToString| QemuError::Control(why.to_string());
        let open = Socket::Of(Arc::clone(&files)).connect(Moment::now()).map_err(|error| match error {
            ConnectError::Missing | ConnectError::Refused => QemuError::Gone,
            _ => control(&error),
        })?;
        let pid = open.peer().ok_or_else(|| control(&"its process is not known"))?;
        let mut process = Process::of_other(pid)?;
        process.own();
        let (tracker, connection) = find_out(open, Tracker::new(Owner::Others)).map_err(|error| control(&error))?;
        let machine = tracker.machine().unwrap_or_default();
        let origin = Origin::Found { machine, size: tracker.size().unwrap_or(machine) };
        let _group = Location::of_process(process.pid()).ok().as_ref().and_then(GuestGroup::adopt);
        let possession =
            Possession { files: Some(files), _disks: Vec::new(), complaints: None, end: End::Open, _group };
        let watched = Watched::of(process, pid)?;
        Self::begin(Begun { possession, watched, pid, origin, log: None }, tracker, connection)
    }

    fn begin(begun: Begun, tracker: Tracker, connection: super::connection::Connection) -> Result<Self, QemuError> {
        let Begun { possession, watched: Watched { process, status }, pid, origin, log } = begun;
        let status = Some(Arc::new(status));
        let desk = Arc::new(Desk::new(tracker.observation())?);
        let socket = Socket::Of(Arc::clone(possession.files.as_ref().expect("it has its files")));
        let worker =
            Worker { socket, process: Some(pid), tracker, desk: Arc::clone(&desk), status: status.clone(), log };
        worker.start(connection)?;
        let ownership = Ownership::Ours(possession);
        Ok(Self::new(Parts { desk, ownership, origin, process: Some(process), status })?)
    }
}

/// A machine of ours that runs and can be controlled.
struct Begun {
    possession: Possession,
    watched: Watched,
    pid: Pid,
    origin: Origin,
    log: Option<PathBuf>,
}

/// Keeps the host from backing the guest with huge pages. QEMU releases ballooned memory in pages
/// of 4 KiB, and a huge page that is released in part stays on the host as a whole for a while.
fn use_small_pages(command: &mut Command) {
    let disable = || {
        // SAFETY: the call takes numbers only, and changes nothing but the calling process, which
        // is the child. Where the kernel refuses it, releases take longer to count.
        let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1_u64, 0_u64, 0_u64, 0_u64) };
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one system call: it allocates nothing and
    // takes no lock.
    unsafe { command.pre_exec(disable) };
}

/// Returns how QEMU ended, if it did.
fn ended(process: &mut Process, complaints: &Complaints) -> Option<QemuError> {
    let deadline = Moment::now().after(END_PATIENCE);
    let exit = loop {
        match process.exit() {
            None if Moment::now() < deadline => thread::sleep(Duration::from_millis(5)),
            exit => break exit?,
        }
    };
    let how = match exit {
        Exit::Status(status) => status.to_string(),
        Exit::Unknown => "status unknown".to_owned(),
    };
    Some(QemuError::Ended { how, why: complaints.last() })
}

/// Returns a disk as QEMU opens it: by this process's descriptor, since a swap file has no name.
fn drive(disk: &OpenDisk) -> Drive {
    let path = format!("/proc/{}/fd/{}", std::process::id(), File::as_raw_fd(&disk.file));
    Drive { role: disk.role, mode: disk.mode, path }
}

/// Returns what emulates processors on this host. A KVM that is software itself emulates ring 0 for
/// QEMU too, and not all that QEMU asks of it: there QEMU's own emulation serves better.
fn accelerator() -> Accelerator {
    static FOUND: OnceLock<Accelerator> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        let has_virtualization = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
        if has_virtualization && vmm::check_kvm().is_ok() { Accelerator::Kvm } else { Accelerator::Emulation }
    })
}

/// Returns the first line of what `program --version` says.
///
/// # Errors
///
/// [`QemuError`] where there is no such program, or it does not say its version.
pub fn version(program: &str) -> Result<String, QemuError> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(|source| {
        let program = PathBuf::from(program);
        match source.kind() {
            io::ErrorKind::NotFound => QemuError::Missing(program),
            _ => QemuError::Program { program, source },
        }
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned).ok_or_else(|| QemuError::Control("it does not say its version".into()))
}
