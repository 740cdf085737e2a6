//! Control groups of version 2, in a Linux guest under QEMU: the hosts of today's tests may have
//! their memory controller in version 1 only, where the unit tests of `host::cgroup` run.
//!
//! The guest's initial RAM disk holds this very program with the libraries that it needs, and its
//! first process runs [`inside_a_linux_guest`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aerostat::host::cgroup::{GuestGroup, Location, MemoryGroup, PoolGroup, Version};
use aerostat_abi::units::FrameCount;
use aerostat_tests::environment::linux_guest;
use aerostat_tests::{DEADLINE, OwnedProcess, skip};

/// What the first process of the guest does.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t cgroup2 cgroup /sys
echo +memory > /sys/cgroup.subtree_control
/bin/busybox mkdir /sys/service
echo $$ > /sys/service/cgroup.procs
AEROSTAT_INSIDE=1 /program --exact inside_a_linux_guest --nocapture && echo 'inside: passed'
echo 'inside: done'
/bin/busybox poweroff -f
";

/// Doubles a text until it has some hundred mebibytes.
const TAKES_MEMORY: &str = "x=0123456789abcdef; i=0; while [ $i -lt 24 ]; do x=$x$x; i=$((i+1)); done";

/// What is tested, in the guest; on the host, nothing.
#[test]
fn inside_a_linux_guest() {
    if std::env::var_os("AEROSTAT_INSIDE").is_none() {
        return;
    }
    let home = Location::of_this_process().unwrap();
    assert_eq!(home.version, Version::V2);
    let pool = PoolGroup::create().unwrap();
    let limit = FrameCount::from_mib(24);
    let mut group = pool.guest("web", limit).unwrap();
    assert_eq!(group.limit(), Some(limit));
    let folder = group.location().folder.clone();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(read("memory.max").trim(), limit.bytes().to_string());

    let mut sleeper = group.spawn(Command::new("/bin/busybox").args(["sleep", "1000"])).unwrap();
    assert_eq!(read("cgroup.procs").trim(), sleeper.id().to_string());
    assert_eq!(Location::of_this_process().unwrap(), home, "this process stays where it was");
    assert!(pool.usage().unwrap().charged > 0, "the pool's charge covers the groups below it");
    group.set_limit(FrameCount(1));
    assert_eq!(group.limit(), Some(limit), "the process has more already");
    let adopted = GuestGroup::adopt(group.location()).expect("it is one of ours");
    assert_eq!(MemoryGroup::left_behind(group.location()).unwrap().folder(), folder.parent().unwrap());
    std::mem::forget(adopted);

    let other = pool.guest("big", limit).unwrap();
    let mut taker = other.spawn(Command::new("/bin/busybox").args(["sh", "-c", TAKES_MEMORY])).unwrap();
    assert!(!taker.wait().unwrap().success(), "the kernel kills what takes more than its limit");
    assert!(sleeper.try_wait().unwrap().is_none(), "and nothing else");
    assert!(fs::read_to_string(other.location().folder.join("memory.events")).unwrap().contains("oom_kill 1"));

    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    drop((group, other));
    assert!(!folder.exists());
    drop(pool);
    assert!(!folder.parent().unwrap().exists());
}

mod qemu {
    use super::*;

    #[test]
    fn guests_are_limited_under_version_2() {
        let Some(parts) = linux_guest() else {
            skip("no Linux guest could be made of Debian's packages");
            return;
        };
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let initrd = initial_ram_disk(&parts, folder.path());
        let log = folder.path().join("log");
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-accel", "tcg", "-cpu", "max", "-m", "768M"]);
        command.arg("-kernel").arg(parts.join("vmlinuz")).arg("-initrd").arg(initrd);
        command.args(["-append", "console=ttyS0 panic=-1 quiet"]);
        command.args(["-serial", &format!("file:{}", log.display())]);
        let mut process = OwnedProcess(command.stdin(Stdio::null()).spawn().expect("QEMU is installed"));
        let start = std::time::Instant::now();
        while process.0.try_wait().expect("it is a child").is_none() {
            assert!(start.elapsed() < DEADLINE, "the guest does not end");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let text = String::from_utf8_lossy(&fs::read(log).expect("there is a log")).into_owned();
        assert!(text.contains("inside: passed"), "{text}");
    }

    /// Makes an archive of this program, the libraries that it needs, a shell and [`INIT`].
    fn initial_ram_disk(parts: &Path, folder: &Path) -> PathBuf {
        let busybox = parts.join("parts/busybox");
        let program = std::env::current_exe().expect("this program is known");
        let root = folder.join("root");
        for name in ["bin", "dev", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name)).expect("a folder can be made");
        }
        let copy = |from: &Path, to: &str| {
            let to = root.join(to.trim_start_matches('/'));
            fs::create_dir_all(to.parent().expect("it is below the root")).expect("a folder can be made");
            fs::copy(from, to).unwrap_or_else(|error| panic!("copying {}: {error}", from.display()));
        };
        copy(&busybox, "bin/busybox");
        copy(&program, "program");
        for library in libraries(&program) {
            copy(Path::new(&library), &library);
        }
        let init = root.join("init");
        fs::write(&init, INIT).expect("a file can be written");
        let archive = folder.join("initrd");
        let script = "cd \"$1\" && strip program; chmod +x init && \"$2\" find . | \"$2\" cpio -o -H newc > \"$3\"";
        let status = Command::new("sh").args(["-c", script, "sh"]).arg(&root).arg(&busybox).arg(&archive).status();
        assert!(status.is_ok_and(|status| status.success()), "the archive can be made");
        archive
    }

    /// Returns the paths of a program's libraries, its loader among them.
    fn libraries(program: &Path) -> Vec<String> {
        let output = Command::new("ldd").arg(program).output().expect("ldd is part of the C library");
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
    }
}
