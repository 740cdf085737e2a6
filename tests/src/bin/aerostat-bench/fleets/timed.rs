//! A guest whose supervisor's reads and writes are timed.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aerostat::host::vmm_guest::VmmGuest;
use aerostat::host::{GuestEvent, GuestHandle, News, Observation};
use aerostat::supervisor::{Command, Mailbox};
use aerostat_abi::registers::Epoch;
use aerostat_abi::requests::Resources;
use aerostat_abi::units::FrameCount;
use aerostat_tests::monotonic_ns;

use super::timeline::Timeline;

/// What a guest is in the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It has the memory. Its name is [`DONOR`].
    Donor,
    /// It wants the memory.
    Asker,
}

/// The donor's name.
pub(super) const DONOR: &str = "donor";

/// The guest.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) guest: VmmGuest,
    pub(super) role: Role,
    pub(super) timeline: Arc<Mutex<Timeline>>,
    pub(super) client: Mailbox,
}

impl Timed {
    fn record<T>(&self, change: impl FnOnce(&mut Timeline, u64) -> T) -> T {
        change(&mut self.timeline.lock().unwrap_or_else(PoisonError::into_inner), monotonic_ns())
    }

    /// Records that the asker waits, and has the scheduler decide about the donor from now on,
    /// which was pinned until now.
    fn begin(&self) {
        let asked = self.guest.registers().facts().last_call_ns;
        let observation = self.guest.observe();
        if self.record(|timeline, now| timeline.begin(asked, now, &observation)) {
            let unpin = Command::Target { guest: DONOR.to_owned(), target: None };
            // Without it the donor is not shrunk, and a stage is missing.
            let _ = self.client.send(unpin, Box::new(|_| ()));
        }
    }
}

impl GuestHandle for Timed {
    fn observe(&self) -> Observation {
        let observation = self.guest.observe();
        let resident = self.guest.measure_resident().unwrap_or_default();
        self.record(|timeline, now| match self.role {
            Role::Donor => timeline.see_donor(now, observation.size.unwrap_or_default(), resident),
            Role::Asker => timeline.see_asker(resident),
        });
        observation
    }

    fn send_target(&mut self, target: FrameCount, epoch: Epoch) {
        self.record(|timeline, now| match self.role {
            Role::Donor => timeline.lower_donor(now),
            Role::Asker => timeline.raise_asker(now, target),
        });
        self.guest.send_target(target, epoch);
    }

    fn next_event(&mut self) -> Option<GuestEvent> {
        let event = self.guest.next_event();
        match (self.role, &event) {
            (Role::Asker, Some(GuestEvent::Pressure)) => self.begin(),
            (Role::Asker, Some(GuestEvent::Ended(_))) => {
                let _ = self.client.send(Command::Shutdown, Box::new(|_| ()));
            }
            _ => {}
        }
        event
    }

    fn send_resources(&mut self, resources: &Resources, news: News) {
        self.guest.send_resources(resources, news);
    }

    fn measure_resident(&self) -> Option<FrameCount> {
        self.guest.measure_resident()
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.guest.event_fd()
    }

    fn pause(&mut self) {
        self.guest.pause();
    }

    fn resume(&mut self) {
        self.guest.resume();
    }

    fn waited_for_processor(&self) -> Option<Duration> {
        self.guest.waited_for_processor()
    }

    fn limit_resident(&mut self, limit: Option<FrameCount>) {
        self.guest.limit_resident(limit);
    }

    fn reclaim_ballooned(&mut self) {
        self.guest.reclaim_ballooned();
    }

    fn limit_process(&mut self, size: FrameCount) {
        self.guest.limit_process(size);
    }

    fn squeeze(&mut self, excess: FrameCount) -> bool {
        self.guest.squeeze(excess)
    }

    fn inspect(&mut self) {
        self.guest.inspect();
    }

    fn request_stop(&mut self) {
        self.guest.request_stop();
    }

    fn kill(&mut self) {
        self.guest.kill();
    }

    fn leave(self) {
        self.guest.leave();
    }
}
