//! Warnings of memory pressure, so that the application can shrink its caches before pages are
//! evicted.
//!
//! Callbacks run in a thread of their own, which is started with the first of them. The thread that
//! found memory short waits for them for a moment, and continues if they take longer.

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::threads::Wait;

use spin::Once;

use super::Pressure;
use crate::config::PRESSURE_GRACE_NS;
use crate::mm::shortage::{self, Listener};
use crate::patience::Patience;
use crate::sync::{LockRank, SpinLock};
use crate::thread::{self, Event, Mutex, Priority, SpawnError, ThreadId};
use crate::time::Instant;

type Callback = Box<dyn FnMut(Pressure) + Send>;

/// Callbacks that their thread has not taken over yet, and whether there is a thread.
static REGISTERED: Mutex<Registered> =
    Mutex::ranked(LockRank::PressureCallbacks, Registered { new: Vec::new(), is_running: false });

struct Registered {
    new: Vec<Callback>,
    is_running: bool,
}

/// Wakes the callbacks' thread.
static WARNED: Event = Event::of(Wait::Work);
/// Signaled when the callbacks have returned.
static DONE: Event = Event::of(Wait::Memory);
/// True from a warning until the callbacks have returned.
static IS_BUSY: AtomicBool = AtomicBool::new(false);
/// Whether the latest warning was of high pressure.
static IS_HIGH: AtomicBool = AtomicBool::new(false);
/// How long eviction still waits for the callbacks.
static GRACE: SpinLock<Patience> = SpinLock::new(LockRank::Grace, Patience::new(0));
/// The callbacks' thread.
static THREAD: Once<ThreadId> = Once::new();

/// Registers `callback`, which is called whenever memory is short, at most about ten times a
/// second, until the guest ends. It may free memory, take locks and register other callbacks. What
/// it frees within 20 ms need not be evicted.
///
/// # Errors
/// [`SpawnError`] when there is no thread for the callbacks, or no memory to store this one;
/// `callback` is dropped then.
pub fn on_pressure(callback: Box<dyn FnMut(Pressure) + Send>) -> Result<(), SpawnError> {
    let mut registered = REGISTERED.lock();
    registered.new.try_reserve(1).map_err(|_| SpawnError::OutOfMemory)?;
    if !registered.is_running {
        let thread = thread::spawn_entry("pressure", Priority::Application, run, 0)?;
        THREAD.call_once(|| thread);
        registered.is_running = true;
        shortage::set_listener(&Caches);
    }
    registered.new.push(callback);
    Ok(())
}

/// The callbacks as memory management sees them.
struct Caches;

impl Listener for Caches {
    fn hear(&self, pressure: Pressure) {
        if IS_BUSY.swap(true, Ordering::Acquire) {
            return; // the callbacks have not returned yet
        }
        *GRACE.lock() = Patience::new(PRESSURE_GRACE_NS);
        IS_HIGH.store(pressure == Pressure::High, Ordering::Relaxed);
        WARNED.signal();
    }

    fn wait(&self) {
        // A callback that needs memory itself would wait in vain.
        let is_own_thread = THREAD.get() == Some(&thread::current());
        while !is_own_thread && IS_BUSY.load(Ordering::Relaxed) {
            let next = GRACE.lock().charge(Instant::now());
            let Some(until) = next else { return };
            DONE.wait(Some(until));
        }
    }
}

/// Runs the callbacks' thread.
extern "C" fn run(_: u64) {
    let mut callbacks: Vec<Callback> = Vec::new();
    loop {
        WARNED.wait(None);
        if !IS_BUSY.load(Ordering::Acquire) {
            continue;
        }
        let mut registered = REGISTERED.lock();
        if callbacks.try_reserve(registered.new.len()).is_ok() {
            callbacks.append(&mut registered.new);
        }
        drop(registered);
        let pressure = if IS_HIGH.load(Ordering::Relaxed) { Pressure::High } else { Pressure::Low };
        for callback in &mut callbacks {
            callback(pressure);
        }
        IS_BUSY.store(false, Ordering::Release);
        DONE.signal();
    }
}
