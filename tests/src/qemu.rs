//! A guest under QEMU's software emulation, booted through PVH.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode, Sectors, SwapDisk};
use aerostat::host::{EndReason, Ending};
use aerostat_abi::boot::{DATA_DISK_ID, SWAP_DISK_ID};
use aerostat_abi::exit::{EXIT_PORT, GuestExit};
use anyhow::Result;
use serde_json::{Value, json};

use crate::guest::{Lack, Machine, Plan, WayOut};
use crate::owned_process::OwnedProcess;
use crate::qmp::Qmp;

const QEMU: &str = "qemu-system-x86_64";
/// The name of the socket of QEMU's monitor, in the guest's folder.
const MONITOR: &str = "monitor";
/// QEMU's name of the limits of the swap disk.
const THROTTLE: &str = "swap-limits";

/// What `mkswap` writes at the end of the first page of a swap area.
const SWAP_SIGNATURE: &[u8] = b"SWAPSPACE2";
const SWAP_SIGNATURE_OFFSET: u64 = 4096 - 10;

/// A QEMU process.
#[derive(Debug)]
pub(crate) struct QemuGuest {
    process: OwnedProcess,
    complaints: PathBuf,
    monitor: PathBuf,
}

impl QemuGuest {
    /// Starts the guest of `plan` on `machine`; its serial port writes to `log`.
    pub(crate) fn start(plan: &Plan, machine: Machine, folder: &Path, log: &Path) -> Self {
        let complaints = folder.join("qemu.log");
        let stderr = File::create(&complaints).expect("a file can be made in a fresh temporary folder");
        let mut command = command(plan, machine, folder, log);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let process = OwnedProcess(command.spawn().unwrap_or_else(|error| panic!("starting {QEMU}: {error}")));
        Self { process, complaints, monitor: folder.join(MONITOR) }
    }

    /// Returns the process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Connects to QEMU's monitor, which serves one client at a time.
    pub(crate) fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.monitor)
    }

    /// Returns how the guest ended if it has.
    pub(crate) fn ending(&mut self) -> Option<Ending> {
        let status = self.process.try_wait().expect("a child that was not reaped can be waited for")?;
        let complaints = fs::read_to_string(&self.complaints).unwrap_or_default();
        Some(Ending { reason: end_reason(status), details: complaints.lines().map(str::to_owned).collect() })
    }
}

/// Returns QEMU's name of a machine, and what follows the name of a virtio device on that machine.
fn machine_and_bus(machine: Machine) -> (&'static str, &'static str) {
    match machine {
        Machine::Kvm => unreachable!("a guest under KVM does not need QEMU"),
        Machine::Qemu => ("microvm,acpi=off", "device"),
        Machine::MicrovmAcpi => ("microvm,acpi=on", "device"),
        Machine::MicrovmPci => ("microvm,acpi=on,pcie=on", "pci"),
        Machine::Q35 => ("q35", "pci"),
        Machine::Pc => ("pc", "pci"),
        Machine::PcPins => ("pc", "pci,vectors=0"),
    }
}

fn command(plan: &Plan, machine: Machine, folder: &Path, log: &Path) -> Command {
    let (machine, bus) = machine_and_bus(machine);
    let lacks = |lack| plan.qemu.lacks.contains(&lack);
    let no_port = if machine.starts_with("microvm") && lacks(Lack::SerialPort) { ",isa-serial=off" } else { "" };
    let mut command = Command::new(QEMU);
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    if plan.qemu.way_out != WayOut::Reboot {
        command.arg("-no-reboot");
    }
    command.args(["-M", &format!("{machine}{no_port}"), "-accel", "tcg", "-cpu", "max"]);
    command.args(["-global", "virtio-mmio.force-legacy=false"]);
    command.args(["-m", &format!("{}M", plan.memory.mib())]);
    command.arg("-kernel").arg(&plan.image).args(["-append", &plan.command_line]);
    if lacks(Lack::SerialPort) {
        command.args(["-chardev", &format!("file,id=log,path={}", log.display())]);
        command.args(["-device", &format!("virtio-serial-{bus}"), "-device", "virtconsole,chardev=log"]);
    } else {
        command.args(["-serial", &format!("file:{}", log.display())]);
    }
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", folder.join(MONITOR).display())]);
    if plan.qemu.way_out != WayOut::Machine {
        command.args(["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4")]);
    }
    if let Some(properties) = &plan.qemu.balloon {
        // Hints of free pages need a thread of QEMU's.
        command.args(["-object", "iothread,id=hints"]);
        command.args(["-device", &format!("virtio-balloon-{bus},id=balloon0,{properties}")]);
    }
    let swap = plan.swap.as_ref().map(|swap| swap_disk(swap, lacks(Lack::SerialNumbers), folder));
    for (disk, id) in [(&plan.disk, DATA_DISK_ID), (&swap, SWAP_DISK_ID)] {
        if let Some(disk) = disk {
            let iops = plan.qemu.swap_iops.filter(|_| id == SWAP_DISK_ID);
            if let Some(iops) = iops {
                command.args(["-object", &format!("throttle-group,id={THROTTLE},x-iops-total={iops}")]);
            }
            command.args(["-blockdev", &block_device(disk, id, iops).to_string()]);
            let serial = if lacks(Lack::SerialNumbers) { String::new() } else { format!(",serial={id}") };
            command.args(["-device", &format!("virtio-blk-{bus},drive={id}{serial}")]);
        }
    }
    command
}

/// Makes a swap disk, with a swap area or empty: a file in the guest's folder.
fn swap_disk(SwapDisk { size, faults }: &SwapDisk, has_area: bool, folder: &Path) -> DataDisk {
    let path = folder.join("swap");
    let file = File::create(&path).expect("a file can be made in a fresh temporary folder");
    file.set_len(size.bytes()).expect("a sparse file may have any size");
    if has_area {
        file.write_all_at(SWAP_SIGNATURE, SWAP_SIGNATURE_OFFSET).expect("a file in a temporary folder can be written");
    }
    DataDisk { path, mode: DiskMode::ReadWrite, faults: faults.clone() }
}

/// Returns QEMU's description of a disk: the file behind a driver that injects errors, and behind
/// one that bounds requests if `iops` does.
fn block_device(disk: &DataDisk, name: &str, iops: Option<u32>) -> Value {
    let is_read_only = disk.mode == DiskMode::ReadOnly;
    let DiskFaults { read_errors, write_errors, .. } = &disk.faults;
    let errors: Vec<_> = [("read", read_errors), ("write", write_errors)].into_iter().flat_map(errors).collect();
    let mut device = json!({
        "node-name": name,
        "driver": "blkdebug",
        "read-only": is_read_only,
        "image": { "driver": "file", "filename": disk.path, "read-only": is_read_only },
    });
    if !errors.is_empty() {
        device["inject-error"] = Value::Array(errors);
    }
    if iops.is_some() {
        device["node-name"] = "faulty".into();
        return json!({ "node-name": name, "driver": "throttle", "throttle-group": THROTTLE, "file": device });
    }
    device
}

/// Returns QEMU's description of the errors of one kind of request, one for each sector.
fn errors((kind, sectors): (&'static str, &Vec<Sectors>)) -> impl Iterator<Item = Value> {
    let bad_sectors = sectors.iter().flat_map(|sectors| sectors.first..sectors.first + sectors.count);
    bad_sectors.map(move |sector| json!({ "event": "none", "iotype": kind, "sector": sector }))
}

fn end_reason(status: ExitStatus) -> EndReason {
    if let Some(signal) = status.signal() {
        return EndReason::Killed(signal);
    }
    match status.code() {
        // A triple fault resets the machine. With -no-reboot, a reset ends QEMU as a power off
        // does.
        Some(0) => EndReason::Fault("the machine was reset or powered off".to_owned()),
        Some(code) => GuestExit::from_qemu_status(code)
            .map_or_else(|| EndReason::Failed(format!("QEMU ended with status {code}")), EndReason::Exited),
        None => EndReason::Failed("QEMU ended without a status".to_owned()),
    }
}
