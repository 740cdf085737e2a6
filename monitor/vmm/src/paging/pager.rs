//! The pager's thread: holds resident memory at its limit, and brings the guest back when there is
//! room.
//!
//! It works in steps of a huge frame, so it notices another limit within some milliseconds. It
//! takes the balloon device's lock for single moves, never while the file is read or written.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES, to_usize};
use aerostat_link::clock::Moment;
use rustix::mm::Advice;

use super::area::Area;
use super::mover::{CACHE_SLOTS, Departure, Paging};
use super::victims::Sweep;
use crate::balloon::{Balloon, BalloonHost};
use crate::lock::lock;
use crate::page_sizes::HugeIndex;
use crate::problems::Problems;
use crate::resident::ResidentMeter;
use crate::shared_registers::SharedRegisters;
use crate::supervisor_link::SupervisorLink;

/// How often resident memory is compared with its limit.
const POLL: Duration = Duration::from_millis(10);
/// Huge frames that wait in the swap cache besides those that have to leave: the guest gets a
/// chance to touch them before they are written.
const SPARE: usize = 8;
/// Room below the limit at which what is out comes back unasked.
const ROOM: FrameCount = FrameCount::from_mib(32);
/// Pauses after a failed transfer: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the thread has.
#[derive(Debug)]
pub(super) struct Pager<H> {
    paging: Arc<Paging>,
    balloon: Arc<Mutex<Balloon<H>>>,
    meter: Arc<ResidentMeter>,
    registers: Arc<SharedRegisters>,
    problems: Problems,
    sweep: Sweep,
    staging: Area,
    /// Where the next huge frame that comes back unasked is searched.
    at: HugeIndex,
    /// The pause after the next failure.
    pause: Duration,
    /// Whether something was moved out since the file was cleared.
    is_file_used: bool,
}

impl<H: BalloonHost> Pager<H> {
    pub(super) fn new(
        paging: Arc<Paging>,
        balloon: Arc<Mutex<Balloon<H>>>,
        (meter, registers): (Arc<ResidentMeter>, Arc<SharedRegisters>),
        link: Arc<SupervisorLink>,
    ) -> io::Result<Self> {
        let huge_frames = to_usize(paging.memory().layout().total().0.div_ceil(HUGE_FRAMES));
        Ok(Self {
            paging,
            balloon,
            meter,
            registers,
            problems: Problems::new(link),
            sweep: Sweep::new(huge_frames),
            staging: Area::new(1, Advice::LinuxHugepage)?,
            at: HugeIndex(0),
            pause: FIRST_PAUSE,
            is_file_used: false,
        })
    }

    /// Runs for ever.
    pub(super) fn run(mut self) {
        loop {
            let limit = self.paging.limit();
            match self.step(limit) {
                Ok(Some(Duration::ZERO)) => self.pause = FIRST_PAUSE,
                Ok(patience) => self.paging.wait(limit, patience),
                Err(error) => {
                    self.problems.report(format_args!("the host can't page this guest as it should: {error}"));
                    self.paging.wait(limit, Some(self.pause));
                    self.pause = LONGEST_PAUSE.min(2 * self.pause);
                }
            }
        }
    }

    /// Moves a huge frame to where it should be. Returns how long the thread may sleep; `None`:
    /// until something changes.
    fn step(&mut self, limit: Option<FrameCount>) -> io::Result<Option<Duration>> {
        let resident = self.publish_resident()?;
        match limit {
            Some(limit) if resident > limit => self.shrink(resident.saturating_sub(limit)),
            Some(limit) if resident.saturating_add(ROOM) <= limit => Ok(self.bring_back()?.or(Some(POLL))),
            Some(_) => Ok(Some(POLL)),
            None => {
                self.paging.empty_cache();
                match self.bring_back()? {
                    Some(patience) => Ok(Some(patience)),
                    None => self.rest(),
                }
            }
        }
    }

    fn publish_resident(&self) -> io::Result<FrameCount> {
        // As in `Sampler`: what a call releases meanwhile must not be missing.
        let _no_call = lock(&self.balloon);
        self.meter.publish(&self.registers.page())
    }

    /// Frees a huge frame of the guest, which has `excess` frames too many.
    fn shrink(&mut self, excess: FrameCount) -> io::Result<Option<Duration>> {
        let wanted = to_usize(excess.0.div_ceil(HUGE_FRAMES)).saturating_add(SPARE).min(CACHE_SLOTS);
        while self.paging.cached() < wanted && self.move_one_out() {}
        let is_written = self.paging.write_oldest()?;
        Ok(Some(if is_written { Duration::ZERO } else { POLL }))
    }

    /// Moves a huge frame into the swap cache; returns whether there was one.
    fn move_one_out(&mut self) -> bool {
        for _ in 0..self.sweep.len() {
            let huge = self.sweep.next();
            if !self.paging.may_leave(huge) {
                continue;
            }
            // A device that reads into guest memory right now does so wherever its pages are.
            let _no_transfer = self.paging.memory().transfers().hold();
            let departure = lock(&self.balloon).page_out(huge);
            if departure == Departure::Left {
                self.is_file_used = true;
                return true;
            }
        }
        false
    }

    /// Brings a huge frame back, if one is out. Takes at most half of the time, so that the disk is
    /// free for others.
    fn bring_back(&mut self) -> io::Result<Option<Duration>> {
        let Some(next) = self.paging.begin_next_read(self.at) else { return Ok(None) };
        let begin = Moment::now();
        self.paging.bring_in(&next, &self.staging)?;
        self.at = HugeIndex(next.huge.0 + 1);
        self.pause = FIRST_PAUSE;
        Ok(Some(Moment::now().since(begin).max(Duration::from_micros(1))))
    }

    /// Frees the file, once nothing is out. Then there is nothing to do until there is a limit.
    fn rest(&mut self) -> io::Result<Option<Duration>> {
        let is_back = {
            let _no_call = lock(&self.balloon);
            self.paging.end_use()
        };
        if !is_back {
            // The other thread reads the last ones.
            return Ok(Some(POLL));
        }
        if std::mem::take(&mut self.is_file_used) {
            self.paging.clear_file()?;
        }
        Ok(None)
    }
}
