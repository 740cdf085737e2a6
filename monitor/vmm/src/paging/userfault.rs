//! A userfaultfd: has this process told of accesses to memory that is not there, and moves pages.
//!
//! The kernel stops the thread that touches a missing page of a registered range until the page is
//! there, whatever the thread is: the vCPU, a device's worker in a system call, or any other. KVM
//! and direct I/O make such accesses within the kernel, which only a descriptor that was made with
//! privileges handles. `UFFDIO_MOVE` (Linux 6.8) moves pages, huge ones included, from one range to
//! another at once and without a copy. It refuses pages that are pinned for I/O.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mm::{UserfaultfdFlags, userfaultfd};

/// `UFFD_API`, the version of the interface.
const API: u64 = 0xaa;
const FEATURE_MOVE: u64 = 1 << 16;
const REGISTER_MISSING: u64 = 1;
const MOVE_ALLOW_HOLES: u64 = 2;
const EVENT_PAGEFAULT: u8 = 0x12;

/// Numbers of the calls (`linux/userfaultfd.h`).
mod call {
    use super::{Api, Move, Range, Register};

    const fn number(direction: u64, bytes: usize, number: u64) -> u64 {
        direction << 30 | (bytes as u64) << 16 | super::API << 8 | number
    }

    pub(super) const API: u64 = number(3, size_of::<Api>(), 0x3f);
    pub(super) const REGISTER: u64 = number(3, size_of::<Register>(), 0);
    pub(super) const UNREGISTER: u64 = number(2, size_of::<Range>(), 1);
    pub(super) const WAKE: u64 = number(2, size_of::<Range>(), 2);
    pub(super) const MOVE: u64 = number(3, size_of::<Move>(), 5);
    /// Of `/dev/userfaultfd`: makes a descriptor.
    pub(super) const NEW: u64 = number(0, 0, 0);
}

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    calls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    bytes: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    calls: u64,
}

#[repr(C)]
struct Move {
    to: u64,
    from: u64,
    bytes: u64,
    mode: u64,
    moved: i64,
}

/// Bytes of a message, and where its fields are.
const MESSAGE_BYTES: usize = 32;
const ADDRESS: std::ops::Range<usize> = 16..24;

/// Memory of this process: where it starts, and its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: *mut u8,
    pub(super) bytes: usize,
}

impl Span {
    fn range(self) -> Range {
        Range { start: self.start.addr() as u64, bytes: self.bytes as u64 }
    }
}

/// The descriptor.
#[derive(Debug)]
pub(crate) struct Userfault(OwnedFd);

impl Userfault {
    /// Makes a descriptor; fails where the kernel can't move pages, or this process may not handle
    /// faults of the kernel.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: without the flag that restricts it to user mode. What handles its faults is this
        // module's user, and nothing is registered yet.
        let made = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK) };
        let userfault = match made {
            Err(Errno::PERM) => from_device()?,
            made => made?,
        };
        let userfault = Self(userfault);
        let mut api = Api { api: API, features: FEATURE_MOVE, calls: 0 };
        // SAFETY: the kernel reads and writes this structure.
        unsafe { userfault.call(call::API, &raw mut api) }?;
        Ok(userfault)
    }

    /// Stops threads that touch missing pages of `span` from now on.
    ///
    /// # Safety
    /// A thread has to serve the faults, and needs none of the memory to do so.
    pub(super) unsafe fn register(&self, span: Span) -> io::Result<()> {
        let mut register = Register { range: span.range(), mode: REGISTER_MISSING, calls: 0 };
        // SAFETY: the kernel reads and writes this structure, and the caller serves the faults.
        unsafe { self.call(call::REGISTER, &raw mut register) }
    }

    /// Ends that, and wakes the threads that were stopped there.
    pub(super) fn unregister(&self, span: Span) -> io::Result<()> {
        let mut range = span.range();
        // SAFETY: the kernel reads this structure; missing pages are what they were before.
        unsafe { self.call(call::UNREGISTER, &raw mut range) }
    }

    /// Wakes the threads that were stopped in `span`.
    pub(super) fn wake(&self, span: Span) -> io::Result<()> {
        let mut range = span.range();
        // SAFETY: the kernel reads this structure. A thread that is woken early stops again.
        unsafe { self.call(call::WAKE, &raw mut range) }
    }

    /// Moves the pages of `from` to the range from `to` on, which is registered and has none, and
    /// wakes the threads that were stopped there. Pages that are missing stay missing.
    ///
    /// # Errors
    /// Returns how many bytes of the range were moved, and why not all.
    ///
    /// # Safety
    /// There are no references to memory of either range.
    pub(super) unsafe fn move_pages(&self, from: Span, to: *mut u8) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while done < from.bytes {
            let mut request = Move {
                to: (to.addr() + done) as u64,
                from: (from.start.addr() + done) as u64,
                bytes: (from.bytes - done) as u64,
                mode: MOVE_ALLOW_HOLES,
                moved: 0,
            };
            // SAFETY: the kernel reads and writes this structure, and moves pages to which there
            // are no references, as the caller guarantees.
            let result = unsafe { self.call(call::MOVE, &raw mut request) };
            // On an error that comes at once, the kernel stores its number there.
            done += usize::try_from(request.moved).unwrap_or(0);
            match result {
                Ok(()) => {}
                Err(error) if is_transient(&error) => std::thread::yield_now(),
                Err(error) => return Err((done, error)),
            }
        }
        Ok(())
    }

    /// Returns the address of the next access to a missing page, if there is one.
    pub(super) fn next_fault(&self) -> io::Result<Option<usize>> {
        let mut message = [0_u8; MESSAGE_BYTES];
        match rustix::io::read(&self.0, &mut message) {
            Ok(MESSAGE_BYTES) if message[0] == EVENT_PAGEFAULT => {
                let address = message[ADDRESS].try_into().map(u64::from_ne_bytes).map_err(io::Error::other)?;
                Ok(usize::try_from(address).ok())
            }
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// # Safety
    /// `argument` is the structure of the call.
    unsafe fn call<T>(&self, number: u64, argument: *mut T) -> io::Result<()> {
        // SAFETY: as the caller guarantees.
        unsafe { ioctl(self.0.as_fd(), number, argument.cast()) }.map(drop)
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns whether the kernel asks to try again: another thread works on a page, or the layout of
/// the address space has changed meanwhile.
fn is_transient(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::INTR))
}

/// Makes a descriptor by the device, which a user may have been given access to.
fn from_device() -> io::Result<OwnedFd> {
    let device = open("/dev/userfaultfd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|_| Errno::PERM)?;
    let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
    // SAFETY: the call takes flags instead of a pointer, and returns a new descriptor.
    let made = unsafe { ioctl(device.as_fd(), call::NEW, std::ptr::without_provenance_mut(flags)) }?;
    // SAFETY: it is new, so it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// # Safety
/// `argument` is what the call takes.
unsafe fn ioctl(fd: BorrowedFd<'_>, number: u64, argument: *mut c_void) -> io::Result<libc::c_int> {
    // The type of the number differs between C libraries.
    let number = number as _;
    // SAFETY: as the caller guarantees.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
