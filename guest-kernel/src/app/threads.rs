//! Threads for applications: closures that run concurrently and can be joined.
#![allow(unsafe_code, reason = "a closure travels to its thread as an address")]

extern crate alloc;

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use aerostat_abi::threads::Wait;

use crate::thread::{self, Event, Mutex, Priority, SpawnError, sleep_until};
use crate::time::Instant;

/// What thread and handle share. The last of the two to release it frees it. It is allocated by
/// hand, as a full heap must be an error and not a panic.
struct Packet<T> {
    owners: AtomicU32,
    result: Mutex<Option<T>>,
    done: Event,
}

/// The packet, and the work until the thread has begun it.
#[repr(C)]
struct Parcel<T, W> {
    packet: Packet<T>,
    work: Option<W>,
}

/// The owner of a thread's future result.
pub struct JoinHandle<T> {
    packet: NonNull<Packet<T>>,
    /// Frees the parcel, whose full type only `spawn` knows.
    free: unsafe fn(NonNull<Packet<T>>),
}

// SAFETY: the handle gives access to a `T` that another thread made, and to nothing else.
unsafe impl<T: Send> Send for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinHandle")
    }
}

impl<T> JoinHandle<T> {
    /// Waits for the thread's result, and returns it.
    #[must_use]
    pub fn join(self) -> T {
        // SAFETY: the handle is one of the packet's owners.
        let packet = unsafe { self.packet.as_ref() };
        loop {
            if let Some(result) = packet.result.lock().take() {
                return result;
            }
            packet.done.wait(None);
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        // SAFETY: the handle is one of the packet's owners, and gone after this.
        unsafe { (self.free)(self.packet) };
    }
}

/// Runs `work` in a thread of its own.
///
/// # Errors
/// [`SpawnError`]; `work` is dropped then.
pub fn spawn<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(
    name: &'static str,
    work: W,
) -> Result<JoinHandle<T>, SpawnError> {
    // SAFETY: a parcel is not of size zero.
    let parcel = NonNull::new(unsafe { alloc(Layout::new::<Parcel<T, W>>()) }).ok_or(SpawnError::OutOfMemory)?;
    let parcel = parcel.cast::<Parcel<T, W>>();
    let packet = Packet { owners: AtomicU32::new(2), result: Mutex::new(None), done: Event::of(Wait::Thread) };
    // SAFETY: just allocated with this layout, and not shared yet.
    unsafe { parcel.write(Parcel { packet, work: Some(work) }) };
    let address = parcel.as_ptr().expose_provenance() as u64;
    let handle = JoinHandle { packet: parcel.cast(), free: release::<T, W> };
    let spawned = thread::spawn_entry(name, Priority::Application, run::<T, W>, address);
    if let Err(error) = spawned {
        // SAFETY: the thread that was to be the second owner does not exist.
        unsafe { release::<T, W>(handle.packet) };
        return Err(error);
    }
    Ok(handle)
}

extern "C" fn run<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(address: u64) {
    let pointer = core::ptr::with_exposed_provenance_mut::<Parcel<T, W>>(aerostat_abi::units::to_usize(address));
    // SAFETY: `spawn` made the address from a parcel and passed it to this thread alone, as one of
    // its two owners.
    let parcel = unsafe { NonNull::new_unchecked(pointer) };
    // SAFETY: the work is this thread's alone; the handle knows the packet only.
    let work = unsafe { &mut (*pointer).work }.take();
    // SAFETY: as an owner.
    let packet = unsafe { parcel.cast::<Packet<T>>().as_ref() };
    if let Some(work) = work {
        let result = work();
        *packet.result.lock() = Some(result);
        packet.done.signal();
    }
    // SAFETY: this thread is an owner, and does not use the parcel again.
    unsafe { release::<T, W>(parcel.cast()) };
}

/// Releases one ownership of the parcel around `packet`; the last one frees it.
///
/// # Safety
/// The packet is the beginning of a `Parcel<T, W>`, and the caller is one of its owners and won't
/// use it again.
unsafe fn release<T, W>(packet: NonNull<Packet<T>>) {
    // SAFETY: an owner keeps the packet alive.
    if unsafe { packet.as_ref() }.owners.fetch_sub(1, Ordering::Release) > 1 {
        return;
    }
    fence(Ordering::Acquire);
    let parcel = packet.cast::<Parcel<T, W>>();
    // SAFETY: there is no other owner.
    unsafe { parcel.drop_in_place() };
    // SAFETY: allocated in `spawn` with this layout.
    unsafe { dealloc(parcel.as_ptr().cast(), Layout::new::<Parcel<T, W>>()) };
}

/// Sleeps for this many milliseconds.
pub fn sleep(milliseconds: u64) {
    sleep_until(Instant::now().after(milliseconds.saturating_mul(1_000_000)));
}
