//! The handle of a guest under QEMU.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::Epoch;
use aerostat_abi::requests::Resources;
use aerostat_abi::units::FrameCount;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::Signal;

use super::complaints::Complaints;
use super::memory::StatusFile;
use super::qmp::ShutdownCause;
use super::tracker::Motion;
use super::worker::{Desk, Parting};
use crate::clock::Moment;
use crate::fleet::DetachRule;
use crate::host::cgroup::GuestGroup;
use crate::host::disk::OpenDisk;
use crate::host::process::{Exit, Process};
use crate::host::run_directory::GuestFiles;
use crate::host::{Confinement, EndReason, Ending, GuestEvent, GuestHandle, News, Observation, Origin};

/// How long the last words of a machine are waited for once its process has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Whose the machine is.
#[derive(Debug)]
pub(super) enum Ownership {
    /// Another program's: it is never ended, and left with the balloon as the rule says.
    Others(DetachRule),
    /// Ours.
    Ours(Possession),
}

/// What a machine of ours has besides its process.
#[derive(Debug)]
pub(super) struct Possession {
    /// What another supervisor finds it by. Removed once its end was reported.
    pub(super) files: Option<Arc<GuestFiles>>,
    /// Its disks, locked while they are open.
    pub(super) _disks: Vec<OpenDisk>,
    /// What it has written to standard error; `None` where an earlier supervisor has that.
    pub(super) complaints: Option<Complaints>,
    /// How this program ends it, if it does.
    pub(super) end: End,
    /// The control group of its process.
    pub(super) _group: Option<GuestGroup>,
}

/// How a machine of ours is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is not.
    Open,
    /// It was asked to end.
    Asked,
    /// It was killed.
    Killed,
}

/// A guest under QEMU.
#[derive(Debug)]
pub struct QemuGuest {
    desk: Arc<Desk>,
    ownership: Ownership,
    origin: Origin,
    /// The process, where it is known.
    process: Option<Process>,
    status: Option<Arc<StatusFile>>,
    /// Watches the thread and the process.
    events: OwnedFd,
    /// When the process was seen to have ended.
    gone: Option<Moment>,
    has_ended: bool,
}

/// What a handle is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) desk: Arc<Desk>,
    pub(super) ownership: Ownership,
    pub(super) origin: Origin,
    pub(super) process: Option<Process>,
    pub(super) status: Option<Arc<StatusFile>>,
}

impl QemuGuest {
    pub(super) fn new(parts: Parts) -> io::Result<Self> {
        let Parts { desk, ownership, origin, process, status } = parts;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&events, desk.news_fd(), EventData::new_u64(0), EventFlags::IN)?;
        if let Some(process) = &process {
            epoll::add(&events, process.as_fd(), EventData::new_u64(1), EventFlags::IN)?;
        }
        Ok(Self { desk, ownership, origin, process, status, events, gone: None, has_ended: false })
    }

    /// Returns the number of QEMU's process, where it is known.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Returns the last event once the guest has ended, or was left.
    fn end(&mut self) -> Option<Ending> {
        let now = Moment::now();
        let exit = self.process.as_mut().and_then(Process::exit);
        let (has_parted, is_cut_off, shutdown) = {
            let published = self.desk.published();
            (published.has_parted, published.is_cut_off, published.shutdown)
        };
        if let Some(exit) = exit {
            let gone = *self.gone.get_or_insert(now);
            // The thread reads what the machine said last until the connection is closed.
            let is_heard = has_parted || is_cut_off || now.since(gone) >= LAST_WORDS;
            return is_heard.then(|| self.ending_of(exit, shutdown));
        }
        let is_gone_unseen = self.process.is_none() && is_cut_off && shutdown.is_some();
        if is_gone_unseen {
            return Some(self.ending_of(Exit::Unknown, shutdown));
        }
        match &self.ownership {
            Ownership::Others(_) if has_parted => Some(Ending { reason: EndReason::Detached, details: Vec::new() }),
            Ownership::Others(_) | Ownership::Ours(_) => None,
        }
    }

    fn ending_of(&self, exit: Exit, shutdown: Option<ShutdownCause>) -> Ending {
        let (end, complaints) = match &self.ownership {
            Ownership::Ours(Possession { end, complaints, .. }) => (*end, complaints.as_ref()),
            Ownership::Others(_) => (End::Open, None),
        };
        let by_status = match exit {
            Exit::Status(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => Some(EndReason::Killed(signal)),
                (None, Some(0)) | (None, None) => None,
                (None, Some(code)) => Some(match GuestExit::from_qemu_status(code) {
                    Some(exit) => EndReason::Exited(exit),
                    None => EndReason::Failed(format!("QEMU ended with status {code}")),
                }),
            },
            Exit::Unknown => None,
        };
        let reason = by_status.unwrap_or_else(|| match shutdown {
            _ if end == End::Asked => EndReason::Stopped,
            _ if end == End::Killed => EndReason::Killed(Signal::KILL.as_raw()),
            Some(ShutdownCause::Guest) => EndReason::ShutDown,
            Some(ShutdownCause::GuestReset) => EndReason::Fault("the machine was reset".into()),
            Some(ShutdownCause::Host) => EndReason::EndedByOthers,
            None => EndReason::Failed("its QEMU process ended without a shutdown".into()),
        });
        let is_explained = reason.is_success() || matches!(reason, EndReason::Exited(_));
        let details = complaints.filter(|_| !is_explained).map(Complaints::lines).unwrap_or_default();
        Ending { reason, details }
    }
}

impl GuestHandle for QemuGuest {
    fn observe(&self) -> Observation {
        self.desk.published().observation.clone()
    }

    fn send_target(&mut self, target: FrameCount, epoch: Epoch) {
        self.desk.order(target, epoch);
    }

    /// A guest under QEMU has no driver that knows of resources.
    fn send_resources(&mut self, _resources: &Resources, _news: News) {}

    fn measure_resident(&self) -> Option<FrameCount> {
        let memory = self.status.as_ref()?.read()?;
        Some(memory.resident.saturating_sub(self.desk.published().own))
    }

    fn own_memory(&self) -> FrameCount {
        self.desk.published().own
    }

    fn confinement(&self) -> Confinement {
        Confinement::ByGuest
    }

    fn waited_for_processor(&self) -> Option<Duration> {
        self.process.as_ref()?.waited_for_processor()
    }

    fn origin(&self) -> Origin {
        self.origin
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    fn next_event(&mut self) -> Option<GuestEvent> {
        if self.has_ended {
            return None;
        }
        self.desk.hear();
        let next = {
            let mut published = self.desk.published();
            let is_empty = published.events.is_empty();
            (!is_empty).then(|| published.events.remove(0))
        };
        if next.is_some() {
            return next;
        }
        let ending = self.end()?;
        self.has_ended = true;
        let _ = epoll::delete(&self.events, self.desk.news_fd());
        if let Some(process) = &self.process {
            let _ = epoll::delete(&self.events, process);
        }
        Some(GuestEvent::Ended(ending))
    }

    /// Its memory is not ours to page.
    fn limit_resident(&mut self, _limit: Option<FrameCount>) {}

    fn pause(&mut self) {
        self.desk.set_motion(Motion::Stopped);
    }

    fn resume(&mut self) {
        self.desk.set_motion(Motion::Running);
    }

    /// QEMU releases ballooned memory itself.
    fn reclaim_ballooned(&mut self) {}

    /// QEMU has a debugger's interface for that, which stops the guest. QEMU's limit is that of its
    /// machine, from its start on: nothing keeps the guest from deflating its balloon.
    fn limit_process(&mut self, _size: FrameCount) {}

    /// QEMU answers while its guest does not, so it is never pressed from outside.
    fn squeeze(&mut self, _excess: FrameCount) -> bool {
        false
    }

    fn inspect(&mut self) {}

    /// A machine of another program is left. One of ours has no power button, so it ends at once.
    fn request_stop(&mut self) {
        match &mut self.ownership {
            Ownership::Others(rule) => self.desk.part(Parting::Detach(*rule)),
            Ownership::Ours(possession) => {
                possession.end = End::Asked;
                self.desk.part(Parting::Quit);
            }
        }
    }

    /// A machine of another program is left as it is.
    fn kill(&mut self) {
        match &mut self.ownership {
            Ownership::Others(_) => self.desk.part(Parting::HangUp),
            Ownership::Ours(possession) => {
                possession.end = End::Killed;
                if let Some(process) = &self.process {
                    process.kill();
                }
            }
        }
    }

    fn leave(mut self) {
        if let Ownership::Ours(possession) = &mut self.ownership {
            possession.files = None;
            self.process.iter_mut().for_each(Process::leave);
        }
        // The connection is closed when `self` is dropped.
    }
}

impl Drop for QemuGuest {
    fn drop(&mut self) {
        self.desk.part(Parting::HangUp);
        // A process that was not left is killed, and nothing is left of it.
        if let Ownership::Ours(Possession { files: Some(files), .. }) = &self.ownership {
            self.process.iter().for_each(Process::kill);
            files.remove();
        }
    }
}
