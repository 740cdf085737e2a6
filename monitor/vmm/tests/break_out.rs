//! What a guest that has taken its VMM process over can do: nothing. A process enters the jail
//! through the library, with the filters of the program, and tries.
//!
//! Each attempt is a process of its own, as most end it. The test has no harness: it is parent and
//! child, and the child has to have one thread when it enters the jail.

use std::env;
use std::ffi::c_long;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio, exit};
use std::ptr::null;

use aerostat_abi::units::FrameCount;
use aerostat_vmm::jail::{self, Bounds, Inmate, Thread, VIOLATION};

/// An attempt: its name, and a system call with its arguments.
type Attempt = (&'static str, c_long, [c_long; 6]);

const NOTHING: c_long = 0;
/// `TIOCSTI`, `KVM_CREATE_VM`.
const PUSH_INPUT: c_long = 0x5412;
const CREATE_MACHINE: c_long = 0xae01;

fn attempts() -> Vec<Attempt> {
    let password_file = c"/etc/passwd".as_ptr() as c_long;
    let processes = c"/proc".as_ptr() as c_long;
    let shell = c"/bin/sh".as_ptr() as c_long;
    let parent = c_long::from(std::os::unix::process::parent_id());
    let other = 65_534;
    let own = c_long::from(std::process::id());
    let here = c_long::from(libc::AT_FDCWD);
    let anonymous = c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let all = c_long::from(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
    let code = c_long::from(libc::PROT_READ | libc::PROT_EXEC);
    let page = null::<u8>() as c_long;
    let thread = c_long::from(libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND);
    let socket = |family: i32, kind: i32| [family.into(), kind.into(), 0, 0, 0, 0];
    let mut attempts = vec![
        ("open", libc::SYS_open, [password_file, 0, 0, 0, 0, 0]),
        ("openat", libc::SYS_openat, [here, password_file, 0, 0, 0, 0]),
        ("openat", libc::SYS_openat, [here, processes, 0, 0, 0, 0]),
        ("openat2", libc::SYS_openat2, [here, password_file, 0, 0, 0, 0]),
        ("stat", libc::SYS_stat, [password_file, 0, 0, 0, 0, 0]),
        ("chdir", libc::SYS_chdir, [processes, 0, 0, 0, 0, 0]),
        ("unlink", libc::SYS_unlink, [password_file, 0, 0, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [libc::PTRACE_ATTACH.into(), parent, 0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [parent, 0, 0, 0, 0, 0]),
        ("kill", libc::SYS_kill, [parent, 9, 0, 0, 0, 0]),
        ("kill", libc::SYS_kill, [-1, 9, 0, 0, 0, 0]),
        ("tgkill", libc::SYS_tgkill, [parent, parent, libc::SIGUSR1.into(), 0, 0, 0]),
        ("tgkill", libc::SYS_tgkill, [own, own, libc::SIGKILL.into(), 0, 0, 0]),
        ("pidfd_open", libc::SYS_pidfd_open, [parent, 0, 0, 0, 0, 0]),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal, [0, 9, 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [0, 0, 0, 0, 0, 0]),
        ("execve", libc::SYS_execve, [shell, 0, 0, 0, 0, 0]),
        ("execveat", libc::SYS_execveat, [0, shell, 0, 0, 0, 0]),
        ("fork", libc::SYS_fork, [NOTHING; 6]),
        ("vfork", libc::SYS_vfork, [NOTHING; 6]),
        ("clone", libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]),
        ("clone", libc::SYS_clone, [thread, 0, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [shell, shell, shell, 0, 0, 0]),
        ("umount2", libc::SYS_umount2, [processes, 0, 0, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [processes, processes, 0, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [processes, 0, 0, 0, 0, 0]),
        ("unshare", libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [0, 0, 0, 0, 0, 0]),
        ("setuid", libc::SYS_setuid, [0, 0, 0, 0, 0, 0]),
        ("setresuid", libc::SYS_setresuid, [other, 0, 0, 0, 0, 0]),
        ("capset", libc::SYS_capset, [NOTHING; 6]),
        ("mmap", libc::SYS_mmap, [page, 4096, all, anonymous, -1, 0]),
        ("mprotect", libc::SYS_mprotect, [page, 4096, code, 0, 0, 0]),
        ("pkey_mprotect", libc::SYS_pkey_mprotect, [page, 4096, code, -1, 0, 0]),
        ("remap_file_pages", libc::SYS_remap_file_pages, [NOTHING; 6]),
        ("madvise", libc::SYS_madvise, [page, 4096, libc::MADV_HWPOISON.into(), 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [NOTHING; 6]),
        ("bpf", libc::SYS_bpf, [NOTHING; 6]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [8, 0, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [NOTHING; 6]),
        ("keyctl", libc::SYS_keyctl, [NOTHING; 6]),
        ("add_key", libc::SYS_add_key, [NOTHING; 6]),
        ("personality", libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]),
        ("prctl", libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0, 0]),
        ("prctl", libc::SYS_prctl, [libc::PR_SET_PTRACER.into(), -1, 0, 0, 0, 0]),
        ("seccomp", libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER.into(), 8, 0, 0, 0, 0]),
        ("rt_sigaction", libc::SYS_rt_sigaction, [libc::SIGSYS.into(), 0, 0, 8, 0, 0]),
        ("ioctl", libc::SYS_ioctl, [0, PUSH_INPUT, 0, 0, 0, 0]),
        ("fcntl", libc::SYS_fcntl, [0, libc::F_SETOWN.into(), parent, 0, 0, 0]),
        ("dup2", libc::SYS_dup2, [1, 2, 0, 0, 0, 0]),
        ("connect", libc::SYS_connect, [0, 0, 0, 0, 0, 0]),
        ("bind", libc::SYS_bind, [0, 0, 0, 0, 0, 0]),
        ("shmget", libc::SYS_shmget, [0, 4096, 0o600, 0, 0, 0]),
        ("mq_open", libc::SYS_mq_open, [shell, 0, 0, 0, 0, 0]),
        ("setrlimit", libc::SYS_setrlimit, [libc::RLIMIT_CORE as c_long, 0, 0, 0, 0, 0]),
        ("prlimit64", libc::SYS_prlimit64, [parent, 0, 0, 0, 0, 0]),
        ("init_module", libc::SYS_init_module, [NOTHING; 6]),
        ("reboot", libc::SYS_reboot, [NOTHING; 6]),
        ("settimeofday", libc::SYS_settimeofday, [NOTHING; 6]),
        ("sched_setscheduler", libc::SYS_sched_setscheduler, [0, libc::SCHED_FIFO.into(), 0, 0, 0, 0]),
        ("inotify_init1", libc::SYS_inotify_init1, [NOTHING; 6]),
        ("memfd_secret", libc::SYS_memfd_secret, [NOTHING; 6]),
    ];
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK] {
        attempts.push(("socket", libc::SYS_socket, socket(family, libc::SOCK_STREAM)));
    }
    attempts.push(("socketpair", libc::SYS_socketpair, socket(libc::AF_UNIX, libc::SOCK_STREAM)));
    attempts
}

/// Calls that the setup may make, and no thread of a running guest.
fn after_setup() -> Vec<Attempt> {
    vec![("ioctl", libc::SYS_ioctl, [0, CREATE_MACHINE, 0, 0, 0, 0]), ("eventfd2", libc::SYS_eventfd2, [NOTHING; 6])]
}

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [role, thread, place] = arguments.as_slice()
        && role == "inside"
    {
        break_out(thread.parse().expect("a thread"), place.parse().expect("a place"));
    }
    // What `cargo test -- FILTER` passes.
    if arguments.iter().any(|argument| !argument.starts_with('-') && !"break_out".contains(argument.as_str())) {
        return;
    }
    let count = |thread| attempts_of(thread).len();
    let mut tried = 0;
    for (number, thread) in Thread::ALL.into_iter().enumerate() {
        for place in 0..count(thread) {
            check(number, place, attempts_of(thread)[place].0);
            tried += 1;
        }
    }
    println!("test {tried} attempts to break out ... ok");
}

fn attempts_of(thread: Thread) -> Vec<Attempt> {
    if thread == Thread::Setup { attempts() } else { [after_setup(), attempts()].concat() }
}

/// Runs an attempt, and checks that it ended its process and that the call is named.
fn check(thread: usize, place: usize, name: &str) {
    let mut child = Command::new(env::current_exe().expect("this program"));
    child.args(["inside", &thread.to_string(), &place.to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.stdin(Stdio::null()).spawn().expect("a process");
    let mut words = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut words).expect("words");
    let status = child.wait().expect("its end");
    let attempt = format!("{name} ({place}) by a thread of kind {thread}: {status}, {words}");
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{attempt}");
    assert!(words.starts_with(&format!("{VIOLATION}{name} (")), "{attempt}");
}

/// Enters the jail as a thread of this kind, and tries. Never returns.
fn break_out(thread: usize, place: usize) -> ! {
    let thread = Thread::ALL[thread];
    let attempts = attempts_of(thread);
    let (_, call, [a, b, c, d, e, f]) = attempts[place];
    jail::begin();
    let bounds = Bounds { memory: FrameCount::from_mib(64), disks: 0, largest_file: 0 };
    let process = rustix::process::getpid();
    jail::enter(Inmate { process, bounds, namespaces: Vec::new() }).expect("the jail");
    if thread != Thread::Setup {
        jail::confine(thread).expect("a filter");
    }
    // SAFETY: where the call is made, which is what this test is against, its arguments name at
    // most strings that are there.
    let result = unsafe { libc::syscall(call, a, b, c, d, e, f) };
    exit(if result < 0 { 1 } else { 2 });
}
