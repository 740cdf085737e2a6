//! The scheduler: carries out what the thread table decides.
//!
//! A switch happens with the lock of the thread table held; the thread switched to releases it, and
//! gets back the depth of the upcall mask that it had.
#![allow(unsafe_code, reason = "context switches")]

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::event::{WaitKey, WaitQueue, WakeCount};
use super::stack;
use super::switch::switch_stacks;
use super::table::{Table, ThreadId};
use crate::arch::x86_64::interrupt::InterruptLine;
use crate::arch::x86_64::{apic, cpu, ring0, trap};
use crate::config::{MAX_THREADS, REST_NS, TIME_SLICE_NS};
use crate::report;
use crate::sync::{self, LockRank, SpinGuard, SpinLock};
use crate::time::Instant;

pub(super) static SCHEDULER: SpinLock<Scheduler> = SpinLock::new(
    LockRank::Scheduler,
    Scheduler { table: Table::new(), contexts: [const { Context { stack: 0..0 } }; MAX_THREADS], armed: None },
);

/// The thread table and all that its threads consist of.
pub(super) struct Scheduler {
    pub(super) table: Table,
    pub(super) contexts: [Context; MAX_THREADS],
    /// When the timer will interrupt, if it is armed.
    armed: Option<Instant>,
}

/// What a thread runs on. The stack stays with its place in the table and serves the next thread
/// there. The stack pointer of a thread that does not run is in the table, where the host can see
/// it.
pub(super) struct Context {
    pub(super) stack: Range<u64>,
}

/// Makes the code that runs now the idle thread, and takes the timer over.
pub(crate) fn start() {
    let stack = stack::boot_stack().unwrap_or_else(|| report::bad_machine("the boot stack is too small"));
    cpu::set_stack_bounds(&stack);
    let mut scheduler = SCHEDULER.lock();
    scheduler.contexts[ThreadId::IDLE.index()].stack = stack;
    scheduler.table.publish();
    drop(scheduler);
    report::set_current_thread(current_name);
    trap::register_interrupt(InterruptLine::TIMER, timer_interrupt).expect("there is one scheduler");
    trap::set_reschedule(preempt);
}

/// Halts until another thread is ready, for ever: the idle thread. Entered with upcalls masked
/// once, since boot.
pub(crate) fn idle() -> ! {
    loop {
        cpu::unmask(); // delivers what is pending, and switches to a thread that became ready
        core::mem::forget(cpu::UpcallMask::new());
        if !switch_if_ready() {
            ring0::halt();
        }
    }
}

fn switch_if_ready() -> bool {
    let mut scheduler = SCHEDULER.lock();
    let is_ready = scheduler.table.is_runnable();
    if is_ready {
        switch(scheduler);
    } else {
        scheduler.arm_timer();
    }
    is_ready
}

/// Lets the other threads run first.
pub fn yield_now() {
    let mut scheduler = SCHEDULER.lock();
    if scheduler.table.is_runnable() {
        scheduler.table.yield_current();
        switch(scheduler);
    }
}

/// Lets other threads run for a moment, if any of them could.
pub(crate) fn rest() {
    if is_another_ready() {
        sleep_until(Instant::now().after(REST_NS));
    }
}

/// Returns whether another thread could run now.
pub(crate) fn is_another_ready() -> bool {
    SCHEDULER.lock().table.is_runnable()
}

/// Sleeps until `moment`.
pub(crate) fn sleep_until(moment: Instant) {
    while Instant::now() < moment {
        let mut scheduler = SCHEDULER.lock();
        scheduler.table.block_current(None, Some(moment));
        sleep(scheduler);
    }
}

/// Returns the current thread.
pub(crate) fn current() -> ThreadId {
    SCHEDULER.lock().table.current()
}

/// Returns the current thread's name; for reports, so it never waits.
fn current_name() -> &'static str {
    SCHEDULER.try_lock().map_or("unknown", |scheduler| scheduler.table.name(scheduler.table.current()))
}

/// Checks that kernel threads leave a quarter of their stacks unused, in builds with debug
/// assertions.
///
/// # Errors
/// A sentence, when one of them has used more.
pub(crate) fn validate() -> Result<(), &'static str> {
    for place in (1..MAX_THREADS).filter(|_| cfg!(debug_assertions)) {
        let scheduler = SCHEDULER.lock();
        let stack = scheduler.contexts[place].stack.clone();
        let is_painted = scheduler.table.is_kernel_thread(place) && !stack.is_empty();
        drop(scheduler);
        // SAFETY: a kernel thread's stack stays mapped as a whole.
        if is_painted && !unsafe { stack::is_spare_part_unused(&stack) } {
            return Err("a kernel thread has used more than three quarters of its stack");
        }
    }
    Ok(())
}

/// Handles the timer's interrupt. [`preempt`] arms the timer again: before that decision, the next
/// moment may already be past.
fn timer_interrupt(_: InterruptLine) {
    let mut scheduler = SCHEDULER.lock();
    scheduler.armed = None;
    scheduler.table.wake_due(Instant::now());
}

/// Switches to another thread if it is time. Called at the end of upcalls, masked once.
fn preempt() {
    let mut scheduler = SCHEDULER.lock();
    let now = Instant::now();
    if scheduler.table.should_switch(now) {
        scheduler.table.preempt_current(now);
        switch(scheduler);
    } else {
        scheduler.arm_timer();
    }
}

/// Switches to the next thread, as the current one has to wait.
fn sleep(scheduler: SpinGuard<'_, Scheduler>) {
    debug_assert_eq!(cpu::mask_depth(), 1, "a thread sleeps while it holds a spin lock");
    switch(scheduler);
}

/// Switches to the next thread, and returns when this one is switched to again. The caller has told
/// the table what becomes of this one.
fn switch(mut scheduler: SpinGuard<'_, Scheduler>) {
    let depth = cpu::mask_depth();
    let from = scheduler.table.current();
    let to = scheduler.table.take_next(Instant::now().after(TIME_SLICE_NS));
    scheduler.arm_timer();
    if from == to {
        return;
    }
    let load = scheduler.table.stack_pointer(to).load(Ordering::Relaxed);
    cpu::set_stack_bounds(&scheduler.contexts[to.index()].stack);
    let save = scheduler.table.stack_pointer(from).as_ptr();
    let held = sync::park();
    core::mem::forget(scheduler);
    // SAFETY: `save` belongs to the static table, whose lock is held across the switch; `load` was
    // saved by this very function or by `stack::prepare`.
    unsafe { switch_stacks(save, load) };
    held.unpark();
    finish_switch(depth);
}

/// Releases the table's lock, which the thread switched away from has left held, and gives this
/// thread its own mask again, less what the lock's guard had added.
pub(super) extern "C" fn finish_switch(mask_depth: u64) {
    cpu::set_mask_depth(mask_depth);
    // SAFETY: the thread that switched to this one held the lock and forgot its guard.
    unsafe { SCHEDULER.release_forgotten() };
    cpu::unmask();
}

/// Ends the current thread.
pub(super) extern "C" fn exit() -> ! {
    let mut scheduler = SCHEDULER.lock();
    scheduler.table.end_current();
    switch(scheduler);
    unreachable!("an ended thread was switched to")
}

impl Scheduler {
    /// Arms the timer for the next moment that matters, unless it is armed early enough.
    pub(super) fn arm_timer(&mut self) {
        let Some(next) = self.table.next_timer() else { return };
        if self.armed.is_some_and(|armed| armed <= next) {
            return;
        }
        self.armed = Some(next);
        apic::arm_timer(next.since(Instant::now()));
    }
}

/// The threads that wait for events: the thread table has them.
pub(super) struct Waiters;

impl WaitQueue for Waiters {
    fn wake_count(&self) -> WakeCount {
        SCHEDULER.lock().table.wake_count()
    }

    fn sleep(&self, key: WaitKey, seen: WakeCount, until: Option<Instant>) {
        let mut scheduler = SCHEDULER.lock();
        let is_over = until.is_some_and(|until| until <= Instant::now());
        if is_over || scheduler.table.wake_count() != seen {
            return;
        }
        scheduler.table.block_current(Some(key), until);
        sleep(scheduler);
    }

    fn wake(&self, key: WaitKey) -> bool {
        let mut scheduler = SCHEDULER.lock();
        let has_woken = scheduler.table.wake_waiters(key);
        if has_woken {
            scheduler.arm_timer();
        }
        has_woken
    }
}
