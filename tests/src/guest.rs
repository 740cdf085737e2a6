//! One running guest, under KVM or QEMU, and the functions with which a test waits for it.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aerostat::host::disk::{DataDisk, DiskFaults, HostSwap, SwapDisk};
use aerostat::host::{EndReason, Ending, GuestHandle};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::{BootStage, Facts, PagingFacts, RegisterPage};
use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::environment::{app_image, guest_image};
use crate::kvm::KvmGuest;
use crate::log_file::LogFile;
use crate::qemu::QemuGuest;
use crate::qmp::Qmp;

/// How long a wait may take. It is far longer than anything needs, since a loaded machine may
/// emulate slowly.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The time between two probes of a wait.
pub(crate) const POLL: Duration = Duration::from_millis(2);

/// The machine that a guest runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Aerostat's own VMM.
    Kvm,
    /// QEMU's `microvm` with its software emulation, which follows the architecture manual closely:
    /// without ACPI, with devices over MMIO.
    Qemu,
    /// QEMU's `microvm` with ACPI, and devices over MMIO.
    MicrovmAcpi,
    /// QEMU's `microvm` with ACPI, and devices over PCI without ports.
    MicrovmPci,
    /// QEMU's `q35` with devices over PCI, which interrupt by messages.
    Q35,
    /// QEMU's `pc` with devices over PCI, which interrupt by messages.
    Pc,
    /// QEMU's `pc` with devices over PCI, which interrupt through pins that they share.
    PcPins,
}

/// What a machine under QEMU lacks, as those of other monitors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The serial port; a virtio console takes its place.
    SerialPort,
    /// Serial numbers of disks; the swap disk has a swap area, as `mkswap` makes it.
    SerialNumbers,
}

/// A guest to boot.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) image: PathBuf,
    pub(crate) memory: FrameCount,
    pub(crate) grant: FrameCount,
    pub(crate) command_line: String,
    pub(crate) disk: Option<DataDisk>,
    pub(crate) swap: Option<SwapDisk>,
    pub(crate) host_swap: Option<HostSwap>,
    pub(crate) qemu: QemuOptions,
}

/// What a plan says of a machine under QEMU only.
#[derive(Clone, Debug, Default)]
pub(crate) struct QemuOptions {
    /// The properties of its virtio-balloon device; `None` for none.
    pub(crate) balloon: Option<String>,
    pub(crate) way_out: WayOut,
    pub(crate) lacks: Vec<Lack>,
    /// The most requests a second to the swap disk.
    pub(crate) swap_iops: Option<u32>,
}

/// How a machine under QEMU ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WayOut {
    /// By the exit port, with a code.
    #[default]
    ExitPort,
    /// Without an exit port: by what else the machine offers.
    Machine,
    /// As with the exit port, and a reset boots the guest again.
    Reboot,
}

impl Plan {
    /// Makes a plan for the test guest `name` with 64 MiB, all granted.
    #[must_use]
    pub fn test_guest(name: &str) -> Self {
        Self::image(guest_image(name))
    }

    /// Makes a plan for the application `name` with 64 MiB, all granted.
    #[must_use]
    pub fn app(name: &str) -> Self {
        Self::image(app_image(name))
    }

    fn image(image: PathBuf) -> Self {
        let memory = FrameCount::from_mib(64);
        Self {
            image,
            memory,
            grant: memory,
            command_line: String::new(),
            disk: None,
            swap: None,
            host_swap: None,
            qemu: QemuOptions::default(),
        }
    }

    /// Sets the memory of the machine, all of it granted.
    #[must_use]
    pub fn memory_mib(self, mib: u64) -> Self {
        let memory = FrameCount::from_mib(mib);
        Self { memory, grant: memory, ..self }
    }

    /// Sets the first target, which is below the memory of the machine.
    #[must_use]
    pub fn grant_mib(self, mib: u64) -> Self {
        Self { grant: FrameCount::from_mib(mib), ..self }
    }

    /// Sets the command line.
    #[must_use]
    pub fn command_line(self, command_line: &str) -> Self {
        Self { command_line: command_line.to_owned(), ..self }
    }

    /// Adds a data disk. QEMU does not simulate a host whose disk is full.
    #[must_use]
    pub fn disk(self, disk: DataDisk) -> Self {
        Self { disk: Some(disk), ..self }
    }

    /// Adds an empty swap disk.
    #[must_use]
    pub fn swap_mib(self, mib: u64) -> Self {
        self.swap(FrameCount::from_mib(mib), DiskFaults::default())
    }

    /// Adds an empty swap disk that has faults, with the same limit under QEMU as [`Self::disk`].
    #[must_use]
    pub fn swap(self, size: FrameCount, faults: DiskFaults) -> Self {
        Self { swap: Some(SwapDisk { size, faults }), ..self }
    }

    /// Has a guest in a VMM process paged by its host, to a file with these faults.
    #[must_use]
    pub fn host_swap(self, faults: DiskFaults) -> Self {
        Self { host_swap: Some(HostSwap { faults }), ..self }
    }

    /// Adds a virtio-balloon device with these properties, as QEMU names them. A machine of
    /// Aerostat's own VMM has its balloon port in any case.
    #[must_use]
    pub fn balloon(mut self, properties: &str) -> Self {
        self.qemu.balloon = Some(properties.to_owned());
        self
    }

    /// Sets how a machine under QEMU ends.
    #[must_use]
    pub fn way_out(mut self, way_out: WayOut) -> Self {
        self.qemu.way_out = way_out;
        self
    }

    /// Limits the requests to the swap disk under QEMU.
    #[must_use]
    pub fn swap_iops(mut self, iops: u32) -> Self {
        self.qemu.swap_iops = Some(iops);
        self
    }

    /// Takes something from the machine, if it is one of QEMU's.
    #[must_use]
    pub fn without(mut self, lack: Lack) -> Self {
        self.qemu.lacks.push(lack);
        self
    }

    /// Boots the guest.
    ///
    /// # Panics
    /// When the machine does not start.
    #[must_use]
    pub fn boot(&self, machine: Machine) -> Guest {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let log = LogFile::new(folder.path().join("serial.log"));
        let runner = match machine {
            Machine::Kvm => Runner::Kvm(Box::new(KvmGuest::start(self, log.path()))),
            machine => Runner::Qemu(QemuGuest::start(self, machine, folder.path(), log.path())),
        };
        Guest { runner, log, ending: None, image: self.image.clone(), folder }
    }
}

/// A guest that runs or has ended. It is ended when the value is dropped.
#[derive(Debug)]
pub struct Guest {
    runner: Runner,
    log: LogFile,
    ending: Option<Ending>,
    image: PathBuf,
    folder: TempDir,
}

#[derive(Debug)]
enum Runner {
    Kvm(Box<KvmGuest>),
    Qemu(QemuGuest),
}

impl Guest {
    /// Returns what the guest has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Returns what the swap disk holds.
    ///
    /// # Panics
    /// For a guest that is not under QEMU, and for one without swap.
    #[must_use]
    pub fn swap_disk(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("swap")).expect("a guest under QEMU has its swap disk in its folder")
    }

    /// Waits for a line that contains `text`; returns it.
    ///
    /// # Panics
    /// When the deadline passes or the guest ends first.
    #[track_caller]
    pub fn wait_for_line(&mut self, text: &str) -> String {
        self.wait_for(&format!("the line {text:?}"), |guest| guest.log.line_with(text))
    }

    /// Waits until the facts in the register page are `wanted`; returns them.
    ///
    /// # Panics
    /// When the deadline passes or the guest ends first, and for a guest that is not under KVM.
    #[track_caller]
    pub fn wait_for_facts(&mut self, what: &str, wanted: impl Fn(&Facts) -> bool) -> Facts {
        self.wait_for(what, |guest| Some(guest.facts()).filter(&wanted))
    }

    /// Waits until the guest's last report is `wanted`; returns it.
    ///
    /// # Panics
    /// As [`Self::wait_for_facts`].
    #[track_caller]
    pub fn wait_for_report(&mut self, what: &str, wanted: impl Fn(&Statistics) -> bool) -> Statistics {
        self.wait_for(what, |guest| Some(guest.registers().statistics()).filter(&wanted))
    }

    /// Waits until the guest's last report says that a thread waits for memory.
    ///
    /// # Panics
    /// As [`Self::wait_for_facts`].
    #[track_caller]
    pub fn wait_until_memory_is_wanted(&mut self) {
        let is_wanted = |guest: &Self| (guest.registers().statistics().wanted_bytes > 0).then_some(());
        self.wait_for("a report that memory is wanted", is_wanted);
    }

    /// Asks where the guest is; returns the lines of the answer.
    ///
    /// # Panics
    /// For a guest that is not under KVM, and when it does not answer in time.
    #[track_caller]
    pub fn inspect(&mut self) -> Vec<String> {
        self.kvm_mut().inspect();
        self.wait_for("the answer to an inspection", |guest| guest.kvm().inspected().map(<[String]>::to_vec))
    }

    /// Sends a signal to the process that runs the guest.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process has a number");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("sending {signal:?} to {pid:?}: {error}"));
    }

    /// Waits until the guest has ended; returns the reason.
    ///
    /// # Panics
    /// When the deadline passes.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> EndReason {
        let start = Instant::now();
        while !self.has_ended() {
            self.check(start.elapsed() < DEADLINE, "it did not end in time");
            thread::sleep(POLL);
        }
        self.ending.as_ref().expect("the loop ended because there is an ending").reason.clone()
    }

    /// Returns whether the guest has ended.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        if self.ending.is_none() {
            self.ending = match &mut self.runner {
                Runner::Kvm(guest) => guest.ending(),
                Runner::Qemu(guest) => guest.ending(),
            };
        }
        self.ending.is_some()
    }

    /// Waits for the end and asserts that the guest exited with `wanted`.
    ///
    /// # Panics
    /// When the deadline passes or the guest ends otherwise.
    #[track_caller]
    pub fn expect_exit(&mut self, wanted: GuestExit) {
        let reason = self.wait_for_end();
        self.check(reason == EndReason::Exited(wanted), &format!("it ended with {reason:?}, not with {wanted:?}"));
    }

    /// Asserts that the guest has logged a line that contains `text`.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn expect_logged(&self, text: &str) {
        self.check(self.log.line_with(text).is_some(), &format!("no line contains {text:?}"));
    }

    /// Panics with `complaint` and all that is known about the guest unless `holds`.
    ///
    /// # Panics
    /// Unless `holds`.
    #[track_caller]
    pub fn check(&self, holds: bool, complaint: &str) {
        if !holds {
            self.fail(complaint);
        }
    }

    /// Returns the register page.
    ///
    /// # Panics
    /// For a guest that is not under KVM.
    #[must_use]
    pub fn registers(&self) -> &RegisterPage {
        self.kvm().handle().registers()
    }

    /// Returns the facts that the register page has now.
    ///
    /// # Panics
    /// For a guest that is not under KVM.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.registers().facts()
    }

    /// Returns the time from before the spawn to `stage` if the guest has reached it.
    ///
    /// # Panics
    /// For a guest that is not under KVM.
    #[must_use]
    pub fn since_spawn(&self, stage: BootStage) -> Option<Duration> {
        self.kvm().since_spawn(stage)
    }

    /// Returns the number of the process that runs the guest.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match &self.runner {
            Runner::Kvm(guest) => guest.handle().pid(),
            Runner::Qemu(guest) => guest.pid(),
        }
    }

    /// Connects to QEMU's monitor, once it listens.
    ///
    /// # Panics
    /// For a guest that is not under QEMU, and when the deadline passes or the guest ends first.
    #[must_use]
    #[track_caller]
    pub fn qmp(&mut self) -> Qmp {
        self.wait_for("a monitor", |guest| match &guest.runner {
            Runner::Kvm(_) => panic!("a guest under KVM has no QMP"),
            Runner::Qemu(guest) => guest.qmp().ok(),
        })
    }

    /// Sets the guest's target.
    ///
    /// # Panics
    /// For a guest that is not under KVM.
    pub fn set_target_mib(&self, mib: u64) {
        self.kvm().handle().set_target(FrameCount::from_mib(mib));
    }

    /// Sets what the guest's resident memory is held at.
    ///
    /// # Panics
    /// For a guest that is not under KVM.
    pub fn limit_resident_mib(&mut self, mib: Option<u64>) {
        self.kvm_mut().handle_mut().limit_resident(mib.map(FrameCount::from_mib));
    }

    /// Returns what host paging has done.
    ///
    /// # Panics
    /// For a guest that is not under KVM, or that can't be paged.
    #[must_use]
    #[track_caller]
    pub fn paging(&self) -> PagingFacts {
        self.facts().paging.unwrap_or_else(|| self.fail("it can't be paged"))
    }

    /// Asks the VMM process to end.
    ///
    /// # Panics
    /// For a guest that is not under KVM.
    pub fn request_stop(&mut self) {
        self.kvm_mut().handle_mut().request_stop();
    }

    /// Kills the VMM process.
    ///
    /// # Panics
    /// For a guest that is not under KVM.
    pub fn kill(&mut self) {
        self.kvm_mut().handle_mut().kill();
    }

    /// Waits until `probe` finds something.
    ///
    /// # Panics
    /// When the deadline passes or the guest ends first.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            // Before the probe, so that the probe sees all that the guest did before it ended.
            let ended = self.has_ended();
            if let Some(found) = probe(self) {
                return found;
            }
            self.check(!ended, &format!("it ended without {what}"));
            self.check(start.elapsed() < DEADLINE, &format!("it did not come to {what} in time"));
            thread::sleep(POLL);
        }
    }

    fn kvm(&self) -> &KvmGuest {
        match &self.runner {
            Runner::Kvm(guest) => guest,
            Runner::Qemu(_) => panic!("only a guest under KVM has a register page"),
        }
    }

    fn kvm_mut(&mut self) -> &mut KvmGuest {
        match &mut self.runner {
            Runner::Kvm(guest) => guest,
            Runner::Qemu(_) => panic!("only a guest under KVM has a register page"),
        }
    }

    #[track_caller]
    fn fail(&self, complaint: &str) -> ! {
        let image = self.image.file_name().map_or(self.image.as_path(), Path::new).display();
        let ending = match &self.ending {
            Some(ending) => indented([ending.reason.to_string()].iter().chain(&ending.details)),
            None => indented(["still running"]),
        };
        let facts = match &self.runner {
            Runner::Kvm(_) => format!("register page: {:?}\n", self.facts()),
            Runner::Qemu(_) => String::new(),
        };
        panic!("guest {image}: {complaint}\nstate:\n{ending}{facts}log:\n{}", indented(self.log().lines()));
    }
}

fn indented<T: Display>(lines: impl IntoIterator<Item = T>) -> String {
    lines.into_iter().map(|line| format!("    {line}\n")).collect()
}
