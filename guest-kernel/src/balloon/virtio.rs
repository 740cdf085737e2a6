//! The monitor, through a virtio balloon: the host is one that others wrote.
//!
//! Such a host does not say which frames are in the balloon, refuses nothing, and gives memory back
//! whose contents are unknown. A session is the time between two resets of the device. At its
//! beginning the balloon is empty, so its list has no entries, and frames of an earlier session are
//! the guest's.

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::requests::{Generation, Request, Resources};
use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::{FrameCount, FrameNumber};
use aerostat_balloon_driver::{Listed, Monitor, Reply};

use super::free_page_hints::FreePageHinter;
use super::free_pages::FreePageReporter;
use super::host::{Host, StatisticsMode};
use super::signals::{self, SIGNALS};
use crate::drivers::balloon::device::{Direction, Lost};
use crate::drivers::balloon::features::Features;
use crate::drivers::balloon::start::{self, Device, HostWait};
use crate::drivers::virtio::VirtioDevice;
use crate::mm::{self, FRAMES};
use crate::requests::ResourceHost;
use crate::time::Instant;

/// How often the target is read from a device whose interrupts are not sure to arrive.
const POLL_NS: u64 = 2_000_000_000;

/// A virtio balloon.
#[derive(Debug)]
pub(super) struct VirtioBalloon {
    device: Device,
    /// The guest size that the host wanted when it was asked last.
    target: FrameCount,
    /// Frames in the balloon.
    actual: FrameCount,
    reporter: FreePageReporter,
    hinter: FreePageHinter,
    /// What the log says of the device; it is logged again only when it is different.
    logged: Logged,
    /// When the target is read again from a device whose interrupts are not sure to arrive.
    poll_at: Instant,
}

/// What was logged last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logged {
    Nothing,
    Works,
    Fails,
}

impl VirtioBalloon {
    /// Opens the balloon behind a device, to which nothing has been said yet. Returns `None` if
    /// there is no memory.
    pub(super) fn open(device: VirtioDevice) -> Option<Self> {
        let device = start::open(device, signals::check_target)?;
        FRAMES.distrust_unbacked();
        let (target, actual) = (mm::total_frames(), FrameCount::ZERO);
        let (reporter, hinter, logged) = (FreePageReporter::new(), FreePageHinter::new(), Logged::Nothing);
        Some(Self { device, target, actual, reporter, hinter, logged, poll_at: Instant::default() })
    }

    /// Ends the session, which the driver answers with another one.
    fn lose(&mut self, lost: Lost) -> Reply {
        if core::mem::replace(&mut self.logged, Logged::Fails) != Logged::Fails {
            log::warn!("balloon: the device is reset: {lost}");
        }
        self.reporter.stop();
        self.hinter.stop();
        Reply { status: Status::ResetOrdered, target: self.target }
    }

    fn reply(&self) -> Reply {
        Reply { status: Status::Ok, target: self.target }
    }

    /// Reads the target again.
    fn read_target(&mut self) {
        self.target = mm::total_frames().saturating_sub(FrameCount(self.device.wanted_pages().into()));
    }

    fn move_entries(&mut self, direction: Direction, entries: &mut [Entry]) -> Option<Reply> {
        let frames = entries.iter().flat_map(|entry| (entry.frame.0..entry.frame.0 + entry.count().0).map(FrameNumber));
        if let Err(lost) = self.device.move_frames(direction, frames, &mut HostWait::new()) {
            return Some(self.lose(lost));
        }
        for entry in entries.iter_mut() {
            entry.status = EntryStatus::Done;
        }
        let moved = entries.iter().fold(FrameCount::ZERO, |sum, entry| sum.saturating_add(entry.count()));
        self.set_actual(match direction {
            Direction::Inflate => self.actual.saturating_add(moved),
            Direction::Deflate => self.actual.saturating_sub(moved),
        });
        // The latest wish counts, also in the middle of a burst.
        if start::take_change() {
            return self.target();
        }
        Some(self.reply())
    }

    fn set_actual(&mut self, actual: FrameCount) {
        self.actual = actual;
        self.device.set_actual(u32::try_from(actual.0).unwrap_or(u32::MAX));
    }
}

impl Monitor for VirtioBalloon {
    fn negotiate(&mut self) -> Option<Reply> {
        match self.device.set_up() {
            Ok(features) => {
                if core::mem::replace(&mut self.logged, Logged::Works) != Logged::Works {
                    log::info!("balloon: virtio, {features}");
                }
                SIGNALS.set_permits_relief(features.contains(Features::DEFLATE_ON_OOM));
                self.set_actual(FrameCount::ZERO);
                self.read_target();
                Some(self.reply())
            }
            Err(error) => {
                if core::mem::replace(&mut self.logged, Logged::Fails) != Logged::Fails {
                    log::warn!("balloon: the device can't be used: {error}");
                }
                None
            }
        }
    }

    fn enable_features(&mut self) {
        if self.device.takes_reports() {
            self.reporter.start(Instant::now());
        }
    }

    fn reset(&mut self) -> Option<Reply> {
        self.reporter.stop();
        self.hinter.stop();
        self.device.reset().ok().map(|()| self.reply())
    }

    fn list(&mut self, _: FrameNumber, _: &mut [Entry; CAPACITY]) -> Option<Listed> {
        Some(Listed { reply: self.reply(), count: 0, next: None })
    }

    fn target(&mut self) -> Option<Reply> {
        if let Err(lost) = self.device.check() {
            return Some(self.lose(lost));
        }
        self.read_target();
        Some(self.reply())
    }

    fn inflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.move_entries(Direction::Inflate, entries)
    }

    fn deflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.move_entries(Direction::Deflate, entries)
    }
}

/// There are no requests: the host learns what the guest needs by asking for statistics.
impl ResourceHost for VirtioBalloon {
    fn generation(&self) -> Option<Generation> {
        None
    }

    fn resources(&mut self) -> Option<Resources> {
        None
    }

    fn request(&mut self, _: &Request) {}
}

impl Host for VirtioBalloon {
    fn statistics_mode(&mut self) -> StatisticsMode {
        match self.device.wants_statistics() {
            Ok(true) => StatisticsMode::Asked,
            Ok(false) => StatisticsMode::NotAsked,
            Err(_) => {
                signals::check_target(); // which tells the driver that the session is over
                StatisticsMode::NotAsked
            }
        }
    }

    fn report(&mut self, statistics: &Statistics) -> Option<Reply> {
        match self.device.answer(statistics) {
            Ok(()) => Some(self.reply()),
            Err(lost) => Some(self.lose(lost)),
        }
    }

    fn serve(&mut self, now: Instant) -> Option<Instant> {
        let report_at = self.reporter.serve(&mut self.device, now);
        let hint_at = self.hinter.serve(&mut self.device, now).unwrap_or_else(|_| {
            signals::check_target(); // which tells the driver that the session is over
            None
        });
        if !self.device.is_sure_to_interrupt() && now >= self.poll_at {
            self.poll_at = now.after(POLL_NS);
            signals::check_target();
        }
        let poll_at = (!self.device.is_sure_to_interrupt()).then_some(self.poll_at);
        [report_at, hint_at, poll_at].into_iter().flatten().min()
    }
}
