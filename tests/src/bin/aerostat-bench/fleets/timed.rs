//! A guest whose supervisor's reads and writes are timed.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aerostat::host::vmm_guest::VmmGuest;
use aerostat::host::{GuestEvent, GuestHandle, News, Observation};
use aerostat_abi::registers::Epoch;
use aerostat_abi::requests::Resources;
use aerostat_abi::units::FrameCount;
use aerostat_tests::monotonic_ns;

/// What a guest is in the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It has the memory.
    Donor,
    /// It wants the memory.
    Asker,
}

/// When, by the host's clock, the supervisor saw or did something for the first or the last time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timeline {
    /// It was told that the asker waits for memory.
    pressure: Option<u64>,
    /// It lowered the donor's target.
    lowered: Option<u64>,
    /// It saw the donor shrink for the last time before the last raise.
    released: Option<u64>,
    /// It raised the asker's target for the last time.
    raised: Option<u64>,
    /// It saw the asker grow for the last time.
    grown: Option<u64>,
    donor_size: FrameCount,
    asker_size: FrameCount,
    asker_target: FrameCount,
    has_asker_ended: bool,
}

/// Milliseconds from each stage of a grant to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stages {
    pub(super) decision: f64,
    pub(super) release: f64,
    pub(super) raise: f64,
    pub(super) growth: f64,
}

impl Timeline {
    /// Returns the stages if all of them were seen. One that was over before the asker waited takes
    /// no time: the supervisor takes idle memory back unasked.
    pub(super) fn stages(&self) -> Option<Stages> {
        let ms = |from: u64, to: u64| Duration::from_nanos(to.saturating_sub(from)).as_secs_f64() * 1e3;
        let (pressure, raised, grown) = (self.pressure?, self.raised?, self.grown?);
        let lowered = self.lowered.unwrap_or(pressure);
        let released = self.released.unwrap_or(lowered);
        Some(Stages {
            decision: ms(pressure, lowered),
            release: ms(lowered, released),
            raise: ms(released, raised),
            growth: ms(raised, grown),
        })
    }
}

/// The guest.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) guest: VmmGuest,
    pub(super) role: Role,
    pub(super) timeline: Arc<Mutex<Timeline>>,
}

impl Timed {
    fn record(&self, change: impl FnOnce(&mut Timeline, u64)) {
        change(&mut self.timeline.lock().unwrap_or_else(PoisonError::into_inner), monotonic_ns());
    }
}

impl GuestHandle for Timed {
    fn observe(&self) -> Observation {
        let observation = self.guest.observe();
        let size = observation.size.unwrap_or_default();
        self.record(|timeline, now| {
            let is_asked = timeline.pressure.is_some();
            match self.role {
                Role::Donor if is_asked && size < timeline.donor_size => timeline.released = Some(now),
                Role::Asker if is_asked && size > timeline.asker_size => timeline.grown = Some(now),
                Role::Donor | Role::Asker => {}
            }
            match self.role {
                Role::Donor => timeline.donor_size = size,
                Role::Asker => timeline.asker_size = size,
            }
        });
        observation
    }

    fn send_target(&mut self, target: FrameCount, epoch: Epoch) {
        self.record(|timeline, now| {
            let is_asked = timeline.pressure.is_some();
            match self.role {
                Role::Donor if is_asked => _ = timeline.lowered.get_or_insert(now),
                Role::Asker if is_asked && target > timeline.asker_target => timeline.raised = Some(now),
                Role::Donor | Role::Asker => {}
            }
            if self.role == Role::Asker {
                timeline.asker_target = target;
            }
        });
        self.guest.send_target(target, epoch);
    }

    fn next_event(&mut self) -> Option<GuestEvent> {
        let mut has_asker_ended = false;
        let event = self.guest.next_event();
        self.record(|timeline, now| {
            match (self.role, &event) {
                (Role::Asker, Some(GuestEvent::Pressure)) => _ = timeline.pressure.get_or_insert(now),
                (Role::Asker, Some(GuestEvent::Ended(_))) => timeline.has_asker_ended = true,
                _ => {}
            }
            has_asker_ended = timeline.has_asker_ended;
        });
        if has_asker_ended && self.role == Role::Donor {
            self.guest.request_stop();
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

    fn reclaim_ballooned(&mut self) {
        self.guest.reclaim_ballooned();
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
}
