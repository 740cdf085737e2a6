//! Filters of system calls (seccomp(2)), one for each kind of thread.
//!
//! A table (`build/table.rs`) says which calls a thread may make. The build script compiles it to
//! programs for the kernel, so a start compiles nothing and the compiler is not in this process.
//! A thread's filters add up: a call needs the consent of the setup's and of the thread's own.
//!
//! A violation raises SIGSYS in the thread, whose handler writes down the call's name, for the
//! supervisor, and then violates its filter again. As the signal is blocked meanwhile, the kernel
//! ends the process. Nothing that runs in the process can change that: no filter allows another
//! handler for the signal, and a handler that does not get so far has not made the call either.
//!
//! Not `SECCOMP_RET_KILL_PROCESS` alone, which says nothing to the parent; and not
//! `SECCOMP_RET_USER_NOTIF`, which makes a process wait for its supervisor.

mod names;
mod thread;

use std::fmt::{self, Write};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::io::Errno;
use rustix::process::getpid;

pub use self::thread::Thread;

/// An instruction of a filter: code, both jumps, operand.
type Instruction = (u16, u8, u8, u32);

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// Begins the report of a violation, on standard error.
pub const VIOLATION: &str = "the jail of its process forbids the system call ";
/// The longest report.
const MOST_BYTES: usize = 256;
const UNKNOWN_CALL: libc::c_long = 0xf_ffff;

/// Whether the process has its filter.
static IS_CONFINED: AtomicBool = AtomicBool::new(false);
/// Where the end of the guest is recorded; -1 for nowhere.
static RECORD: AtomicI32 = AtomicI32::new(-1);

/// Makes a violation be recorded as the guest's end in `record`, too, which must stay open.
pub fn record_violations_in(record: BorrowedFd<'_>) {
    RECORD.store(record.as_raw_fd(), Ordering::Relaxed);
}

/// Confines the process, which has one thread, to what any of its threads may do.
pub(super) fn begin() -> Result<(), Errno> {
    report_violations()?;
    install(Thread::Setup)?;
    IS_CONFINED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Confines the calling thread to what threads of this kind may do, where the process is confined:
/// a host may lack seccomp.
///
/// # Errors
///
/// Returns the kernel's error. The thread must not go on.
pub fn confine(thread: Thread) -> io::Result<()> {
    if IS_CONFINED.load(Ordering::Relaxed) { Ok(install(thread)?) } else { Ok(()) }
}

fn install(thread: Thread) -> Result<(), Errno> {
    let own_process = getpid().as_raw_nonzero().get().unsigned_abs();
    let program: Vec<_> = FILTERS[thread as usize]
        .iter()
        .map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k: if k == OWN_PROCESS { own_process } else { k } })
        .collect();
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program and its length belong together, and the kernel copies it.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    check(result)
}

fn report_violations() -> Result<(), Errno> {
    // SAFETY: all zeros is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = report as extern "C" fn(_, _, _) as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler makes only calls that are allowed in one.
    check(unsafe { libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) }.into())
}

fn check(result: libc::c_long) -> Result<(), Errno> {
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// Handles SIGSYS: reports the call and ends the process.
extern "C" fn report(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    /// What the kernel says of a forbidden call (`_sigsys` in sigaction(2)).
    #[repr(C)]
    struct ForbiddenCall {
        header: [libc::c_int; 4],
        address: *const libc::c_void,
        call: libc::c_int,
        arch: libc::c_uint,
    }
    // SAFETY: the kernel passes what belongs to the signal.
    let call = unsafe { (*info.cast::<ForbiddenCall>()).call };
    let name = names::name(call.into());
    let mut text = Text::new();
    if writeln!(text, "{VIOLATION}{name} ({call})").is_ok() {
        text.write_to(libc::STDERR_FILENO);
    }
    let record = RECORD.load(Ordering::Relaxed);
    let mut text = Text::new();
    let ending = write!(text, r#"{{"reason":{{"Failed":"{VIOLATION}{name} ({call})"}},"details":[]}}"#);
    if record >= 0 && ending.is_ok() {
        text.write_to(record);
    }
    loop {
        // SAFETY: the kernel has no such call, and every filter forbids it.
        unsafe { libc::syscall(UNKNOWN_CALL) };
    }
}

/// A short text, made without the heap.
struct Text {
    bytes: [u8; MOST_BYTES],
    length: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; MOST_BYTES], length: 0 }
    }

    fn write_to(&self, file: RawFd) {
        // SAFETY: so many bytes are there. Where the write fails, nothing is left to do.
        unsafe { libc::write(file, self.bytes.as_ptr().cast(), self.length) };
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}
