//! A guest in its own VMM process.
//!
//! The handle owns the process: dropping it ends the process and waits a moment for it. The
//! messages of the process and the way it ended become one stream of events. The last event is
//! [`GuestEvent::Ended`], sent once the process is gone and its memory is free.
//!
//! A process is started ([`VmmGuest::spawn`]), or taken over from a supervisor that is gone
//! ([`VmmGuest::adopt`]). With a [`Succession`] it survives this supervisor in the same way.

mod adopt;
mod events;
mod jail_check;
mod last_words;
mod namespaces;
mod record;
mod spawn;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use aerostat_abi::registers::{Epoch, RegisterPage};
use aerostat_abi::requests::Resources;
use aerostat_abi::units::FrameCount;
use aerostat_link::message::ToVmm;
use aerostat_link::{Doorbell, Link, Patience, SharedPage};
use rustix::event::epoll::{self, EventData, EventFlags};

pub use self::adopt::{AdoptError, Adopted, Survivor, find_survivors};
pub use self::jail_check::missing_in_jail;
use self::last_words::LastWords;
pub use self::record::{GuestRecord, Succession, recorded_ending};
pub use self::spawn::{GuestConfig, SpawnError};
use super::cgroup::{GuestGroup, Location};
use super::process::Process;
use super::run_directory::GuestFiles;
use super::squeeze::{Squeezer, Subject};
use super::{Ending, GuestEvent, GuestHandle, News, Observation, capacity};
use crate::clock::Moment;
use crate::token_bucket::{Allowance, TokenBucket};
use crate::vmm;

/// What a process may send, in short messages; a longer one counts as several. It reports pressure
/// two hundred times a second at most, and changes of use and requests as often, and the supervisor
/// may be behind.
const MESSAGES: Allowance = Allowance { per_second: 800, burst: 2000 };
/// Problems that a process may report: it reports one, and panics of its threads.
const MOST_PROBLEMS: u32 = 4;
/// A guest in a VMM process.
#[derive(Debug)]
pub struct VmmGuest {
    process: Process,
    link: Option<Link>,
    /// Messages that the process may still send.
    messages: TokenBucket,
    /// Problems that it may still report.
    problems_left: u32,
    doorbell: Doorbell,
    registers: SharedPage,
    /// The process's memory, as the kernel counts it.
    statm: File,
    /// Watches the link and the process.
    events: OwnedFd,
    spawned_at_ns: u64,
    /// All memory of its machine.
    memory: FrameCount,
    progress: Progress,
    /// When its process closed the link.
    hung_up: Option<Moment>,
    /// Whether this process has ended it.
    is_killed: bool,
    /// Where the kernel counts its OOM kills.
    group: Option<Location>,
    /// Why it can't be paged, until that was reported.
    unpaged: Option<String>,
    /// The group that holds its process alone.
    own_group: Option<GuestGroup>,
    squeezer: Squeezer,
    /// What another supervisor finds it by. Removed once its end was reported.
    files: Option<Arc<GuestFiles>>,
    /// Its standard error; `None` for a process of an earlier supervisor.
    last_words: Option<LastWords>,
}

/// What a handle is made of.
struct Parts {
    process: Process,
    link: Link,
    doorbell: Doorbell,
    registers: SharedPage,
    spawned_at_ns: u64,
    memory: FrameCount,
    group: Option<Location>,
    own_group: Option<GuestGroup>,
}

/// The stages of a guest's end.
#[derive(Debug)]
enum Progress {
    Running,
    /// How the guest ended is known, from the process or from its exit.
    Ending(Ending),
    /// The last event has been returned.
    Ended,
}

impl VmmGuest {
    fn new(parts: Parts) -> io::Result<Self> {
        let Parts { process, link, doorbell, registers, spawned_at_ns, memory, group, own_group } = parts;
        let statm = File::open(format!("/proc/{}/statm", process.pid()))?;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&events, &link, EventData::new_u64(0), EventFlags::IN)?;
        epoll::add(&events, process.as_fd(), EventData::new_u64(1), EventFlags::IN)?;
        Ok(Self {
            process,
            link: Some(link),
            messages: TokenBucket::new(MESSAGES),
            problems_left: MOST_PROBLEMS,
            doorbell,
            registers,
            statm,
            events,
            spawned_at_ns,
            memory,
            progress: Progress::Running,
            hung_up: None,
            is_killed: false,
            group,
            unpaged: None,
            own_group,
            squeezer: Squeezer::default(),
            files: None,
            last_words: None,
        })
    }

    fn with_last_words(mut self, last_words: LastWords) -> Self {
        self.last_words = Some(last_words);
        self
    }

    fn with_files(mut self, files: Option<Arc<GuestFiles>>) -> Self {
        self.files = files;
        self
    }

    /// Returns the process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the monotonic clock just before the process was started, to compare with the boot
    /// stages of the register page.
    #[must_use]
    pub const fn spawned_at_ns(&self) -> u64 {
        self.spawned_at_ns
    }

    /// Returns the page that is shared with the process.
    #[must_use]
    pub fn registers(&self) -> &RegisterPage {
        &self.registers
    }

    /// Returns the memory control group of the process, where it is known.
    #[must_use]
    pub const fn group(&self) -> Option<&Location> {
        self.group.as_ref()
    }

    /// Sends a target in the next epoch: for a caller that does not count epochs.
    pub fn set_target(&self, target: FrameCount) {
        self.registers.set_target(target);
        self.doorbell.ring();
    }
}

impl GuestHandle for VmmGuest {
    fn observe(&self) -> Observation {
        Observation::of_page(&self.registers)
    }

    fn send_target(&mut self, target: FrameCount, epoch: Epoch) {
        self.registers.publish_target(target, epoch);
        self.doorbell.ring();
    }

    fn send_resources(&mut self, resources: &Resources, news: News) {
        self.registers.set_resources(resources);
        if news == News::Announce {
            self.doorbell.ring();
        }
    }

    fn measure_resident(&self) -> Option<FrameCount> {
        vmm::read_anonymous(&self.statm).ok()
    }

    fn waited_for_processor(&self) -> Option<Duration> {
        self.process.waited_for_processor()
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    fn next_event(&mut self) -> Option<GuestEvent> {
        if matches!(self.progress, Progress::Ended) {
            return None;
        }
        if let Some(why) = self.unpaged.take() {
            return Some(GuestEvent::Problem(why));
        }
        // Checked first, so that all that an ended process sent is in the link by now.
        let exit = self.process.exit();
        if let Some(event) = self.receive() {
            return Some(event);
        }
        if exit.is_none() {
            self.check_hung_up();
        }
        self.end(exit?)
    }

    fn limit_resident(&mut self, limit: Option<FrameCount>) {
        self.registers.limit_resident(limit);
        self.doorbell.ring();
    }

    fn pause(&mut self) {
        if let Some(link) = &self.link {
            // A process that is behind with its messages does not answer, and is ended for that.
            let _ = link.send(&ToVmm::Pause, &[], Patience::DoNotWait);
        }
    }

    fn resume(&mut self) {
        if let Some(link) = &self.link {
            let _ = link.send(&ToVmm::Resume, &[], Patience::DoNotWait);
        }
    }

    fn reclaim_ballooned(&mut self) {
        if let Some(link) = &self.link {
            // A process that is behind with its messages has some of these already.
            let _ = link.send(&ToVmm::ReclaimBallooned, &[], Patience::DoNotWait);
        }
    }

    fn limit_process(&mut self, size: FrameCount) {
        if let Some(group) = &mut self.own_group {
            group.set_limit(capacity::vmm_limit(size, self.memory));
        }
    }

    fn squeeze(&mut self, excess: FrameCount) -> bool {
        let Ok(pidfd) = self.process.pidfd() else { return false };
        self.squeezer.begin(Subject { pid: self.pid(), pidfd, memory: self.memory }, excess)
    }

    fn inspect(&mut self) {
        if let Some(link) = &self.link {
            // A process that is behind with its messages does not answer.
            let _ = link.send(&ToVmm::Inspect, &[], Patience::DoNotWait);
        }
    }

    fn request_stop(&mut self) {
        match &self.link {
            // A process that never reads is killed when its grace period ends.
            Some(link) => drop(link.send(&ToVmm::Stop, &[], Patience::DoNotWait)),
            // It can't be asked.
            None => self.kill(),
        }
    }

    fn kill(&mut self) {
        self.is_killed = true;
        self.process.kill();
    }

    /// It runs on under its lease. One without a [`Succession`] ends.
    fn leave(mut self) {
        if self.files.take().is_some() {
            self.process.leave();
            if let Some(link) = self.link.take() {
                link.hang_up();
            }
        }
    }
}

impl Drop for VmmGuest {
    fn drop(&mut self) {
        self.close_link();
        // A process that was not left is killed, and with it what it might write down.
        if let Some(files) = self.files.take() {
            self.process.kill();
            files.remove();
        }
    }
}
