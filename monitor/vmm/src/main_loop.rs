//! The main thread while the guest runs.
//!
//! Each round does a chunk of whatever is due (what the guest offers, ballooned frames, a sample,
//! an inspection), then sleeps until one of its sources is readable: the end of the vCPU's thread,
//! the link, the supervisor's doorbell, work that a call has left, a supervisor that wants to take
//! over. Chunks are small, as the device is locked during each.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use aerostat_link::clock::Moment;
use aerostat_link::message::{Ending, FromVmm, Reason, Standing, ToVmm};
use aerostat_link::{LinkError, Patience};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::guest::Guest;
use super::inspection::{Inspector, Step};
use super::jail::{self, Thread};
use super::paging::PagingControl;
use super::process::ProcessError;
use super::process_host::ProcessHost;
use super::reclamation::Reclamation;
use super::sampler::Sampler;
use super::succession::{Connection, Succession, Successor};
use super::supervisor_link::SupervisorLink;
use super::target_watch::TargetWatch;
use super::vcpu_thread::VcpuThread;

/// How often a kick is repeated.
const KICK_AGAIN: Duration = Duration::from_millis(1);

/// The loop's sources and what handles them.
#[derive(Debug)]
pub(super) struct MainLoop {
    link: Arc<SupervisorLink>,
    /// `None` where the guest ends with its supervisor.
    succession: Option<Succession>,
    total: FrameCount,
    vcpu: VcpuThread,
    target: TargetWatch<ProcessHost>,
    reclamation: Reclamation<ProcessHost>,
    paging: PagingControl,
    sampler: Sampler,
    inspector: Inspector,
}

/// Which sources are readable.
struct Ready {
    vcpu_ended: bool,
    work_left: bool,
    link: bool,
    doorbell: bool,
    succession: Connection,
}

/// What a message asks of the loop.
enum Next {
    GoOn,
    Stop,
    /// The supervisor is gone.
    Vacant,
}

impl MainLoop {
    /// Starts the guest. Without a `succession` it ends with its supervisor.
    pub(super) fn start(guest: Guest, succession: Option<Succession>) -> Result<Self, ProcessError> {
        let Guest { link, total, machine, first, devices, target, reclamation, paging, sampler } = guest;
        let inspector = Inspector::new(Arc::clone(&devices.inspection));
        let vcpu = VcpuThread::spawn(machine, first, devices)?;
        jail::confine(Thread::Main)?;
        Ok(Self { link, succession, total, vcpu, target, reclamation, paging, sampler, inspector })
    }

    /// Runs until the guest ends or has to end; returns how it did.
    pub(super) fn run(mut self) -> Result<Ending, ProcessError> {
        loop {
            let patience = self.work()?;
            let ready = self.wait(patience)?;
            if ready.vcpu_ended {
                return self.vcpu.join();
            }
            if ready.doorbell {
                self.target.rung();
                self.paging.follow();
            }
            if ready.work_left {
                self.reclamation.woken();
            }
            if let Some(why) = self.paging.failure() {
                // The vCPU may wait for memory for ever, so it is not stopped first.
                return Ok(Ending::failed(why));
            }
            let next = if ready.link { self.receive() } else { Next::GoOn };
            match next {
                Next::GoOn => {}
                Next::Stop => return self.vcpu.stop(),
                Next::Vacant => self.begin_vacancy()?,
            }
            let now = Moment::now();
            let successor = self.succession.as_mut().and_then(|succession| succession.serve(ready.succession, now));
            if let Some(successor) = successor {
                self.welcome(successor);
            }
            if self.succession.as_ref().is_some_and(|succession| succession.is_over(now)) {
                let ending = self.vcpu.stop()?;
                // The guest may have ended by itself at the last moment.
                let is_stopped = ending.reason == Reason::Stopped;
                return Ok(if is_stopped { Ending { reason: Reason::LeaseEnded, ..ending } } else { ending });
            }
        }
    }

    /// Does a chunk of what is due; returns how long the thread may sleep afterwards.
    fn work(&mut self) -> io::Result<Duration> {
        let is_reclaiming = self.reclamation.advance();
        let patience = if self.target.follow() || is_reclaiming { Duration::ZERO } else { self.sampler.sample()? };
        let succession = self.succession.as_ref().and_then(|succession| succession.patience(Moment::now()));
        let patience = succession.map_or(patience, |succession| succession.min(patience));
        let patience = self.inspect(patience);
        Ok(if self.vcpu.needs_kick() { self.kick(patience) } else { patience })
    }

    /// Gets the vCPU out of the guest; returns `patience`, or less, as that has to be repeated.
    fn kick(&self, patience: Duration) -> Duration {
        self.vcpu.kick();
        patience.min(KICK_AGAIN)
    }

    /// Advances an inspection; returns `patience`, or less where the vCPU has to be kicked again.
    fn inspect(&mut self, patience: Duration) -> Duration {
        match self.inspector.advance() {
            Step::None => patience,
            Step::Kick => self.kick(patience),
            Step::Answer(lines) => {
                // A supervisor that has not read asks again.
                let _ = self.link.send(&FromVmm::Inspected { lines }, Patience::DoNotWait);
                patience
            }
        }
    }

    fn wait(&self, patience: Duration) -> Result<Ready, Errno> {
        let link = self.link.get();
        // What stands for a source that is not there: without events to wait for, it has none.
        let absent = self.vcpu.ended.as_fd();
        let sources = [
            Some(absent),
            Some(self.reclamation.work_left.as_fd()),
            link.as_ref().map(AsFd::as_fd),
            self.target.doorbell.as_ref().map(AsFd::as_fd),
            self.succession.as_ref().map(Succession::fd),
        ];
        let mut sources = sources.map(|source: Option<BorrowedFd<'_>>| match source {
            Some(source) => PollFd::from_borrowed_fd(source, PollFlags::IN),
            None => PollFd::from_borrowed_fd(absent, PollFlags::empty()),
        });
        let patience = Timespec::try_from(patience).unwrap_or_default();
        match poll(&mut sources, Some(&patience)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let [vcpu_ended, work_left, link, doorbell, succession] = sources.map(|source| !source.revents().is_empty());
        let succession = if succession { Connection::Readable } else { Connection::Silent };
        Ok(Ready { vcpu_ended, work_left, link, doorbell, succession })
    }

    /// Handles a message of the supervisor.
    fn receive(&mut self) -> Next {
        let received = match &*self.link.get() {
            Some(link) => link.receive(Patience::DoNotWait),
            None => return Next::GoOn,
        };
        match received {
            Ok((ToVmm::Stop, _)) => return Next::Stop,
            Ok((ToVmm::ReclaimBallooned, _)) => self.reclamation.begin(),
            Ok((ToVmm::Inspect, _)) => self.inspector.ask(),
            Ok((ToVmm::Pause, _)) => self.vcpu.pause(),
            Ok((ToVmm::Resume, _)) => self.vcpu.resume(),
            Ok((ToVmm::Start(_) | ToVmm::TakeOver, _)) | Err(LinkError::WouldBlock) => {}
            Err(_) => return Next::Vacant,
        }
        Next::GoOn
    }

    /// Lets the guest run on with the target as it is, under the lease.
    fn begin_vacancy(&mut self) -> Result<(), ProcessError> {
        let succession = self.succession.as_mut().ok_or(ProcessError::SupervisorGone)?;
        self.link.set(None);
        let (target, epoch) = self.target.freeze();
        let standing = Standing {
            memory_frames: self.total.0,
            target_frames: target.0,
            epoch: epoch.0,
            size_frames: self.target.size().0,
        };
        succession.begin(standing, Moment::now());
        Ok(())
    }

    /// Serves another supervisor from now on.
    fn welcome(&mut self, successor: Successor) {
        let Successor { link, registers, doorbell } = successor;
        self.target.take_over(registers, doorbell);
        // Whether the guest is to stand still is for this supervisor to say.
        self.vcpu.resume();
        self.paging.follow();
        // Where it fails, that one is gone too, which the next round finds.
        let _ = link.send(&FromVmm::TakenOver, &[], Patience::DoNotWait);
        self.link.set(Some(link));
    }
}
