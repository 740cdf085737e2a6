//! The life of a VMM process.
//!
//! There are two threads, and one more for each disk: the vCPU's, and the main thread, which
//! listens to the supervisor, reclaims what the guest offers, measures resident memory and drains
//! the serial ring. This process ends with the supervisor: the link closes, and the kernel also
//! sends a signal. Standard input is the link (see `host::link`).

use std::env;
use std::fmt;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::thread::JoinHandleExt;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aerostat_abi::registers::BootStage;
use aerostat_abi::units::FrameCount;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use thiserror::Error;
use vmm_sys_util::eventfd::EventFd;

use super::balloon::{Balloon, BalloonHost};
use super::boot::{self, BootError};
use super::console::{self, Console};
use super::console_log::ConsoleLog;
use super::device_tree::Description;
use super::frame_map::FrameMap;
use super::inspection::{Inspector, Step};
use super::layout::{LayoutError, MemoryLayout};
use super::lock::lock;
use super::machine::{Doorbell, KvmError, Machine};
use super::memory::GuestMemory;
use super::reclamation::Reclamation;
use super::resident::ResidentMeter;
use super::target_watch::TargetWatch;
use super::throttle::Throttle;
use super::vcpu::{self, Devices, Ignored};
use super::virtio::{Bus, Quiescent, Workers};
use super::{ASK_BUILD, BUILD_ID};
use aerostat_link::clock::{Moment, monotonic_ns};
use aerostat_link::message::{Ending, FromVmm, Start, StartDescriptors, ToVmm};
use aerostat_link::{Link, LinkError, Patience, SharedPage};

/// How often resident memory is measured and the serial ring drained: while memory changes, and at
/// least. A sample costs some 20 us, so a guest that sleeps is sampled less and less often. Memory
/// that goes back to the host is measured at once in any case.
const LIVELY: Duration = Duration::from_millis(20);
const CALM: Duration = Duration::from_millis(320);
/// How often a stop is repeated until the vCPU's thread has seen it.
const STOP_AGAIN: Duration = Duration::from_millis(1);
/// How often a kick is repeated.
const KICK_AGAIN: Duration = Duration::from_millis(1);
/// Reports of pressure within this time after the last are dropped: the supervisor knows already,
/// and a guest must not keep it busy.
const PRESSURE_INTERVAL_NS: u64 = 5_000_000;
/// The vCPU's thread needs a small stack: its largest stack frame holds a batch.
const VCPU_STACK_BYTES: usize = 128 << 10;

/// Why a VMM process can't do its work.
#[derive(Debug, Error)]
enum ProcessError {
    #[error("this command is for the supervisor only: {0}")]
    NoSupervisor(LinkError),
    #[error("aerostat-vmm and aerostat are of different builds; build both, or install both anew")]
    OtherBuild,
    #[error("the supervisor's first message is not a start")]
    NoStart,
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("the guest's memory can't be mapped: {0}")]
    Memory(io::Error),
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error("the process can't be set up: {0}")]
    Io(#[from] io::Error),
    #[error("the process can't be set up: {0}")]
    System(#[from] Errno),
    #[error("the supervisor is gone")]
    SupervisorGone,
}

/// Runs one guest for the supervisor until it ends. This is the whole of a VMM process.
#[must_use]
pub fn process_main() -> ExitCode {
    let began_ns = monotonic_ns();
    let mut arguments = env::args().skip(1);
    let (name, build) = (arguments.next(), arguments.next());
    if build.is_none() && name.as_deref() == Some(ASK_BUILD) {
        println!("{BUILD_ID}");
        return ExitCode::SUCCESS;
    }
    match serve(build.as_deref(), began_ns) {
        Ok(()) => ExitCode::SUCCESS,
        // There is no process left to tell.
        Err(ProcessError::SupervisorGone) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("aerostat-vmm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the guest that a supervisor of this build names in its first message.
fn serve(build: Option<&str>, began_ns: u64) -> Result<(), ProcessError> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let link = Link::new(io::stdin().as_fd().try_clone_to_owned()?);
    if build != Some(BUILD_ID) {
        // The start message may be unreadable.
        return report(&link, Ending::failed(ProcessError::OtherBuild));
    }
    let (message, descriptors) = link.receive(Patience::Wait).map_err(ProcessError::NoSupervisor)?;
    let ToVmm::Start(start) = message else { return Err(ProcessError::NoStart) };
    let descriptors = StartDescriptors::from_received(descriptors, &start).ok_or(ProcessError::NoStart)?;
    let link = Arc::new(link);
    let ending = match run_guest(&link, &start, descriptors, began_ns) {
        Err(ProcessError::SupervisorGone) => return Err(ProcessError::SupervisorGone),
        Err(error) => Ending::failed(error),
        Ok(ending) => ending,
    };
    report(&link, ending)
}

/// Tells the supervisor how the guest ended.
fn report(link: &Link, ending: Ending) -> Result<(), ProcessError> {
    link.send(&FromVmm::Ended(ending), &[], Patience::Wait).map_err(|error| match error {
        LinkError::Closed => ProcessError::SupervisorGone,
        error => ProcessError::NoSupervisor(error),
    })
}

/// Builds the machine, starts it and runs it to its end.
fn run_guest(
    link: &Arc<Link>,
    start: &Start,
    descriptors: StartDescriptors,
    began_ns: u64,
) -> Result<Ending, ProcessError> {
    let registers = Arc::new(SharedPage::map(&descriptors.registers)?);
    registers.mark_boot(BootStage::Process, began_ns);
    let layout = MemoryLayout::new(FrameCount(start.memory_frames))?;
    let initial = FrameCount(start.initial_frames);
    let mut memory = GuestMemory::new(layout).map_err(ProcessError::Memory)?;
    let machine = Machine::new(&memory)?;
    registers.mark_boot(BootStage::Machine, monotonic_ns());

    let meter = Arc::new(ResidentMeter::new()?);
    let description = Description {
        memory: &layout,
        command_line: &start.command_line,
        tsc_hz: machine.tsc_hz(),
        virtio_devices: start.disks.len(),
    };
    let image = boot::prepare(&mut memory, &File::from(descriptors.image), initial, &description)?;
    let memory = Arc::new(memory);
    let disks = start.disks.iter().zip(descriptors.disks).map(|(disk, file)| disk.with_file(file)).collect();
    let virtio = Bus::with_disks(disks, &memory, |wires| machine.connect_device(wires).map_err(ProcessError::from))?;
    registers.mark_boot(BootStage::Loaded, monotonic_ns());

    let guest_bell = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)?;
    let work_left = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let neighbours = Neighbours {
        doorbell: machine.doorbell(guest_bell.try_clone()?),
        link: Arc::clone(link),
        last_pressure_ns: 0,
        has_complained: false,
        meter: Arc::clone(&meter),
        registers: Arc::clone(&registers),
        workers: virtio.workers(),
        work_left: Arc::clone(&work_left),
    };
    let ring = machine.serial_ring(*console::PORTS.start());
    let previous = descriptors.previous_log.map(File::from);
    let log = descriptors.log.map(|log| ConsoleLog::new(log.into(), previous));
    let console = Arc::new(Mutex::new(Console::new(log, ring)));
    let frames = FrameMap::new(layout, initial, image.frames());
    let guest_memory = Arc::clone(&memory);
    let balloon = Arc::new(Mutex::new(Balloon::new(memory, Arc::clone(&registers), neighbours, frames)));
    let target = TargetWatch::new(descriptors.doorbell, guest_bell, Arc::clone(&balloon));
    let reclamation = Reclamation::new(Arc::clone(&balloon), work_left);
    let measured = Arc::clone(&balloon);
    let devices = Devices {
        console: Arc::clone(&console),
        balloon,
        virtio,
        registers: Arc::clone(&registers),
        throttle: Throttle::new(),
        ignored: Ignored::default(),
        inspection: Arc::default(),
        memory: guest_memory,
    };
    VcpuThread::spawn(machine, image.entry, devices)?.see_through(link, target, reclamation, || {
        let dropped_lines = {
            let mut console = lock(&console);
            console.drain(Moment::now());
            console.dropped_lines()
        };
        registers.set_dropped_lines(dropped_lines);
        // Otherwise, what is released between the measurement and its publication would be missing
        // in what is published.
        let no_call = lock(&measured);
        let resident = meter.publish(&registers)?;
        drop(no_call);
        meter.publish_page_tables(&registers, resident)?;
        Ok(resident)
    })
}

/// The vCPU's thread as the main thread sees it.
struct VcpuThread {
    handle: JoinHandle<Result<Ending, KvmError>>,
    /// Becomes readable when the thread ends, by a panic too.
    ended: Arc<rustix::fd::OwnedFd>,
    inspector: Inspector,
}

impl VcpuThread {
    fn spawn(machine: Machine, entry: u64, mut devices: Devices<Neighbours>) -> Result<Self, ProcessError> {
        let ended = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let notice = EndNotice(Arc::clone(&ended));
        // The signal that stops the loop sets this flag.
        let stop = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&stop))?;
        let inspector = Inspector::new(Arc::clone(&devices.inspection));
        signal_hook::flag::register(signal_hook::consts::SIGUSR2, Arc::clone(&devices.inspection.is_wanted))?;
        let handle = thread::Builder::new().name("vcpu".to_owned()).stack_size(VCPU_STACK_BYTES).spawn(move || {
            let _notice = notice;
            let mut vcpu = machine.into_vcpu(entry)?;
            Ok(vcpu::run(&mut vcpu, &mut devices, &stop))
        })?;
        Ok(Self { handle, ended, inspector })
    }

    /// Serves the link and follows the target until the guest ends or has to end. Does `chores` at
    /// intervals that depend on whether their result changes.
    fn see_through(
        mut self,
        link: &Link,
        mut target: TargetWatch<Neighbours>,
        mut reclamation: Reclamation<Neighbours>,
        mut chores: impl FnMut() -> io::Result<FrameCount>,
    ) -> Result<Ending, ProcessError> {
        let (mut last, mut pace) = (FrameCount::ZERO, LIVELY);
        loop {
            let is_reclaiming = reclamation.advance();
            let patience = if target.follow() || is_reclaiming {
                Duration::ZERO
            } else {
                let now = chores()?;
                pace = if mem::replace(&mut last, now) == now { CALM.min(2 * pace) } else { LIVELY };
                pace
            };
            let patience = match self.inspector.advance() {
                Step::None => patience,
                Step::Kick => {
                    self.signal(libc::SIGUSR2);
                    patience.min(KICK_AGAIN)
                }
                Step::Answer(lines) => {
                    // A supervisor that has not read asks again.
                    let _ = link.send(&FromVmm::Inspected { lines }, &[], Patience::DoNotWait);
                    patience
                }
            };
            let mut sources = [
                PollFd::new(&self.ended, PollFlags::IN),
                PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN),
                PollFd::new(&target.doorbell, PollFlags::IN),
                PollFd::new(&reclamation.work_left, PollFlags::IN),
            ];
            match poll(&mut sources, Some(&timespec(patience))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [has_ended, is_spoken_to, is_rung, is_woken] = sources.map(|source| !source.revents().is_empty());
            if has_ended {
                return self.join();
            }
            if is_rung {
                target.rung();
            }
            if is_woken {
                reclamation.woken();
            }
            if is_spoken_to {
                match link.receive(Patience::DoNotWait) {
                    Ok((ToVmm::Stop, _)) => return self.stop(),
                    Ok((ToVmm::ReclaimBallooned, _)) => reclamation.begin(),
                    Ok((ToVmm::Inspect, _)) => self.inspector.ask(),
                    Ok((ToVmm::Start(_), _)) | Err(LinkError::WouldBlock) => {}
                    Err(_) => return Err(ProcessError::SupervisorGone),
                }
            }
        }
    }

    /// Gets the vCPU out of the guest and ends its thread. A signal that comes just before the
    /// processor enters the guest would be lost, so it is repeated.
    fn stop(self) -> Result<Ending, ProcessError> {
        while !self.handle.is_finished() {
            self.signal(libc::SIGUSR1);
            let mut ended = [PollFd::new(&self.ended, PollFlags::IN)];
            let _ = poll(&mut ended, Some(&timespec(STOP_AGAIN)));
        }
        self.join()
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: the thread is not joined yet, so its handle is valid even where it has ended.
        unsafe { libc::pthread_kill(self.handle.as_pthread_t(), signal) };
    }

    fn join(self) -> Result<Ending, ProcessError> {
        match self.handle.join() {
            Ok(ending) => Ok(ending?),
            Err(_) => Err(io::Error::other("the processor's thread panicked").into()),
        }
    }
}

/// Tells the main thread that the vCPU's thread ends, even by a panic.
struct EndNotice(Arc<rustix::fd::OwnedFd>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        // The counter can't be full: this is its only write.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// What the balloon device uses in this process.
#[derive(Debug)]
struct Neighbours {
    doorbell: Doorbell,
    link: Arc<Link>,
    last_pressure_ns: u64,
    has_complained: bool,
    meter: Arc<ResidentMeter>,
    registers: Arc<SharedPage>,
    workers: Workers,
    /// Wakes the main thread.
    work_left: Arc<rustix::fd::OwnedFd>,
}

impl Neighbours {
    /// Reports a problem to the user, once: a guest may cause it any number of times.
    fn complain(&mut self, what: fmt::Arguments<'_>) {
        if !mem::replace(&mut self.has_complained, true) {
            eprintln!("aerostat-vmm: {what}");
        }
    }
}

impl BalloonHost for Neighbours {
    fn connect_doorbell(&mut self, vector: u8) {
        // Without the interrupt the guest still samples its target once a second.
        if let Err(error) = self.doorbell.connect(vector) {
            self.complain(format_args!("the guest gets no balloon interrupt: {error}"));
        }
    }

    fn disconnect_doorbell(&mut self) {
        if let Err(error) = self.doorbell.disconnect() {
            self.complain(format_args!("the guest keeps its balloon interrupt: {error}"));
        }
    }

    fn pressure(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.last_pressure_ns) >= PRESSURE_INTERVAL_NS {
            self.last_pressure_ns = now_ns;
            // A full link means that the supervisor has not read the last ones yet.
            let _ = self.link.send(&FromVmm::Pressure, &[], Patience::DoNotWait);
        }
    }

    fn memory_released(&mut self) {
        // Where it can't be measured now, the main thread notices and ends the process.
        let _ = self.meter.publish(&self.registers);
    }

    fn work_left(&mut self) {
        // Full only where it was written 2^64 times and the main thread did not read it.
        let _ = rustix::io::write(&self.work_left, &1_u64.to_ne_bytes());
    }

    fn quiesce(&self) -> Option<Quiescent<'_>> {
        self.workers.hold()
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).expect("milliseconds fit any clock")
}
