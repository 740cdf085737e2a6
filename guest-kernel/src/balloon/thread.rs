//! The driver's thread: it makes steps, publishes what they changed, reports, and sleeps.

use aerostat_abi::units::FrameCount;
use aerostat_balloon_driver::{Driver, Next, StallLog};

use super::host::{AnyHost, Host as _, StatisticsMode};
use super::log_stall_change;
use super::memory::KernelMemory;
use super::page_list::PageList;
use super::report_timer::ReportTimer;
use super::signals::SIGNALS;
use super::statistics;
use crate::mm::{FRAMES, slow_path};
use crate::requests::{self, REQUESTER, Update};
use crate::sync::{LockRank, SpinLock};
use crate::thread::{self, Priority, SpawnError};
use crate::time::Instant;

/// The driver on its way from [`spawn`] to the thread.
static STARTING: SpinLock<Option<(Driver<PageList>, AnyHost)>> = SpinLock::new(LockRank::BalloonStart, None);

/// Starts the thread.
///
/// # Errors
/// [`SpawnError`].
pub(super) fn spawn(driver: Driver<PageList>, host: AnyHost) -> Result<(), SpawnError> {
    *STARTING.lock() = Some((driver, host));
    thread::spawn_entry("balloon", Priority::Kernel, enter, 0).map(drop)
}

extern "C" fn enter(_: u64) {
    let Some((driver, host)) = STARTING.lock().take() else { return };
    SIGNALS.begin();
    let logged_size = driver.size();
    let timer = ReportTimer::new();
    DriverThread { driver, host, memory: KernelMemory::default(), timer, stall_log: StallLog::default(), logged_size }
        .run();
}

/// The state of the thread.
struct DriverThread {
    driver: Driver<PageList>,
    host: AnyHost,
    memory: KernelMemory,
    timer: ReportTimer,
    stall_log: StallLog,
    /// The guest size that was logged last.
    logged_size: FrameCount,
}

impl DriverThread {
    fn run(mut self) {
        loop {
            let next = self.driver.step(&mut self.host, &mut self.memory);
            self.publish(next);
            match next {
                Next::Continue => continue,
                Next::Rest => thread::rest(),
                Next::Wait { .. } | Next::Idle => {}
            }
            FRAMES.offer_spare();
            if !self.report_if_due() {
                let due = [self.exchange(), self.host.serve(Instant::now())].into_iter().flatten().min();
                self.sleep(next, due);
            }
        }
    }

    /// Publishes what a step has changed.
    fn publish(&mut self, next: Next) {
        let balloon = self.driver.balloon();
        let before = SIGNALS.set_balloon(balloon);
        if before > balloon {
            slow_path::note_deflated(before.saturating_sub(balloon));
            SIGNALS.wake_waiters();
            requests::wake();
        }
        let target = self.driver.target();
        slow_path::note_raised(target.saturating_sub(SIGNALS.set_target(target)));
        SIGNALS.set_wants_memory(self.driver.wants_memory());
        log_stall_change(&self.driver, &mut self.stall_log);
        let size = self.driver.size();
        if next == Next::Idle && size != self.logged_size {
            self.logged_size = size;
            log::debug!("balloon: the size is {size}; so far {:?}", self.driver.metrics());
        }
    }

    /// Makes a report if one is due. Returns whether it did: then the target may have changed.
    fn report_if_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = match self.host.statistics_mode() {
            StatisticsMode::Reported => self.timer.is_due(SIGNALS.report_demand(), now),
            StatisticsMode::Asked => true,
            StatisticsMode::NotAsked => {
                SIGNALS.end_flush_if_pending(); // the host has what it asked for
                false
            }
        };
        if !is_due {
            return false;
        }
        let is_flushing = SIGNALS.is_flushing();
        SIGNALS.begin_report();
        debug_assert_eq!(self.driver.page_list().validate(), Ok(()));
        debug_assert_eq!(thread::validate(), Ok(()));
        debug_assert_eq!(FRAMES.ballooned(), self.driver.balloon(), "the guest's size is wrong");
        let statistics = statistics::record(&self.driver, SIGNALS.wanted());
        self.timer.note_report(&statistics, now);
        let reply = self.host.report(&statistics);
        self.driver.note_reply(reply, now.as_nanos());
        if is_flushing {
            SIGNALS.end_flush();
        }
        true
    }

    /// Exchanges requests with the host. Returns when that is due again, if it is.
    fn exchange(&mut self) -> Option<Instant> {
        let exchanged = requests::exchange(&REQUESTER, &mut self.host, &requests::memory_state(), Instant::now());
        if exchanged.update == Update::Different {
            requests::wake();
        }
        exchanged.due
    }

    /// Sleeps until the next step, report or other work (at `due`) is due, or a request comes, and
    /// handles that.
    fn sleep(&mut self, next: Next, due: Option<Instant>) {
        let step_at = match next {
            Next::Continue | Next::Rest => return,
            Next::Wait { until_ns } => Some(Instant::from_nanos(until_ns)),
            Next::Idle => None,
        };
        let report_at = match self.host.statistics_mode() {
            StatisticsMode::Reported => Some(self.timer.due_at(SIGNALS.report_demand())),
            StatisticsMode::Asked => return,
            StatisticsMode::NotAsked => None,
        };
        SIGNALS.sleep([step_at, report_at, due].into_iter().flatten().min());
        if SIGNALS.take_target_change() {
            self.driver.refresh(&mut self.host, Instant::now().as_nanos());
        }
        if let Some(missing) = SIGNALS.take_relief() {
            self.driver.relieve(missing, Instant::now().as_nanos());
        }
        if SIGNALS.take_freed_memory() {
            self.driver.note_freed_memory();
        }
    }
}
