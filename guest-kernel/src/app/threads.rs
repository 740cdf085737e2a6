//! Threads for applications: closures that run beside each other and can be waited for.
#![allow(unsafe_code, reason = "a closure travels to its thread as an address")]

extern crate alloc;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use crate::thread::{self, Event, Mutex, Priority, SpawnError, sleep_until};
use crate::time::Instant;

type Work = Box<dyn FnOnce() + Send>;

/// Where a thread leaves its result.
struct Packet<T> {
    result: Mutex<Option<T>>,
    done: Event,
}

/// A running thread's result to be.
pub struct JoinHandle<T> {
    packet: Arc<Packet<T>>,
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinHandle")
    }
}

impl<T> JoinHandle<T> {
    /// Waits for the thread's result.
    #[must_use]
    pub fn join(self) -> T {
        loop {
            if let Some(result) = self.packet.result.lock().take() {
                return result;
            }
            self.packet.done.wait(None);
        }
    }
}

/// Runs `work` in a thread of its own.
///
/// # Errors
/// [`SpawnError`]; `work` is dropped then.
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, SpawnError> {
    let packet = Arc::new(Packet { result: Mutex::new(None), done: Event::new() });
    let for_thread = packet.clone();
    let work: Work = Box::new(move || {
        let result = work();
        *for_thread.result.lock() = Some(result);
        for_thread.done.signal();
    });
    let address = Box::into_raw(Box::new(work));
    let spawned = thread::spawn_entry(name, Priority::Application, run, address.expose_provenance() as u64);
    if let Err(error) = spawned {
        // SAFETY: no thread has received the address.
        drop(unsafe { Box::from_raw(address) });
        return Err(error);
    }
    Ok(JoinHandle { packet })
}

extern "C" fn run(address: u64) {
    let work = core::ptr::with_exposed_provenance_mut::<Work>(aerostat_abi::units::to_usize(address));
    // SAFETY: `spawn` made the address from a box and passed it to this thread alone.
    let work = unsafe { Box::from_raw(work) };
    work();
}

/// Sleeps for so many milliseconds.
pub fn sleep(milliseconds: u64) {
    sleep_until(Instant::now().after(milliseconds.saturating_mul(1_000_000)));
}
