//! Measures the peer: a Linux guest with its own balloon driver (virtio-balloon) under QEMU, whose
//! target is set over QMP. It has fewer turns than Aerostat's guests, as it takes minutes where
//! QEMU has to emulate.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::qmp::Qmp;
use super::resident::resident_mib;
use super::{MEMORY_MIB, METADATA_GIB_S, MOVED_MIB, gib_s, host, to_f64};
use crate::row::Row;
use crate::sample::median;

const QEMU: &str = "qemu-system-x86_64";
// Files of a running QEMU.
const SERIAL_LOG: &str = "serial.log";
const MONITOR: &str = "monitor";
const COMPLAINTS: &str = "qemu.log";
const TURNS: usize = 3;
/// How long a guest may take to boot.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take under KVM. A KVM without hardware virtualization never boots it.
const KVM_PATIENCE: Duration = Duration::from_secs(15);
/// The time between two probes of a wait.
const POLL: Duration = Duration::from_millis(1);
/// The time after which a booted guest is idle.
const SETTLED: Duration = Duration::from_secs(1);

pub(crate) fn measure(folder: &Path) -> Result<Vec<Row>> {
    let accelerator = if Peer::boot(folder, "kvm", 0, KVM_PATIENCE).is_ok() { "kvm" } else { "tcg" };
    println!("peer: {}, accelerator {accelerator}", version()?);
    let (mut boot, mut touched, mut untouched) = (Vec::new(), Vec::new(), Vec::new());
    let (mut deflate, mut resident, mut release) = (Vec::new(), Vec::new(), Vec::new());
    let small = MEMORY_MIB - MOVED_MIB;
    for _ in 0..TURNS {
        release.push(gib_s(MOVED_MIB, host::release()?));
        let mut peer = Peer::boot(folder, accelerator, 0, PATIENCE)?;
        boot.push(peer.boot_s);
        untouched.push(gib_s(MOVED_MIB, peer.resize(small)?));
        deflate.push(gib_s(MOVED_MIB, peer.resize(MEMORY_MIB)?));
        drop(peer);
        let mut peer = Peer::boot(folder, accelerator, MOVED_MIB, PATIENCE)?;
        let before = peer.resident_mib()?;
        ensure!(before >= to_f64(MOVED_MIB), "the peer has touched only {before} MiB");
        touched.push(gib_s(MOVED_MIB, peer.resize(small)?));
        resident.push(peer.resident_mib()?);
    }
    Ok(vec![
        Row::plain("peer_boot_s", median(boot), "s"),
        Row::rate("peer_inflate_touched", median(touched), "GiB/s", median(release)),
        Row::rate("peer_inflate_untouched", median(untouched), "GiB/s", METADATA_GIB_S),
        Row::rate("peer_deflate", median(deflate), "GiB/s", METADATA_GIB_S),
        Row::plain("peer_resident_after_inflate_mib", median(resident), "MiB"),
    ])
}

/// Returns QEMU's name and version.
fn version() -> Result<String> {
    let asked = Command::new(QEMU).arg("--version").output().with_context(|| format!("starting {QEMU}"))?;
    let text = String::from_utf8_lossy(&asked.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A running peer.
struct Peer {
    qemu: Qemu,
    qmp: Qmp,
    boot_s: f64,
}

impl Peer {
    /// Boots a peer that writes to `touched_mib` MiB and frees them.
    fn boot(folder: &Path, accelerator: &str, touched_mib: u64, patience: Duration) -> Result<Self> {
        let start = Instant::now();
        let mut qemu = Qemu::start(folder, accelerator, touched_mib)?;
        qemu.wait_for_line("peer: up", patience)?;
        let boot_s = start.elapsed().as_secs_f64();
        qemu.wait_for_line("peer: ready", PATIENCE)?;
        thread::sleep(SETTLED);
        let qmp = Qmp::connect(&qemu.monitor())?;
        Ok(Self { qemu, qmp, boot_s })
    }

    /// Sets the target; returns the seconds until the guest has that size.
    fn resize(&mut self, mib: u64) -> Result<f64> {
        let bytes = mib << 20;
        let start = Instant::now();
        self.qmp.execute("balloon", &json!({ "value": bytes }))?;
        while self.qmp.execute("query-balloon", &json!({}))?["actual"] != bytes {
            ensure!(start.elapsed() < PATIENCE, "the peer does not follow its target of {mib} MiB");
            thread::sleep(POLL);
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Returns QEMU's resident memory.
    fn resident_mib(&self) -> Result<f64> {
        resident_mib(self.qemu.process.id())
    }
}

/// A QEMU process and the folder with its files. The process is ended when the value is dropped.
struct Qemu {
    process: Child,
    folder: TempDir,
}

impl Qemu {
    fn start(peer: &Path, accelerator: &str, touched_mib: u64) -> Result<Self> {
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let path = |name: &str| folder.path().join(name);
        let mut command = Command::new(QEMU);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-cpu", "max"]);
        command.args(["-accel", accelerator, "-m", &format!("{MEMORY_MIB}M")]);
        command.arg("-kernel").arg(peer.join("vmlinuz")).arg("-initrd").arg(peer.join("initrd"));
        let touch = if touched_mib > 0 { format!(" touch_mib={touched_mib}") } else { String::new() };
        command.args(["-append", &format!("console=ttyS0 panic=-1 quiet{touch}")]);
        command.args(["-serial", &format!("file:{}", path(SERIAL_LOG).display())]);
        command.args(["-device", "virtio-balloon-pci"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", path(MONITOR).display())]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(path(COMPLAINTS))?);
        let process = command.spawn().with_context(|| format!("starting {QEMU}"))?;
        Ok(Self { process, folder })
    }

    /// Returns the socket of its monitor.
    fn monitor(&self) -> PathBuf {
        self.folder.path().join(MONITOR)
    }

    fn wait_for_line(&mut self, line: &str, patience: Duration) -> Result<()> {
        let start = Instant::now();
        while !self.text(SERIAL_LOG).contains(line) {
            if let Some(status) = self.process.try_wait()? {
                bail!("QEMU ended without {line:?} ({status}): {}", self.text(COMPLAINTS).trim_end());
            }
            ensure!(start.elapsed() < patience, "the peer did not say {line:?} in time: {}", self.text(SERIAL_LOG));
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Returns the text of one of its files.
    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join(name)).unwrap_or_default()).into_owned()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only if the process has ended and was reaped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
