//! A word to the application when memory is short, so that it can shrink its caches before pages
//! are evicted.
//!
//! Callbacks run in a thread of their own, started with the first of them. Whoever found memory
//! short waits a moment for them, and goes on without them if they take longer.

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;

use super::Pressure;
use crate::config::PRESSURE_GRACE_NS;
use crate::mm::shortage::{self, Listener};
use crate::patience::Patience;
use crate::sync::{LockRank, SpinLock};
use crate::thread::{self, Event, Mutex, Priority, SpawnError, ThreadId};
use crate::time::Instant;

type Callback = Box<dyn FnMut(Pressure) + Send>;

/// Callbacks that the thread has not taken over yet, and whether there is a thread.
static REGISTERED: Mutex<Registered> =
    Mutex::ranked(LockRank::PressureCallbacks, Registered { new: Vec::new(), is_running: false });

struct Registered {
    new: Vec<Callback>,
    is_running: bool,
}

/// Wakes the thread; callbacks have returned.
static HEARD: Event = Event::new();
static DONE: Event = Event::new();
/// From the word until the callbacks have returned; and how bad it is.
static IS_BUSY: AtomicBool = AtomicBool::new(false);
static IS_HIGH: AtomicBool = AtomicBool::new(false);
/// How long eviction still waits for them.
static GRACE: SpinLock<Patience> = SpinLock::new(LockRank::Grace, Patience::new(0));
/// The thread.
static THREAD: Once<ThreadId> = Once::new();

/// Has `callback` called whenever memory is short, at most some ten times a second, and for as long
/// as the guest runs. It may free memory, take locks and register others; what it frees within 20
/// ms need not be evicted.
///
/// # Errors
/// [`SpawnError`] when there is no thread for it, or no memory to remember it; `callback` is
/// dropped then.
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
            return; // still at it
        }
        *GRACE.lock() = Patience::new(PRESSURE_GRACE_NS);
        IS_HIGH.store(pressure == Pressure::High, Ordering::Relaxed);
        HEARD.signal();
    }

    fn wait(&self) {
        // A callback that needs memory itself would wait in vain.
        let is_own_thread = THREAD.get() == Some(&thread::current());
        while !is_own_thread && IS_BUSY.load(Ordering::Relaxed) {
            let next = GRACE.lock().look(Instant::now());
            let Some(until) = next else { return };
            DONE.wait(Some(until));
        }
    }
}

/// The callbacks' thread.
extern "C" fn run(_: u64) {
    let mut callbacks: Vec<Callback> = Vec::new();
    loop {
        HEARD.wait(None);
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
