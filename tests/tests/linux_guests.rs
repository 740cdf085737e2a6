//! Linux guests under QEMU, with the balloon driver of their own kernel, in a pool with a guest of
//! ours. `cargo xtask test` makes their kernel and initial RAM disk of Debian's packages.

use std::path::Path;
use std::process::{Command, Stdio};

use aerostat_tests::environment::{app_image, linux_guest};
use aerostat_tests::fleet::{Fleet, FleetPlan, Member};
use aerostat_tests::{DEADLINE, OwnedProcess, skip};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const MEMORY_MIB: u64 = 384;

/// A Linux machine that is not the fleet's.
struct Linux {
    _process: OwnedProcess,
    folder: TempDir,
}

impl Linux {
    /// Boots a guest that holds and verifies memory in `phases`.
    fn boot(parts: &Path, phases: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-accel", "tcg", "-cpu", "max", "-m", &format!("{MEMORY_MIB}M")]);
        command.arg("-kernel").arg(parts.join("vmlinuz")).arg("-initrd").arg(parts.join("initrd"));
        command.args(["-append", &format!("console=ttyS0 panic=-1 quiet phases={phases}")]);
        command.args(["-serial", &format!("file:{}", path("log"))]);
        command.args(["-device", "virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", path("qmp"))]);
        let process = OwnedProcess(command.stdin(Stdio::null()).spawn().expect("QEMU is installed"));
        let linux = Self { _process: process, folder };
        linux.wait_for("linux: ready");
        linux
    }

    fn socket(&self) -> String {
        self.folder.path().join("qmp").display().to_string()
    }

    fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).replace('\r', "")
    }

    fn wait_for(&self, text: &str) {
        let start = std::time::Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < DEADLINE, "no {text:?} in time:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Asserts that the guest has verified memory and found no error.
    fn expect_unharmed(&self) {
        let log = self.log();
        let latest = log.lines().rev().find(|line| line.contains(" MiB verified, ")).unwrap_or_default();
        assert!(latest.ends_with(" 0 errors") && !latest.contains(" 0 MiB verified"), "{log}");
    }
}

/// Waits until the size of the guest `name` is `wanted`, in MiB.
#[track_caller]
fn wait_for_size(fleet: &mut Fleet, name: &str, wanted: impl Fn(u64) -> bool) {
    fleet.wait_for(&format!("another size of {name}"), |fleet| {
        let size = fleet.status(name)?["size_bytes"].as_u64()? / MIB;
        wanted(size).then_some(())
    });
}

mod qemu {
    use super::*;

    /// The pool has too little for the most that both want, and each wants it in turn.
    #[test]
    fn memory_moves_between_linux_and_a_guest_of_ours() {
        let Some(parts) = linux_guest() else {
            skip("no Linux guest could be made of Debian's packages");
            return;
        };
        let linux = Linux::boot(&parts, "16:8,160:16");
        let native = Member {
            name: "native",
            image: app_image("memwalk"),
            min_mib: 48,
            max_mib: 288,
            command_line: "phases=208M:8s,32M:16s repeat",
        };
        let plan = FleetPlan::pool_mib(448).with_attached("linux", &linux.socket(), 96, MEMORY_MIB).with(&native);
        let mut fleet = plan.up(None);
        for _ in 0..2 {
            wait_for_size(&mut fleet, "linux", |mib| mib < 216);
            wait_for_size(&mut fleet, "native", |mib| mib > 200);
            wait_for_size(&mut fleet, "linux", |mib| mib > 240);
            wait_for_size(&mut fleet, "native", |mib| mib < 120);
        }
        fleet.ask(&["down"]);
        let run = fleet.wait_for_end(DEADLINE);
        run.expect_exit_code(0);
        run.expect_unharmed("native");
        assert_eq!(run.report()["violations"], 0, "{run}");
        linux.expect_unharmed();
    }
}
