//! Runs the Linux machines that a fleet attaches: those whose socket is in `target/linux-guest`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{folder, prepare};
use crate::fleet_file;
use crate::tools::{self, QEMU};

/// All memory of a machine, in MiB.
const MEMORY_MIB: u64 = 512;
/// What the machines hold and verify, in turn: MiB and seconds.
const PHASES: [&str; 2] = ["64:15,256:15", "256:15,64:15"];
/// What a guest prints when it has booted.
const READY: &str = "linux: ready";
/// How long it may take to boot. It is emulated, and shares the host with others that boot.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time between two probes of a log.
const POLL: Duration = Duration::from_millis(20);

/// The Linux machines of a fleet. They end with the value.
pub(crate) struct Machines(Vec<Machine>);

struct Machine {
    name: String,
    process: Child,
    log: PathBuf,
}

impl Machines {
    /// Starts the machines that a fleet file attaches, and waits until they have booted; there may
    /// be none. An invalid file has none: `aerostat up` will report its errors.
    pub(crate) fn of_fleet(fleet: &Path) -> Result<Self> {
        let mut machines = Self(Vec::new());
        let names = attached(fleet);
        if names.is_empty() {
            return Ok(machines);
        }
        tools::qemu()?;
        prepare()?;
        for (name, phases) in names.into_iter().zip(PHASES.into_iter().cycle()) {
            machines.0.push(Machine::start(name, phases)?);
        }
        machines.0.iter_mut().try_for_each(Machine::wait)?;
        Ok(machines)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Prints what each guest has verified.
    ///
    /// # Errors
    /// When one of them has verified nothing, or found an error.
    pub(crate) fn verify(&self) -> Result<()> {
        for Machine { name, log, .. } in &self.0 {
            let text = text(log);
            let latest = text.lines().rev().find(|line| line.contains(" verified, "));
            let latest = latest.with_context(|| format!("the Linux guest {name} has verified nothing: {text}"))?;
            println!("{name}: {}", latest.trim_start_matches("linux: "));
            ensure!(latest.ends_with(" 0 errors"), "memory of the Linux guest {name} has changed");
        }
        Ok(())
    }
}

impl Machine {
    fn start(name: String, phases: &str) -> Result<Self> {
        let folder = folder();
        let [log, socket] = ["log", "qmp"].map(|kind| folder.join(format!("{name}.{kind}")));
        let mut command = Command::new(QEMU);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        // A KVM without hardware virtualization does not boot Linux, and emulation always does.
        command.args(["-accel", "tcg", "-cpu", "max", "-m", &format!("{MEMORY_MIB}M")]);
        command.arg("-kernel").arg(folder.join("vmlinuz")).arg("-initrd").arg(folder.join("initrd"));
        command.args(["-append", &format!("console=ttyS0 panic=-1 quiet phases={phases}")]);
        command.args(["-serial", &format!("file:{}", log.display())]);
        command.args(["-device", "virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())]);
        let complaints = File::create(folder.join(format!("{name}.qemu.log"))).context("making QEMU's log")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints);
        File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let process = command.spawn().with_context(|| format!("starting {QEMU}"))?;
        Ok(Self { name, process, log })
    }

    /// Waits until the guest has booted.
    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while !text(&self.log).contains(READY) {
            if let Some(status) = self.process.try_wait()? {
                bail!("the machine of the Linux guest {} has ended ({status}): {}", self.name, text(&self.log));
            }
            ensure!(start.elapsed() < PATIENCE, "the Linux guest {} does not boot: {}", self.name, text(&self.log));
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if the process has ended and was reaped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the names of the machines that a fleet file attaches from [`folder`].
fn attached(fleet: &Path) -> Vec<String> {
    let directory = fleet_file::directory(fleet);
    let name = |guest: &toml::Value| {
        let socket = directory.join(guest.get("attach")?.get("qmp")?.as_str()?);
        // The folder may not exist yet, and the one above it does.
        let above = |path: &Path| Some(path.parent()?.parent()?.canonicalize().ok()?.join(path.parent()?.file_name()?));
        let is_ours = above(&socket)? == above(&folder().join("any"))? && socket.extension()? == "qmp";
        is_ours.then(|| Some(socket.file_stem()?.to_str()?.to_owned()))?
    };
    fleet_file::guests(fleet).iter().filter_map(name).collect()
}

/// Returns the text of a log. Linux ends the lines of its console with a carriage return, too.
fn text(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).replace('\r', "")
}
