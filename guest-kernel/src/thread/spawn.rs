//! Creates threads.
#![allow(unsafe_code, reason = "prepares stacks")]

use core::fmt;
use core::sync::atomic::Ordering;

use aerostat_abi::units::FrameCount;

use super::scheduler::{Context, SCHEDULER};
use super::stack::{self, Entry};
use super::table::{Priority, ThreadId};
use crate::config::{APP_STACK_BYTES, KERNEL_STACK_BYTES};
use crate::mm::{FRAMES, OutOfMemory, pinned, slow_path};

/// Why a thread could not be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnError {
    /// The thread table is full.
    TooManyThreads,
    /// There is no memory for a stack.
    OutOfMemory,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyThreads => "the thread table is full",
            Self::OutOfMemory => "no memory for a stack",
        })
    }
}

/// What a thread is made from.
struct Spawn {
    name: &'static str,
    priority: Priority,
    entry: Entry,
    stack_bytes: u64,
}

/// Starts a thread at `function(argument)`.
///
/// # Errors
/// [`SpawnError`].
pub(crate) fn spawn_entry(
    name: &'static str,
    priority: Priority,
    function: extern "C" fn(u64),
    argument: u64,
) -> Result<ThreadId, SpawnError> {
    let stack_bytes = if priority == Priority::Kernel { KERNEL_STACK_BYTES } else { APP_STACK_BYTES };
    // Stacks are committed like any memory, so that they can't use up what page tables need; and
    // before a place in the table is taken, as that may wait.
    let mut commit_charge = FrameCount::from_bytes_ceil(stack_bytes);
    slow_path::charge_commit(commit_charge).map_err(|OutOfMemory| SpawnError::OutOfMemory)?;
    let entry = Entry { function, argument };
    let spawned = spawn_committed(&Spawn { name, priority, entry, stack_bytes }, &mut commit_charge);
    FRAMES.uncharge_commit(commit_charge);
    spawned
}

/// Starts a thread with a stack out of `commit_charge`; the caller keeps the rest of that.
fn spawn_committed(spawn: &Spawn, commit_charge: &mut FrameCount) -> Result<ThreadId, SpawnError> {
    let added = SCHEDULER.lock().table.add(spawn.name, spawn.priority);
    let thread = added.ok_or(SpawnError::TooManyThreads)?;
    let existing = SCHEDULER.lock().contexts[thread.index()].stack.clone();
    // A stack that is too small for its next thread grows downwards, into its slot.
    let top = stack::top(thread);
    let mapped_from = if existing.is_empty() { top } else { existing.start };
    let stack = mapped_from.min(top - spawn.stack_bytes)..top;
    // All of it is mapped now: a fault could not be handled on the stack that is missing.
    if pinned::map_stack(stack.start..mapped_from, commit_charge).is_err() {
        SCHEDULER.lock().table.forget(thread);
        return Err(SpawnError::OutOfMemory);
    }
    if cfg!(debug_assertions) && spawn.priority == Priority::Kernel {
        // SAFETY: the stack is mapped, and its thread does not run yet.
        unsafe { stack::paint(&stack) };
    }
    // SAFETY: as above.
    let rsp = unsafe { stack::prepare(&stack, spawn.entry) };
    let mut scheduler = SCHEDULER.lock();
    scheduler.contexts[thread.index()] = Context { stack };
    scheduler.table.stack_pointer(thread).store(rsp, Ordering::Relaxed);
    scheduler.table.wake(thread);
    scheduler.arm_timer();
    Ok(thread)
}
