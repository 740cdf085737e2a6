//! The thread that serves accesses to what is not in guest memory.
//!
//! It takes the table's lock and no other that a thread may hold while it touches guest memory, so
//! every access is served, whatever its thread holds. The whole huge frame comes back at once: the
//! access costs some 300 us besides, and a huge page is worth more than a quick answer.
//!
//! A guest at its limit pays for what comes back: something in the swap cache is written first. So
//! resident memory stays at the limit, whose excess may cost the process its life where a control
//! group limits it too.
//!
//! A guest that thrashes is slowed down here, by a bound on how much comes back in a second. So its
//! disk and the processor time of this process stay free for others.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aerostat_abi::units::{FRAME_SIZE, FrameCount, HUGE_FRAMES};
use aerostat_link::clock::Moment;
use aerostat_link::token_bucket::{Allowance, TokenBucket};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mm::Advice;

use super::area::Area;
use super::mover::Paging;
use super::table::ToRead;
use crate::page_sizes::HugeIndex;
use crate::resident::ResidentMeter;

/// Accesses that are served: 1 GiB of them at once, and then so many a second.
const ACCESSES: Allowance = Allowance { per_second: 400, burst: 512 };
/// Huge frames that are written at most before one comes back.
const MOST_WRITES: usize = 4;
/// How often a failed read is tried again, and the pause before.
const MOST_READS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// What the thread has.
#[derive(Debug)]
pub(super) struct FaultService {
    paging: Arc<Paging>,
    meter: Arc<ResidentMeter>,
    staging: Area,
    accesses: TokenBucket,
}

impl FaultService {
    pub(super) fn new(paging: Arc<Paging>, meter: Arc<ResidentMeter>) -> io::Result<Self> {
        let staging = Area::new(1, Advice::LinuxHugepage)?;
        Ok(Self { paging, meter, staging, accesses: TokenBucket::new(ACCESSES) })
    }

    /// Runs for ever, or until accesses can't be served any more, which ends the guest.
    pub(super) fn run(mut self) {
        let end = Ending(Arc::clone(&self.paging));
        if let Err(error) = self.serve_all() {
            end.0.fail(format!("the guest's memory can't be brought back: {error}"));
        }
    }

    fn serve_all(&mut self) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(self.paging.userfault(), PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            while let Some(address) = self.paging.userfault().next_fault()? {
                self.serve(address)?;
            }
        }
    }

    fn serve(&mut self, address: usize) -> io::Result<()> {
        let Some(offset) = self.paging.memory().offset(address) else { return Ok(()) };
        let Some(to_read) = self.paging.serve(HugeIndex::holding(offset / FRAME_SIZE)) else { return Ok(()) };
        self.make_room();
        self.read(&to_read)?;
        self.paging.notify();
        let wait = self.accesses.borrow(Moment::now());
        if wait > Duration::ZERO {
            thread::sleep(wait);
        }
        Ok(())
    }

    /// Writes what waits in the swap cache, if the guest is at its limit. The access is served in
    /// any case: a guest that can't be paged out any further must be able to go on.
    fn make_room(&self) {
        let Some(limit) = self.paging.limit() else { return };
        for _ in 0..MOST_WRITES {
            let needed = self.meter.measure().map(|resident| resident.saturating_add(FrameCount(HUGE_FRAMES)));
            // An error of the file is the pager's to report, which meets it too.
            if needed.is_ok_and(|needed| needed <= limit) || !self.paging.write_oldest().unwrap_or(false) {
                return;
            }
        }
    }

    fn read(&self, to_read: &ToRead) -> io::Result<()> {
        let mut to_read = to_read.clone();
        for _ in 1..MOST_READS {
            if self.paging.bring_in(&to_read, &self.staging).is_ok() {
                return Ok(());
            }
            thread::sleep(PAUSE);
            match self.paging.serve(to_read.huge) {
                Some(again) => to_read = again,
                // The pager is at it, or the frames were forgotten.
                None => return Ok(()),
            }
        }
        self.paging.bring_in(&to_read, &self.staging)
    }
}

/// Ends the guest when the thread ends, by a panic too: an access would wait for ever.
struct Ending(Arc<Paging>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.fail("the thread that brings the guest's memory back has ended".to_owned());
    }
}
