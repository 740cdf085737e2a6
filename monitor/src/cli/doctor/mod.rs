//! `aerostat doctor`: checks what the host has for a fleet, and says what to do about the rest.
//!
//! This part asks the host, and [`finding`] judges the answers.

mod finding;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{self, ExitCode};

use aerostat_abi::units::FrameCount;
use rustix::process::{Resource, getrlimit};

use self::finding::{Finding, Verdict, kvm_kind, list};
use super::Failure;
use super::client::print;
use crate::host::cgroup::{Location, PoolGroup, Version};
use crate::host::disk::{Disks, SwapDisk};
use crate::host::run_directory::{FleetName, RunDirectory, default_base, fleets};
use crate::host::vmm_guest::missing_in_jail;
use crate::host::{capacity, qemu, vmm_program};
use crate::vmm;

pub(super) fn doctor() -> Result<ExitCode, Failure> {
    let findings = [
        kvm(),
        program(),
        jail(),
        qemu(),
        run_directory(),
        running_fleets(),
        memory(),
        memory_group(),
        finding::overcommit(&read("/proc/sys/vm/overcommit_memory")),
        finding::huge_pages(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
        finding::pressure(&read("/proc/pressure/memory")),
        finding::open_files(getrlimit(Resource::Nofile).maximum),
        swap_files(),
        finding::host_swap(&read("/proc/swaps")),
    ];
    print(&list(&findings))?;
    let has_problem = findings.iter().any(|finding| finding.verdict == Verdict::Problem);
    Ok(if has_problem { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Reads a file of the kernel's; empty where it has none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn kvm() -> Finding {
    match vmm::check_kvm() {
        Ok(()) => kvm_kind(&read("/proc/cpuinfo")),
        Err(error) if qemu::version(qemu::PROGRAM).is_ok() => {
            Finding::note("kvm", format_args!("{error}; guests run under QEMU: machine = \"qemu\" in the fleet file"))
        }
        Err(error) => Finding::problem("kvm", error),
    }
}

fn qemu() -> Finding {
    match qemu::version(qemu::PROGRAM) {
        Ok(version) => Finding::ok("qemu", version),
        Err(error) => Finding::note("qemu", format_args!("{error}; only fleets with machine = \"qemu\" need it")),
    }
}

fn program() -> Finding {
    match vmm_program::find() {
        Ok(path) => Finding::ok("program", path.display()),
        Err(error) => Finding::problem("program", error),
    }
}

fn jail() -> Finding {
    let checked = vmm_program::find().map_err(|error| error.to_string());
    match checked.and_then(|program| missing_in_jail(&program).map_err(|error| error.to_string())) {
        Ok(missing) => finding::jail(&missing),
        Err(error) => Finding::problem("jail", error),
    }
}

/// Makes the directory of a fleet and removes it again.
fn run_directory() -> Finding {
    let opened = FleetName::new(format!("doctor-{}", process::id()))
        .map_err(|error| error.to_string())
        .and_then(|name| RunDirectory::open(None, &name).map_err(|error| error.to_string()));
    match opened {
        Ok(directory) => {
            directory.close();
            Finding::ok("run directory", default_base().display())
        }
        Err(error) => Finding::problem("run directory", error),
    }
}

fn running_fleets() -> Finding {
    match fleets(None) {
        Ok(fleets) => finding::running(fleets.iter().map(|entry| (entry.fleet.as_str(), entry.supervisor))),
        Err(error) => Finding::problem("fleets", format_args!("the run directory can't be read: {error}")),
    }
}

fn memory() -> Finding {
    match capacity::available() {
        Some(available) => finding::memory(available.memory, &available.limit.to_string()),
        None => {
            Finding::note("memory", "the host does not say how much is available; it is not checked before a start")
        }
    }
}

fn memory_group() -> Finding {
    let version = Location::of_this_process().map(|location| location.version);
    match (version, PoolGroup::create()) {
        (Ok(version), Ok(_)) => {
            let version = if version == Version::V1 { 1 } else { 2 };
            Finding::ok(
                "control group",
                format_args!(
                    "version {version}; the pool is held against physical memory, and each guest is limited to its part"
                ),
            )
        }
        (_, Err(error)) | (Err(error), _) => Finding::note(
            "control group",
            format_args!(
                "none can be made ({error}): physical memory is estimated from the processes, and the kernel does not \
                 limit a guest's process to its part of the pool; run in a delegated group"
            ),
        ),
    }
}

/// Makes a swap file and removes it again.
fn swap_files() -> Finding {
    const SIZE: FrameCount = FrameCount::from_mib(2);
    let disks = Disks { data: None, swap: Some(SwapDisk { size: SIZE, faults: Default::default() }) };
    match disks.open() {
        Err(error) => Finding::problem("swap files", error),
        Ok(open) => {
            let place = env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), std::path::PathBuf::from);
            swap_place(&place, open.iter().any(|disk| disk.cached_swap() > FrameCount::ZERO))
        }
    }
}

fn swap_place(place: &Path, is_cached: bool) -> Finding {
    let free = rustix::fs::statvfs(place).map(|found| found.f_bavail.saturating_mul(found.f_frsize)).ok();
    finding::swap_files(&place.display().to_string(), free, is_cached)
}
