//! Threads: created, switched, put to sleep and woken; preempted by the timer.
//!
//! The kernel's and the application's threads are of one kind, each with a stack of its own above a
//! guard page. A switch happens with the lock of the thread table held; the thread switched to
//! releases it, and finds the upcall mask as deep as it left it. Decisions are in [`table`], what
//! threads wait for in [`event`].

mod event;
#[cfg(target_os = "none")]
mod mutex;
mod table;

#[cfg(target_os = "none")]
pub use event::Event;
#[cfg(target_os = "none")]
pub use machine::{SpawnError, yield_now};
#[cfg(target_os = "none")]
pub(crate) use machine::{current, idle, is_another_ready, rest, sleep_until, spawn_entry, start, validate};
#[cfg(target_os = "none")]
pub use mutex::{Mutex, MutexGuard};
#[cfg(target_os = "none")]
pub(crate) use table::{Priority, ThreadId};

#[cfg(target_os = "none")]
#[allow(unsafe_code, reason = "stacks and context switches")]
mod machine {
    use core::arch::naked_asm;
    use core::fmt;
    use core::ops::Range;

    use aerostat_abi::units::{FrameCount, to_usize};

    use super::event::{WaitKey, WaitQueue, WakeCount};
    use super::table::{Priority, Table, ThreadId};
    use crate::arch::x86_64::interrupt::InterruptLine;
    use crate::arch::x86_64::{apic, cpu, ring0, trap};
    use crate::config::{APP_STACK_BYTES, KERNEL_STACK_BYTES, MAX_THREADS, REST_NS, TIME_SLICE_NS};
    use crate::layout::{STACK_SLOT_BYTES, STACKS};
    use crate::mm::{FRAMES, OutOfMemory, pinned, slow_path};
    use crate::report;
    use crate::sync::{self, LockRank, SpinGuard, SpinLock};
    use crate::time::Instant;

    /// What nothing has written to yet of a kernel thread's stack.
    const PAINT: u64 = 0x7061_696e_7465_6421;

    static SCHEDULER: SpinLock<Scheduler> = SpinLock::new(
        LockRank::Scheduler,
        Scheduler {
            table: Table::new(),
            contexts: [const { Context { rsp: 0, stack: 0..0 } }; MAX_THREADS],
            armed: None,
        },
    );

    struct Scheduler {
        table: Table,
        contexts: [Context; MAX_THREADS],
        /// When the timer will interrupt, as far as it is armed.
        armed: Option<Instant>,
    }

    /// What a thread that doesn't run consists of. The stack stays with its place in the table and
    /// serves the next thread there.
    struct Context {
        rsp: u64,
        stack: Range<u64>,
    }

    /// Why a thread could not be made.
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

    /// Makes the code that runs now the idle thread.
    pub(crate) fn start() {
        unsafe extern "C" {
            static boot_stack_bottom: u8;
            static boot_stack_top: u8;
        }
        let bounds = (&raw const boot_stack_bottom).expose_provenance() as u64
            ..(&raw const boot_stack_top).expose_provenance() as u64;
        let lowest = core::ptr::with_exposed_provenance::<[u64; 8]>(to_usize(bounds.start));
        // SAFETY: the words are the end of the boot stack, which nothing is below to guard; they
        // are zero unless it got so deep.
        if unsafe { lowest.read_volatile() } != [0; 8] {
            report::bad_machine("the boot stack is too small");
        }
        cpu::set_stack_bounds(&bounds);
        SCHEDULER.lock().contexts[ThreadId::IDLE.index()].stack = bounds;
        report::set_current_thread(current_name);
        trap::register_interrupt(InterruptLine::TIMER, timer_interrupt).expect("there is one scheduler");
        trap::set_reschedule(preempt);
    }

    /// The idle thread's life: halt until something happens. Entered with upcalls masked once,
    /// since boot.
    pub(crate) fn idle() -> ! {
        loop {
            cpu::unmask(); // delivers what arrived, and switches to whoever became ready
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

    /// Starts a thread at `entry(argument)`.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub(crate) fn spawn_entry(
        name: &'static str,
        priority: Priority,
        entry: extern "C" fn(u64),
        argument: u64,
    ) -> Result<ThreadId, SpawnError> {
        let bytes = if priority == Priority::Kernel { KERNEL_STACK_BYTES } else { APP_STACK_BYTES };
        // Committed like any memory, so that stacks can't eat what page tables need; and before a
        // place is taken, as it may wait.
        let mut commit_charge = FrameCount::from_bytes_ceil(bytes);
        slow_path::charge_commit(commit_charge).map_err(|OutOfMemory| SpawnError::OutOfMemory)?;
        let spawned =
            spawn_committed(&Spawn { name, priority, entry, argument, stack_bytes: bytes }, &mut commit_charge);
        FRAMES.uncharge_commit(commit_charge);
        spawned
    }

    /// What a thread is made from.
    struct Spawn {
        name: &'static str,
        priority: Priority,
        entry: extern "C" fn(u64),
        argument: u64,
        stack_bytes: u64,
    }

    /// Starts a thread with a stack out of `commit_charge`, of which the rest stays the caller's.
    fn spawn_committed(spawn: &Spawn, commit_charge: &mut FrameCount) -> Result<ThreadId, SpawnError> {
        let added = SCHEDULER.lock().table.add(spawn.name, spawn.priority);
        let thread = added.ok_or(SpawnError::TooManyThreads)?;
        let existing = SCHEDULER.lock().contexts[thread.index()].stack.clone();
        // A stack that is too small for its next thread grows downwards, into its slot.
        let top = STACKS.start + (u64::from(thread.0) + 1) * STACK_SLOT_BYTES;
        let mapped_from = if existing.is_empty() { top } else { existing.start };
        let stack = mapped_from.min(top - spawn.stack_bytes)..top;
        // All of it: a fault could not be handled on the stack that is missing.
        if pinned::map(stack.start..mapped_from, commit_charge).is_err() {
            let mut scheduler = SCHEDULER.lock();
            scheduler.table.forget(thread);
            return Err(SpawnError::OutOfMemory);
        }
        if cfg!(debug_assertions) && spawn.priority == Priority::Kernel {
            paint(&stack);
        }
        let mut scheduler = SCHEDULER.lock();
        let rsp = prepare_stack(&stack, spawn.entry, spawn.argument);
        scheduler.contexts[thread.index()] = Context { rsp, stack };
        scheduler.table.wake(thread);
        scheduler.arm_timer();
        Ok(thread)
    }

    /// The part of a kernel thread's stack that is to stay unused: a quarter, at its lower end.
    fn spare_part(stack: &Range<u64>) -> impl Iterator<Item = *mut u64> {
        (stack.start..stack.start + (stack.end - stack.start) / 4)
            .step_by(size_of::<u64>())
            .map(|address| core::ptr::with_exposed_provenance_mut(to_usize(address)))
    }

    /// Makes the spare part of a stack recognizable.
    fn paint(stack: &Range<u64>) {
        for word in spare_part(stack) {
            // SAFETY: the stack is mapped as a whole, and no thread uses it yet.
            unsafe { word.write(PAINT) };
        }
    }

    /// Looks whether kernel threads have kept to their stacks, in builds with debug assertions.
    ///
    /// # Errors
    /// A sentence, when one came near the end of its stack.
    pub(crate) fn validate() -> Result<(), &'static str> {
        for place in (1..MAX_THREADS).filter(|_| cfg!(debug_assertions)) {
            let scheduler = SCHEDULER.lock();
            let stack = scheduler.contexts[place].stack.clone();
            let is_painted = scheduler.table.is_kernel_thread(place) && !stack.is_empty();
            drop(scheduler);
            // SAFETY: a kernel thread's stack stays mapped as a whole.
            if is_painted && spare_part(&stack).any(|word| unsafe { word.read_volatile() } != PAINT) {
                return Err("a kernel thread has used more than three quarters of its stack");
            }
        }
        Ok(())
    }

    /// Lays out a stack so that the first switch to it arrives in `thread_start` with entry and
    /// argument in registers.
    fn prepare_stack(stack: &Range<u64>, entry: extern "C" fn(u64), argument: u64) -> u64 {
        // In the order in which `switch_stacks` pops: r15, r14, r13, r12, rbx, rbp, return address;
        // then a zero return address.
        let start = thread_start as *const () as usize as u64;
        let words = [0, 0, argument, entry as usize as u64, 0, 0, start, 0, 0];
        let rsp = stack.end - size_of_val(&words) as u64;
        let pointer = core::ptr::with_exposed_provenance_mut::<[u64; 9]>(to_usize(rsp));
        // SAFETY: the words lie within the stack, which was mapped and which no thread uses yet.
        unsafe { pointer.write(words) };
        rsp
    }

    /// First code of a thread: entry in R12, argument in R13.
    #[unsafe(naked)]
    extern "C" fn thread_start() {
        naked_asm!(
            "mov edi, 1",
            "call {finish_switch}",
            "mov rdi, r13",
            "call r12",
            "call {exit}",
            "ud2",
            finish_switch = sym finish_switch,
            exit = sym exit,
        );
    }

    /// Saves this thread's state on its stack and goes on with another's.
    #[unsafe(naked)]
    unsafe extern "C" fn switch_stacks(save: *mut u64, load: u64) {
        naked_asm!(
            "push rbp",
            "push rbx",
            "push r12",
            "push r13",
            "push r14",
            "push r15",
            "mov [rdi], rsp",
            "mov rsp, rsi",
            "pop r15",
            "pop r14",
            "pop r13",
            "pop r12",
            "pop rbx",
            "pop rbp",
            "ret",
        );
    }

    /// Goes on with the next thread; returns when this one is switched to again. The caller has
    /// said what becomes of it.
    fn switch(mut scheduler: SpinGuard<'_, Scheduler>) {
        let depth = cpu::mask_depth();
        let from = scheduler.table.current();
        let to = scheduler.table.take_next(Instant::now().after(TIME_SLICE_NS));
        scheduler.arm_timer();
        if from == to {
            return;
        }
        let load = scheduler.contexts[to.index()].rsp;
        cpu::set_stack_bounds(&scheduler.contexts[to.index()].stack);
        let save = &raw mut scheduler.contexts[from.index()].rsp;
        let held = sync::park();
        core::mem::forget(scheduler);
        // SAFETY: both contexts belong to the static table, whose lock is held across the switch;
        // `load` was saved by this very function or laid out by `prepare_stack`.
        unsafe { switch_stacks(save, load) };
        held.unpark();
        finish_switch(depth);
    }

    /// Goes on with the next thread, as the current one can't go on.
    fn sleep(scheduler: SpinGuard<'_, Scheduler>) {
        debug_assert_eq!(cpu::mask_depth(), 1, "a thread sleeps while it holds a spin lock");
        switch(scheduler);
    }

    /// Releases the table's lock, which the thread switched away from has left held, and gives this
    /// thread its own mask again, less what the lock's guard had added.
    extern "C" fn finish_switch(mask_depth: u64) {
        cpu::set_mask_depth(mask_depth);
        // SAFETY: whoever switched to this thread held the lock and forgot its guard.
        unsafe { SCHEDULER.release_forgotten() };
        cpu::unmask();
    }

    impl Scheduler {
        /// Arms the timer for what comes next, unless it is armed early enough.
        fn arm_timer(&mut self) {
            let Some(next) = self.table.next_timer() else { return };
            if self.armed.is_some_and(|armed| armed <= next) {
                return;
            }
            self.armed = Some(next);
            apic::arm_timer(next.since(Instant::now()));
        }
    }

    /// The timer's upcall. Arming it again is left to [`preempt`]: before that decision, the next
    /// moment may already be past.
    fn timer_interrupt(_: InterruptLine) {
        let mut scheduler = SCHEDULER.lock();
        scheduler.armed = None;
        scheduler.table.wake_due(Instant::now());
    }

    /// Makes room for another thread if it is time. Called at the end of upcalls, masked once.
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

    /// Lets the other threads run first.
    pub fn yield_now() {
        let mut scheduler = SCHEDULER.lock();
        if scheduler.table.is_runnable() {
            scheduler.table.yield_current();
            switch(scheduler);
        }
    }

    /// Lets others run for a moment, if any of them could.
    pub(crate) fn rest() {
        if is_another_ready() {
            sleep_until(Instant::now().after(REST_NS));
        }
    }

    /// Whether another thread could run now.
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

    /// Ends the current thread.
    extern "C" fn exit() -> ! {
        let mut scheduler = SCHEDULER.lock();
        scheduler.table.end_current();
        switch(scheduler);
        unreachable!("an ended thread was switched to")
    }

    /// The current thread.
    pub(crate) fn current() -> ThreadId {
        SCHEDULER.lock().table.current()
    }

    /// The current thread's name; for reports, so it never waits.
    fn current_name() -> &'static str {
        SCHEDULER.try_lock().map_or("unknown", |scheduler| scheduler.table.name(scheduler.table.current()))
    }

    /// Who waits for events: the thread table.
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
}
