//! QEMU machines with either guest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aerostat_abi::exit::EXIT_PORT;
use aerostat_tests::OwnedProcess;
use aerostat_tests::environment::app_image;
use aerostat_tests::qmp::Qmp;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::cpu_time;

const QEMU: &str = "qemu-system-x86_64";
// Files of a running QEMU.
const SERIAL_LOG: &str = "serial.log";
const MONITOR: &str = "monitor";
const COMPLAINTS: &str = "qemu.log";
/// How long a guest may take to boot, or to follow a target.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long Linux may take under KVM. A KVM without hardware virtualization never boots it.
const KVM_PATIENCE: Duration = Duration::from_secs(15);
/// The time between two probes of a wait.
const POLL: Duration = Duration::from_millis(1);
/// The time after which a booted guest is idle.
const SETTLED: Duration = Duration::from_secs(1);

/// Starts machines, all with the same accelerator.
pub(super) struct Machines {
    linux: PathBuf,
    accelerator: &'static str,
}

/// What a machine runs, and the line that says that its first program runs.
pub(super) struct Software {
    kind: Kind,
    command_line: String,
    up: String,
    /// The line after which it can be measured.
    ready: Option<&'static str>,
    devices: Devices,
}

/// A kind of guest. Each runs on the kind of machine that its users take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The application with this name on `microvm`, with devices in memory.
    Aerostat(&'static str),
    /// The peer on `pc`, with devices on PCI.
    Linux,
}

/// The balloon device of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Devices {
    /// It inflates and deflates.
    Balloon,
    /// The guest reports its free memory, too.
    Reporting,
}

impl Software {
    /// The Aerostat application `name`, which logs `up` when it runs.
    pub(super) fn aerostat(name: &'static str, command_line: &str, up: &str) -> Self {
        let (command_line, up) = (command_line.to_owned(), up.to_owned());
        Self { kind: Kind::Aerostat(name), command_line, up, ready: None, devices: Devices::Balloon }
    }

    /// Linux with these words on its command line.
    pub(super) fn linux(words: &str) -> Self {
        let command_line = format!("console=ttyS0 panic=-1 quiet {words}");
        let (up, ready) = ("linux: up".to_owned(), Some("linux: ready"));
        Self { kind: Kind::Linux, command_line, up, ready, devices: Devices::Balloon }
    }

    pub(super) fn with(self, devices: Devices) -> Self {
        Self { devices, ..self }
    }
}

impl Machines {
    /// Finds out with which accelerator Linux boots, from the kernel and the initial RAM disk in
    /// the folder `linux`.
    pub(super) fn new(linux: &Path) -> Result<Self> {
        let mut machines = Self { linux: linux.to_path_buf(), accelerator: "kvm" };
        if machines.boot_within(&Software::linux(""), 256, KVM_PATIENCE).is_err() {
            machines.accelerator = "tcg";
        }
        Ok(machines)
    }

    pub(super) fn accelerator(&self) -> &'static str {
        self.accelerator
    }

    /// Boots a guest, and waits until it is idle.
    pub(super) fn boot(&self, software: &Software, memory_mib: u64) -> Result<Running> {
        self.boot_within(software, memory_mib, PATIENCE)
    }

    fn boot_within(&self, software: &Software, memory_mib: u64, patience: Duration) -> Result<Running> {
        let start = Instant::now();
        let mut qemu = Qemu::start(|folder| self.command(software, memory_mib, folder))?;
        qemu.wait_for_line(&software.up, patience)?;
        let boot = start.elapsed();
        if let Some(ready) = software.ready {
            qemu.wait_for_line(ready, PATIENCE)?;
        }
        Ok(Running { qemu, boot })
    }

    /// Starts a machine whose processor does not run: QEMU's own floor.
    pub(super) fn start_stopped(&self, memory_mib: u64) -> Result<Running> {
        let software = Software::aerostat("hello", "", "").with(Devices::Reporting);
        let qemu = Qemu::start(|folder| {
            let mut command = self.command(&software, memory_mib, folder);
            command.arg("-S");
            command
        })?;
        Ok(Running { qemu, boot: Duration::ZERO })
    }

    fn command(&self, software: &Software, memory_mib: u64, folder: &Path) -> Command {
        let mut command = Command::new(QEMU);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-cpu", "max"]);
        // Threads are named, so that a vCPU's time can be told from QEMU's own.
        command.args(["-name", "guest,debug-threads=on"]);
        command.args(["-accel", self.accelerator, "-m", &format!("{memory_mib}M")]);
        let reporting = match software.devices {
            Devices::Balloon => "",
            Devices::Reporting => ",free-page-reporting=on",
        };
        match software.kind {
            Kind::Aerostat(name) => {
                command.args(["-M", "microvm,acpi=off", "-global", "virtio-mmio.force-legacy=false"]);
                command.arg("-kernel").arg(app_image(name));
                command.args(["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4")]);
                command.args(["-device", &format!("virtio-balloon-device{reporting}")]);
            }
            Kind::Linux => {
                command.arg("-kernel").arg(self.linux.join("vmlinuz")).arg("-initrd").arg(self.linux.join("initrd"));
                command.args(["-device", &format!("virtio-balloon-pci{reporting}")]);
            }
        }
        command.args(["-append", &software.command_line]);
        command.args(["-serial", &format!("file:{}", folder.join(SERIAL_LOG).display())]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", folder.join(MONITOR).display())]);
        command
    }
}

/// Returns QEMU's name and version.
pub(super) fn version() -> Result<String> {
    let asked = Command::new(QEMU).arg("--version").output().with_context(|| format!("starting {QEMU}"))?;
    let text = String::from_utf8_lossy(&asked.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A running guest.
pub(super) struct Running {
    qemu: Qemu,
    boot: Duration,
}

impl Running {
    /// Returns the milliseconds from before QEMU was started until the first program ran.
    pub(super) fn boot_ms(&self) -> f64 {
        self.boot.as_secs_f64() * 1e3
    }

    /// Returns QEMU's process.
    pub(super) fn pid(&self) -> u32 {
        self.qemu.process.id()
    }

    /// Returns the seconds that the guest's processor has run.
    pub(super) fn guest_seconds(&self) -> Result<f64> {
        cpu_time::guest_seconds(self.pid())
    }

    /// Connects to the machine's monitor once the guest is idle.
    pub(super) fn monitor(&self) -> Result<Qmp> {
        thread::sleep(SETTLED);
        Qmp::connect(&self.qemu.folder.path().join(MONITOR))
    }
}

/// Sets the target of a guest over its monitor; returns the seconds until it has that size.
pub(super) fn resize(monitor: &mut Qmp, mib: u64) -> Result<f64> {
    let bytes = mib << 20;
    let start = Instant::now();
    monitor.execute("balloon", &json!({ "value": bytes }))?;
    while monitor.execute("query-balloon", &json!({}))?["actual"] != bytes {
        ensure!(start.elapsed() < PATIENCE, "the guest does not follow its target of {mib} MiB");
        thread::sleep(POLL);
    }
    Ok(start.elapsed().as_secs_f64())
}

/// A QEMU process and the folder with its files.
struct Qemu {
    process: OwnedProcess,
    folder: TempDir,
}

impl Qemu {
    fn start(command: impl FnOnce(&Path) -> Command) -> Result<Self> {
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let mut command = command(folder.path());
        let complaints = File::create(folder.path().join(COMPLAINTS))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints);
        let process = OwnedProcess(command.spawn().with_context(|| format!("starting {QEMU}"))?);
        Ok(Self { process, folder })
    }

    fn wait_for_line(&mut self, line: &str, patience: Duration) -> Result<()> {
        let start = Instant::now();
        while !self.text(SERIAL_LOG).contains(line) {
            // The line may be the last one of a guest that has ended.
            if let Some(status) = self.process.try_wait()?
                && !self.text(SERIAL_LOG).contains(line)
            {
                bail!("QEMU ended without {line:?} ({status}): {}", self.text(COMPLAINTS).trim_end());
            }
            ensure!(start.elapsed() < patience, "the guest did not say {line:?} in time: {}", self.text(SERIAL_LOG));
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Returns the text of one of its files.
    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join(name)).unwrap_or_default()).into_owned()
    }
}
