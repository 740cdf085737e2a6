//! Fleets whose machines are QEMU: started by the fleet, or attached.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use aerostat_tests::OwnedProcess;
use aerostat_tests::environment::app_image;
use aerostat_tests::fleet::{Fleet, FleetPlan, Member};
use tempfile::TempDir;

/// How long a fleet may take to end.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// An application that verifies its memory in `phases`.
fn member<'a>(name: &'a str, phases: &'a str) -> Member<'a> {
    Member { name, image: app_image("memwalk"), min_mib: 64, max_mib: 128, command_line: phases }
}

fn plan() -> FleetPlan {
    FleetPlan::pool_mib(512).under_qemu()
}

/// A QEMU of another program: a machine without a guest.
struct Machine {
    process: OwnedProcess,
    folder: TempDir,
}

impl Machine {
    fn start(devices: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let socket = format!("unix:{},server=on,wait=off", folder.path().join("qmp").display());
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-m", "128M"]);
        command.args(["-M", "microvm,acpi=off", "-qmp", &socket]).args(devices);
        let process = OwnedProcess(command.stdin(Stdio::null()).spawn().expect("QEMU is installed"));
        let machine = Self { process, folder };
        while !machine.folder.path().join("qmp").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        machine
    }

    fn socket(&self) -> String {
        self.folder.path().join("qmp").display().to_string()
    }

    fn is_alive(&mut self) -> bool {
        self.process.try_wait().expect("a child that was not reaped can be waited for").is_none()
    }
}

/// Returns the number of the QEMU process of a guest of ours.
fn qemu_of(fleet: &mut Fleet, name: &str) -> String {
    fleet.wait_for("QEMU process", |_| {
        let processes = fs::read_dir("/proc")
            .expect("/proc can be read")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let is_it = |pid: &String| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|&byte| byte == 0).collect();
            words[0].ends_with(b"qemu-system-x86_64") && words.get(2) == Some(&name.as_bytes())
        };
        processes.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).find(is_it)
    })
}

/// Waits until the application of `name` has begun.
fn wait_for_work(fleet: &mut Fleet, name: &str) {
    fleet.wait_for("line in the log", |fleet| fleet.log(name).contains("in use of").then_some(()));
}

mod qemu {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use aerostat_tests::command::run_through;
    use aerostat_tests::environment::app_image;
    use aerostat_tests::fleet::Receiver;
    use rustix::process::Signal;

    use super::{END_PATIENCE, Machine, member, plan, qemu_of, wait_for_work};

    #[test]
    fn a_guest_runs_to_its_end() {
        let mut fleet = plan().with(&member("alpha", "phases=48M:1s")).up(None);
        let run = fleet.wait_for_end(END_PATIENCE);
        assert_eq!(run.guest("alpha")["exit"], "success", "{run}");
        run.expect_exit_code(0);
    }

    #[test]
    fn a_qemu_that_is_killed_costs_its_guest_only() {
        let names = ["killed-one", "other-one"];
        let plan = names.iter().fold(plan(), |plan, name| plan.with(&member(name, "phases=48M:1s repeat")));
        let mut fleet = plan.up(None);
        names.iter().for_each(|name| wait_for_work(&mut fleet, name));
        let pid = qemu_of(&mut fleet, names[0]);
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        fleet.wait_for_line(&["killed-one", "process killed by signal 9"]);
        assert_eq!(fleet.status(names[1]).unwrap()["machine"], "qemu");
        fleet.signal(Receiver::Supervisor, Signal::INT);
        let run = fleet.wait_for_end(END_PATIENCE);
        assert_eq!(run.guest(names[1])["exit"], "stopped", "{run}");
    }

    #[test]
    fn a_supervisor_that_is_killed_is_replaced() {
        let mut fleet = plan().with(&member("survivor", "phases=48M:1s repeat")).up(None);
        wait_for_work(&mut fleet, "survivor");
        let pid = qemu_of(&mut fleet, "survivor");
        fleet.replace_supervisor();
        fleet.wait_for("take-over", |fleet| fleet.events().contains("survivor was taken over").then_some(()));
        assert_eq!(qemu_of(&mut fleet, "survivor"), pid);
        fleet.ask(&["down"]);
        let run = fleet.wait_for_end(END_PATIENCE);
        assert_eq!(run.guest("survivor")["exit"], "stopped", "{run}");
        // What is left of a process that nothing has reaped yet has no command line.
        assert!(fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty());
    }

    #[test]
    fn an_attached_machine_without_a_driver_keeps_its_size_and_its_life() {
        let mut machine = Machine::start(&["-device", "virtio-balloon-device"]);
        let mut fleet = plan().with_attached("vm", &machine.socket(), 64, 128).up(None);
        fleet.wait_for_line(&["vm has a problem", "no memory statistics", "fixed size, 128.0 MiB"]);
        let status = fleet.status("vm").unwrap();
        assert_eq!((&status["machine"], &status["size_bytes"]), (&"attached".into(), &(128_u64 << 20).into()));
        fleet.wait_for("row", |fleet| fleet.ask(&["ps"]).contains("fixed size: reports nothing").then_some(()));
        fleet.wait_for("reason", |fleet| fleet.ask(&["explain", "vm"]).contains("its size is fixed").then_some(()));
        fleet.ask(&["down"]);
        let run = fleet.wait_for_end(END_PATIENCE);
        assert_eq!(run.guest("vm")["exit"], "detached; its machine runs on", "{run}");
        run.expect_exit_code(0);
        assert!(machine.is_alive());
    }

    #[test]
    fn an_attached_machine_that_ends_has_ended() {
        let mut machine = Machine::start(&[]);
        let mut fleet = plan().with_attached("vm", &machine.socket(), 64, 128).up(None);
        fleet.wait_for_line(&["vm has a problem", "no virtio-balloon device"]);
        machine.process.kill().unwrap();
        let run = fleet.wait_for_end(END_PATIENCE);
        assert_eq!(run.guest("vm")["exit"], "failed: its QEMU process ended without a shutdown", "{run}");
    }

    #[test]
    fn an_attached_machine_is_attached_again_by_the_next_supervisor() {
        let mut machine = Machine::start(&[]);
        let mut fleet = plan().with_attached("vm", &machine.socket(), 64, 128).up(None);
        fleet.wait_for_line(&["vm has a problem"]);
        fleet.replace_supervisor();
        fleet.wait_for_line(&["vm has a problem"]);
        fleet.ask(&["down"]);
        let run = fleet.wait_for_end(END_PATIENCE);
        assert_eq!(run.guest("vm")["exit"], "detached; its machine runs on", "{run}");
        assert!(machine.is_alive());
    }

    #[test]
    fn a_qemu_that_is_missing_or_ends_is_named_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let image = app_image("memwalk").display().to_string();
        let guest = format!("[[guest]]\nname = \"a\"\nimage = \"{image}\"\nmin = \"64M\"\nmax = \"64M\"\n");
        fs::write(path("fleet.toml"), format!("pool = \"64M\"\nmachine = \"qemu\"\n{guest}")).unwrap();
        let search = format!("PATH={}", folder.path().display());
        let up = || {
            let words = ["up", &path("fleet.toml"), "--headless", "--run-dir", &path("run")].map(str::to_owned);
            let output = run_through(&["/usr/bin/env", &search], words);
            (output.status.code(), output.stderr.trim_end().to_owned())
        };
        let missing = "aerostat: qemu-system-x86_64 is not installed; `sudo apt-get install qemu-system-x86` does that";
        assert_eq!(up(), (Some(2), missing.to_owned()));
        let script = "#!/bin/sh\n[ \"$1\" = --version ] && { echo version; exit 0; }\n\
                      echo 'qemu-system-x86_64: unsupported machine' >&2\nexit 1\n";
        fs::write(path("qemu-system-x86_64"), script).unwrap();
        fs::set_permissions(path("qemu-system-x86_64"), PermissionsExt::from_mode(0o755)).unwrap();
        let ended =
            "aerostat: guest \"a\" can't be started: QEMU ended at its start (exit status: 1): unsupported machine";
        assert_eq!(up(), (Some(1), ended.to_owned()));
    }
}
