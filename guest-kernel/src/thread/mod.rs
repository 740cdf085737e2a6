//! Threads: created, switched, put to sleep and woken; preempted by the timer.
//!
//! The kernel's and the application's threads are of one kind, each with a stack of its own above a
//! guard page. [`table`] decides which thread runs (pure), with its [`run_queue`]; `scheduler`
//! carries the decisions out, `published` is what the host can
//! see of them, `switch` has the assembly of a context switch, `spawn` creates
//! threads, and `stack` is what both know of stacks. Threads wait for an [`event`]; `mutex` is
//! made of one.

mod event;
#[cfg(target_os = "none")]
mod mutex;
mod published;
mod run_queue;
#[cfg(target_os = "none")]
mod scheduler;
#[cfg(target_os = "none")]
mod spawn;
#[cfg(target_os = "none")]
mod stack;
#[cfg(target_os = "none")]
mod switch;
mod table;

#[cfg(target_os = "none")]
pub use self::{
    event::Event,
    mutex::{Mutex, MutexGuard},
    scheduler::yield_now,
    spawn::SpawnError,
};
#[cfg(target_os = "none")]
pub(crate) use self::{
    scheduler::{current, idle, is_another_ready, rest, sleep_until, start, validate},
    spawn::spawn_entry,
    table::{Priority, ThreadId},
};
