//! The system calls of a VMM process, by the kind of thread that makes them, each with its reason.
//! Everything else is a violation.
//!
//! The build script compiles the table to filters. The calls
//! are those of two C libraries: musl, with which the program is shipped, and glibc. A new call
//! shows itself: the process ends and its report names the call.

/// A condition on an argument of a call, by its place. Only the low 32 bits of an argument count:
/// none of those that are compared has more.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// It has one of these values.
    Is(u8, &'static [u32]),
    /// It has none of these bits.
    Lacks(u8, u32),
    /// It has all of these bits.
    Has(u8, u32),
    /// It is the process's own number.
    IsOwnProcess(u8),
}

/// Stands for the process's own number in a compiled filter. No process has it.
pub(super) const OWN_PROCESS: u32 = 0x7fff_fff1;

/// A call that some threads may make, if all conditions hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// Its number.
    pub(super) call: libc::c_long,
    /// The kinds of threads, besides [`Thread::Setup`].
    pub(super) threads: &'static [Thread],
    /// What must hold.
    pub(super) when: &'static [When],
}

const fn allowed(call: libc::c_long, threads: &'static [Thread], when: &'static [When]) -> Allowed {
    Allowed { call, threads, when }
}

use crate::thread::Thread;

use Thread::{Disk, Loader, Main, Paging, Vcpu};
use When::{Has, Is, IsOwnProcess, Lacks};

const ALL: &[Thread] = &[Main, Vcpu, Disk, Loader, Paging];
/// Threads that touch the link, the log or the balloon.
const CORE: &[Thread] = &[Main, Vcpu];
/// Threads that change what is behind guest memory.
const MEMORY: &[Thread] = &[Main, Vcpu, Paging];
/// Threads that write to disks or the host's swap file, and the one that starts them.
const FILES: &[Thread] = &[Main, Disk, Paging];
/// The threads that start threads: the pager's are started when the first limit arrives. They
/// inherit the filter of the one that starts them, so it allows what they do.
const STARTER: &[Thread] = &[Main];
const SETUP: &[Thread] = &[];
const ANY: &[When] = &[];

/// The argument of `ioctl` that names what is asked for.
const REQUEST: u8 = 1;
const NO_EXEC: When = Lacks(2, libc::PROT_EXEC as u32);
/// Flags of memory that has no file.
const ANONYMOUS: u32 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u32;
/// Flags with which C libraries start a thread: glibc, and musl, which adds CLONE_DETACHED.
const NEW_THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u32;
const ADVICE: &[u32] = &[
    libc::MADV_NORMAL as u32,
    libc::MADV_DONTNEED as u32,
    libc::MADV_DONTDUMP as u32,
    libc::MADV_FREE as u32,
    libc::MADV_HUGEPAGE as u32,
    libc::MADV_NOHUGEPAGE as u32,
    libc::MADV_COLD as u32,
];
/// `fcntl` commands: whether a call waits, and the seals of a register page.
const DESCRIPTOR_STATUS: &[u32] =
    &[libc::F_GETFD as u32, libc::F_GETFL as u32, libc::F_SETFL as u32, libc::F_GET_SEALS as u32];
/// Signals of this process to its threads.
const OWN_SIGNALS: &[u32] = &[libc::SIGUSR1 as u32, libc::SIGUSR2 as u32, libc::SIGABRT as u32];
/// Signals whose handling an abort, or an overflow of a stack, resets.
const LAST_SIGNALS: &[u32] = &[libc::SIGABRT as u32, libc::SIGSEGV as u32, libc::SIGBUS as u32];

/// KVM's requests (`linux/kvm.h`).
mod kvm {
    pub(super) const RUN: u32 = 0xae80;
    /// Raises an interrupt; more memory for the guest.
    pub(super) const BOTH: &[u32] = &[0x4020_aea5, 0x4020_ae46];
    /// Registers and addresses, for reports.
    pub(super) const VCPU: &[u32] = &[RUN, 0x8090_ae81, 0x8138_ae83, 0xc018_ae85];
    /// Which capabilities there are, the machine and its parts, and the first registers.
    pub(super) const SETUP: &[u32] = &[
        0xae00,      // GET_API_VERSION
        0xae01,      // CREATE_VM
        0xae03,      // CHECK_EXTENSION
        0xae04,      // GET_VCPU_MMAP_SIZE
        0xae41,      // CREATE_VCPU
        0xae47,      // SET_TSS_ADDR
        0xae60,      // CREATE_IRQCHIP
        0xaea3,      // GET_TSC_KHZ
        0x4068_aea3, // ENABLE_CAP
        0x4010_ae67, // REGISTER_COALESCED_MMIO
        0x4010_ae68, // UNREGISTER_COALESCED_MMIO
        0x4020_ae76, // IRQFD
        0x4040_ae79, // IOEVENTFD
        0x4008_ae6a, // SET_GSI_ROUTING
    ];
    /// The vCPU's first state, which its thread sets.
    pub(super) const FIRST_STATE: &[u32] = &[0x4008_ae90, 0x4138_ae84, 0x4090_ae82];
}

/// Requests of a userfaultfd (`linux/userfaultfd.h`): registering and unregistering a range,
/// waking, moving.
const FAULT: &[u32] = &[0xc020_aa00, 0x8010_aa01, 0x8010_aa02, 0xc028_aa05];

/// The table. The calls of a running guest's hottest path come first.
pub(super) const TABLE: &[Allowed] = &[
    // The guest, its interrupts, its memory; inspections.
    allowed(libc::SYS_ioctl, &[Vcpu], &[Is(REQUEST, kvm::VCPU)]),
    allowed(libc::SYS_ioctl, CORE, &[Is(REQUEST, kvm::BOTH)]),
    allowed(libc::SYS_ioctl, &[Vcpu], &[Is(REQUEST, kvm::FIRST_STATE)]),
    allowed(libc::SYS_ioctl, SETUP, &[Is(REQUEST, kvm::SETUP)]),
    allowed(libc::SYS_ioctl, MEMORY, &[Is(REQUEST, FAULT)]),
    // Eventfds, the log, standard error; faults from a userfaultfd.
    allowed(libc::SYS_read, ALL, ANY),
    allowed(libc::SYS_write, ALL, ANY),
    allowed(libc::SYS_writev, ALL, ANY),
    allowed(libc::SYS_close, ALL, ANY),
    // Locks, waiting, time.
    allowed(libc::SYS_futex, ALL, ANY),
    allowed(libc::SYS_poll, ALL, ANY),
    allowed(libc::SYS_ppoll, ALL, ANY),
    allowed(libc::SYS_sched_yield, ALL, ANY),
    allowed(libc::SYS_clock_gettime, ALL, ANY),
    allowed(libc::SYS_clock_nanosleep, ALL, ANY),
    allowed(libc::SYS_nanosleep, ALL, ANY),
    allowed(libc::SYS_restart_syscall, ALL, ANY),
    // Memory: never executable; of files only the register page.
    allowed(libc::SYS_mmap, ALL, &[NO_EXEC, Has(3, ANONYMOUS)]),
    allowed(libc::SYS_mmap, &[Main], &[NO_EXEC, Is(3, &[libc::MAP_SHARED as u32])]),
    allowed(libc::SYS_munmap, ALL, ANY),
    allowed(libc::SYS_mremap, ALL, ANY),
    allowed(libc::SYS_mprotect, ALL, &[NO_EXEC]),
    allowed(libc::SYS_brk, ALL, ANY),
    allowed(libc::SYS_madvise, ALL, &[Is(2, ADVICE)]),
    allowed(libc::SYS_process_madvise, MEMORY, &[Is(3, ADVICE)]),
    allowed(libc::SYS_mincore, MEMORY, ANY),
    // The link, over which any thread reports its panic; the doorbell, the next supervisor.
    allowed(libc::SYS_sendmsg, ALL, ANY),
    allowed(libc::SYS_recvmsg, &[Main], ANY),
    allowed(libc::SYS_recvfrom, &[Main], ANY),
    allowed(libc::SYS_shutdown, &[Main], ANY),
    allowed(libc::SYS_accept4, &[Main], ANY),
    allowed(libc::SYS_getsockopt, &[Main], ANY),
    allowed(libc::SYS_fcntl, ALL, &[Is(1, DESCRIPTOR_STATUS)]),
    // A register page of its own, for the time without a supervisor.
    allowed(libc::SYS_memfd_create, &[Main], &[Is(1, &[libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING])]),
    allowed(libc::SYS_fcntl, &[Main], &[Is(1, &[libc::F_ADD_SEALS as u32])]),
    // Images, measurements, disks, the host's swap file.
    allowed(libc::SYS_pread64, ALL, ANY),
    allowed(libc::SYS_preadv, FILES, ANY),
    allowed(libc::SYS_pwrite64, FILES, ANY),
    allowed(libc::SYS_pwritev, FILES, ANY),
    allowed(libc::SYS_fdatasync, FILES, ANY),
    allowed(libc::SYS_fallocate, FILES, ANY),
    // A log that is full: its contents go to the file of the previous generation.
    allowed(libc::SYS_lseek, CORE, ANY),
    allowed(libc::SYS_ftruncate, CORE, ANY),
    allowed(libc::SYS_copy_file_range, CORE, ANY),
    allowed(libc::SYS_sendfile, CORE, ANY),
    allowed(libc::SYS_splice, CORE, ANY),
    allowed(libc::SYS_fstat, ALL, ANY),
    allowed(libc::SYS_newfstatat, ALL, &[Has(3, libc::AT_EMPTY_PATH as u32)]),
    allowed(libc::SYS_statx, ALL, &[Has(2, libc::AT_EMPTY_PATH as u32)]),
    // Signals among the process's own threads, and their handlers' ends.
    allowed(libc::SYS_tkill, &[Main, Vcpu, Disk, Paging], &[Is(1, OWN_SIGNALS)]),
    allowed(libc::SYS_tgkill, &[Main, Vcpu, Disk, Paging], &[IsOwnProcess(0), Is(2, OWN_SIGNALS)]),
    allowed(libc::SYS_rt_sigreturn, ALL, ANY),
    allowed(libc::SYS_rt_sigprocmask, ALL, ANY),
    allowed(libc::SYS_rt_sigaction, ALL, &[Is(0, LAST_SIGNALS)]),
    allowed(libc::SYS_rt_sigaction, SETUP, &[Is(0, OWN_SIGNALS)]),
    // glibc's own signal among threads, whose handler the first new thread installs.
    allowed(libc::SYS_rt_sigaction, SETUP, &[Is(0, &[33])]),
    // Starts and ends of threads, and the process's.
    allowed(libc::SYS_sigaltstack, ALL, ANY),
    allowed(libc::SYS_getpid, ALL, ANY),
    allowed(libc::SYS_gettid, ALL, ANY),
    allowed(libc::SYS_getrandom, ALL, ANY),
    allowed(libc::SYS_exit, ALL, ANY),
    allowed(libc::SYS_exit_group, ALL, ANY),
    allowed(libc::SYS_clone, STARTER, &[Is(0, &[NEW_THREAD, NEW_THREAD | 0x40_0000])]),
    // The filters answer it with ENOSYS, as its flags lie in memory; glibc then uses `clone`.
    allowed(libc::SYS_clone3, STARTER, ANY),
    allowed(libc::SYS_set_robust_list, STARTER, ANY),
    allowed(libc::SYS_rseq, STARTER, ANY),
    allowed(libc::SYS_membarrier, STARTER, ANY),
    allowed(libc::SYS_sched_getaffinity, STARTER, ANY),
    allowed(libc::SYS_prctl, STARTER, &[Is(0, &[libc::PR_SET_NAME as u32])]),
    allowed(libc::SYS_seccomp, STARTER, &[Is(0, &[libc::SECCOMP_SET_MODE_FILTER]), Is(1, &[0])]),
    // What guests' devices are made of.
    allowed(libc::SYS_mmap, SETUP, &[NO_EXEC, Is(3, &[libc::MAP_SHARED as u32])]),
    allowed(libc::SYS_eventfd2, SETUP, ANY),
    allowed(libc::SYS_pidfd_open, SETUP, &[IsOwnProcess(0)]),
    allowed(libc::SYS_fcntl, SETUP, &[Is(1, &[libc::F_DUPFD_CLOEXEC as u32, libc::F_SETFD as u32])]),
];
