//! The main thread while the guest runs.
//!
//! Each round does a chunk of whatever is due (what the guest offers, ballooned frames, a sample,
//! an inspection), then sleeps until one of four sources is readable: the end of the vCPU's thread,
//! the link, the supervisor's doorbell, work that a call has left. Chunks are small, as the device
//! is locked during each.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aerostat_link::message::{Ending, FromVmm, ToVmm};
use aerostat_link::{Link, LinkError, Patience};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::guest::Guest;
use super::inspection::{Inspector, Step};
use super::process::ProcessError;
use super::process_host::ProcessHost;
use super::reclamation::Reclamation;
use super::sampler::Sampler;
use super::target_watch::TargetWatch;
use super::vcpu_thread::VcpuThread;

/// How often a kick is repeated.
const KICK_AGAIN: Duration = Duration::from_millis(1);

/// The loop's sources and what handles them.
#[derive(Debug)]
pub(super) struct MainLoop {
    link: Arc<Link>,
    vcpu: VcpuThread,
    target: TargetWatch<ProcessHost>,
    reclamation: Reclamation<ProcessHost>,
    sampler: Sampler,
    inspector: Inspector,
}

/// Which sources are readable.
struct Ready {
    vcpu_ended: bool,
    link: bool,
    doorbell: bool,
    work_left: bool,
}

/// What a message asks of the loop.
enum Next {
    GoOn,
    Stop,
}

impl MainLoop {
    /// Starts the guest.
    pub(super) fn start(guest: Guest) -> Result<Self, ProcessError> {
        let Guest { link, machine, entry, devices, target, reclamation, sampler } = guest;
        let inspector = Inspector::new(Arc::clone(&devices.inspection));
        let vcpu = VcpuThread::spawn(machine, entry, devices)?;
        Ok(Self { link, vcpu, target, reclamation, sampler, inspector })
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
            }
            if ready.work_left {
                self.reclamation.woken();
            }
            if ready.link && matches!(self.receive()?, Next::Stop) {
                return self.vcpu.stop();
            }
        }
    }

    /// Does a chunk of what is due; returns how long the thread may sleep afterwards.
    fn work(&mut self) -> io::Result<Duration> {
        let is_reclaiming = self.reclamation.advance();
        let patience = if self.target.follow() || is_reclaiming { Duration::ZERO } else { self.sampler.sample()? };
        Ok(self.inspect(patience))
    }

    /// Advances an inspection; returns `patience`, or less where the vCPU has to be kicked again.
    fn inspect(&mut self, patience: Duration) -> Duration {
        match self.inspector.advance() {
            Step::None => patience,
            Step::Kick => {
                self.vcpu.kick();
                patience.min(KICK_AGAIN)
            }
            Step::Answer(lines) => {
                // A supervisor that has not read asks again.
                let _ = self.link.send(&FromVmm::Inspected { lines }, &[], Patience::DoNotWait);
                patience
            }
        }
    }

    fn wait(&self, patience: Duration) -> Result<Ready, Errno> {
        let mut sources = [
            PollFd::new(&self.vcpu.ended, PollFlags::IN),
            PollFd::new(&*self.link, PollFlags::IN),
            PollFd::new(&self.target.doorbell, PollFlags::IN),
            PollFd::new(&self.reclamation.work_left, PollFlags::IN),
        ];
        let patience = Timespec::try_from(patience).expect("milliseconds fit any clock");
        match poll(&mut sources, Some(&patience)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let [vcpu_ended, link, doorbell, work_left] = sources.map(|source| !source.revents().is_empty());
        Ok(Ready { vcpu_ended, link, doorbell, work_left })
    }

    /// Handles a message of the supervisor.
    fn receive(&mut self) -> Result<Next, ProcessError> {
        match self.link.receive(Patience::DoNotWait) {
            Ok((ToVmm::Stop, _)) => return Ok(Next::Stop),
            Ok((ToVmm::ReclaimBallooned, _)) => self.reclamation.begin(),
            Ok((ToVmm::Inspect, _)) => self.inspector.ask(),
            Ok((ToVmm::Start(_), _)) | Err(LinkError::WouldBlock) => {}
            Err(_) => return Err(ProcessError::SupervisorGone),
        }
        Ok(Next::GoOn)
    }
}
