//! A fake guest without a machine. Its balloon moves towards the target by some frames per step,
//! and its resident memory follows one step later.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use aerostat_abi::registers::{BootStage, Epoch, Facts, PagingFacts, RegisterPage};
use aerostat_abi::requests::{FiledRequest, Resources};
use aerostat_abi::statistics::Statistics;
use aerostat_abi::text::Text;
use aerostat_abi::units::FrameCount;

use crate::clock::Moment;
use crate::host::{Confinement, EndReason, Ending, GuestEvent, GuestHandle, News, Observation, Origin, Reports};

/// Frames that the fake's balloon moves per step.
const STEP: FrameCount = FrameCount::from_mib(40);

/// How a fake guest responds when it is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    /// The guest ends.
    Obliging,
    /// The guest ends only when it is killed.
    Stubborn,
    /// The guest does not end even when it is killed.
    Immortal,
}

/// False facts that a process publishes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lie {
    pub(super) size: FrameCount,
    pub(super) resident: FrameCount,
}

/// A value that the test and the threads of the supervisor share.
#[derive(Debug, Default)]
pub(super) struct Shared<T>(Mutex<T>);

impl<T: Copy> Shared<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn get(&self) -> T {
        *self.0.lock().unwrap()
    }

    pub(super) fn set(&self, value: T) {
        *self.0.lock().unwrap() = value;
    }
}

/// The test's side of a fake guest.
#[derive(Debug)]
pub(super) struct Machine {
    page: RegisterPage,
    total: FrameCount,
    manners: Manners,
    size: Shared<FrameCount>,
    /// The memory that the application would use if it could get it.
    need: Shared<FrameCount>,
    resident: Shared<FrameCount>,
    /// Pages that the guest reports on its swap disk.
    swapped: Shared<FrameCount>,
    /// Ballooned frames that the guest writes to nevertheless.
    beyond: Shared<FrameCount>,
    /// How many of the next reports disagree with the facts.
    disagreeing_reports: Shared<u64>,
    /// What the guest's process publishes instead of the true facts.
    lies: Shared<Option<Lie>>,
    /// What the process acknowledges instead of the target that it was told.
    pub(super) acknowledges: Shared<Option<Epoch>>,
    /// The size that its process is limited to.
    pub(super) process_limit: Shared<Option<FrameCount>>,
    pub(super) is_paused: Shared<bool>,
    /// Whether the guest has room to evict to, for all that it uses.
    pub(super) can_evict: Shared<bool>,
    /// Whether the guest ignores its targets.
    pub(super) ignores_targets: Shared<bool>,
    /// Whether the process acknowledges limits and keeps none.
    pub(super) keeps_no_limit: Shared<bool>,
    /// Whether the process does nothing at all.
    pub(super) is_stopped: Shared<bool>,
    /// Whether the process can page, and what is out.
    pub(super) paged_out: Shared<Option<FrameCount>>,
    /// What was to be taken from its process.
    pub(super) squeezes: Shared<FrameCount>,
    /// Whether its host has swap.
    pub(super) has_swap: Shared<bool>,
    pub(super) reclaims: Shared<u32>,
    pub(super) inspections: Shared<u32>,
    /// What its resident memory is to be held at.
    pub(super) limit: Shared<Option<FrameCount>>,
    /// Whether it was left to the next supervisor.
    pub(super) is_left: Shared<bool>,
    /// What the handle says of the machine, where it is another program's.
    pub(super) origin: Shared<Origin>,
    pub(super) confinement: Shared<Confinement>,
    pub(super) reports: Shared<Reports>,
    events: Mutex<VecDeque<GuestEvent>>,
    bell: Mutex<UnixStream>,
    pub(super) doorbells: Shared<u32>,
    /// How often the host's resources were announced.
    pub(super) announcements: Shared<u32>,
}

/// The supervisor's side of a fake guest.
#[derive(Debug)]
pub(super) struct FakeGuest {
    machine: Arc<Machine>,
    link: UnixStream,
}

impl Machine {
    /// Creates a machine of `total` frames whose guest has reached `main`, and its handle.
    pub(super) fn boot(total: FrameCount, target: FrameCount, manners: Manners) -> (Arc<Self>, FakeGuest) {
        let (link, bell) = UnixStream::pair().unwrap();
        link.set_nonblocking(true).unwrap();
        let machine = Arc::new(Self {
            page: RegisterPage::new(),
            total,
            manners,
            size: Shared::new(target),
            need: Shared::new(FrameCount::ZERO),
            resident: Shared::new(FrameCount::ZERO),
            swapped: Shared::new(FrameCount::ZERO),
            beyond: Shared::new(FrameCount::ZERO),
            disagreeing_reports: Shared::new(0),
            lies: Shared::new(None),
            acknowledges: Shared::new(None),
            process_limit: Shared::new(None),
            is_paused: Shared::new(false),
            can_evict: Shared::new(false),
            ignores_targets: Shared::new(false),
            keeps_no_limit: Shared::new(false),
            is_stopped: Shared::new(false),
            paged_out: Shared::new(None),
            squeezes: Shared::new(FrameCount::ZERO),
            has_swap: Shared::new(false),
            reclaims: Shared::new(0),
            inspections: Shared::new(0),
            limit: Shared::new(None),
            is_left: Shared::new(false),
            origin: Shared::new(Origin::Started),
            confinement: Shared::new(Confinement::ByHost),
            reports: Shared::new(Reports::OfGuest),
            events: Mutex::default(),
            bell: Mutex::new(bell),
            doorbells: Shared::new(0),
            announcements: Shared::new(0),
        });
        machine.page.initialise(target);
        machine.page.mark_boot(BootStage::Main, Moment::default().after(std::time::Duration::from_millis(5)).ns());
        machine.publish(target, Moment::default());
        (Arc::clone(&machine), FakeGuest { machine, link })
    }

    /// Puts the guest under a target of the second epoch, as when it was handed over.
    pub(super) fn hand_over(&self, target: FrameCount) {
        self.page.publish_target(target, Epoch(2));
        self.publish(self.size.get(), Moment::default());
    }

    /// Lets the process page its guest.
    pub(super) fn can_page(&self) {
        self.paged_out.set(Some(FrameCount::ZERO));
        self.page.set_paging(&PagingFacts::default());
    }

    pub(super) fn need(&self, need: FrameCount) {
        self.need.set(need);
    }

    pub(super) fn target(&self) -> FrameCount {
        self.page.target()
    }

    /// Files a request, as the guest's process does.
    pub(super) fn file(&self, request: &FiledRequest) {
        self.page.file_request(request);
    }

    /// Returns what the guest was last told of its host.
    pub(super) fn resources(&self) -> Resources {
        self.page.resources().expect("it is not being written")
    }

    pub(super) fn swap(&self, pages: FrameCount) {
        self.swapped.set(pages);
    }

    pub(super) fn use_beyond_size(&self, beyond: FrameCount) {
        self.beyond.set(beyond);
    }

    pub(super) fn lie(&self, lie: Lie) {
        self.lies.set(Some(lie));
    }

    /// Returns the host memory behind the guest, which may differ from what its process publishes.
    fn measured(&self) -> FrameCount {
        self.resident.get().saturating_add(self.beyond.get())
    }

    pub(super) fn disagree(&self, reports: u64) {
        self.disagreeing_reports.set(reports);
    }

    /// Runs one step of the guest: the balloon moves, and resident memory follows the balloon's
    /// previous step.
    pub(super) fn step(&self, now: Moment) {
        if self.is_stopped.get() {
            return;
        }
        let size = self.size.get();
        let stays = self.is_paused.get() || self.ignores_targets.get();
        let target = if stays { self.page.target().max(size) } else { self.page.target() };
        let next = if target > size {
            size.saturating_add(STEP).min(target)
        } else {
            size.saturating_sub(STEP).max(target).max(self.need.get().min(size))
        };
        let touched = self.need.get().min(size).min(next);
        self.page_out(touched);
        self.publish(next, now);
    }

    /// Moves resident memory to what the guest has touched, or to the limit of its process.
    fn page_out(&self, touched: FrameCount) {
        let Some(out) = self.paged_out.get() else {
            self.resident.set(touched);
            return;
        };
        let limit = self.limit.get();
        self.page.obey_limit(limit);
        let limit = limit.filter(|_| !self.keeps_no_limit.get());
        let within = touched.min(limit.unwrap_or(touched));
        let next = if touched.saturating_sub(out) > within {
            touched.saturating_sub(out).saturating_sub(STEP).max(within)
        } else {
            within
        };
        self.resident.set(next);
        let out = touched.saturating_sub(next);
        self.paged_out.set(Some(out));
        self.page.set_paging(&PagingFacts { out, all_out: out, all_in: FrameCount::ZERO });
    }

    fn publish(&self, size: FrameCount, now: Moment) {
        self.size.set(size);
        let balloon = self.total.saturating_sub(size);
        let used = self.need.get().min(size);
        let disagreeing_reports = self.disagreeing_reports.get();
        let facts = Facts { size, balloon, last_call_ns: now.ns(), disagreeing_reports, ..Facts::default() };
        self.page.set_balloon_facts(&facts);
        self.page.acknowledge(self.acknowledges.get().unwrap_or_else(|| self.page.target_epoch()));
        self.page.set_resident(self.measured());
        if let Some(Lie { size, resident }) = self.lies.get() {
            self.page.set_balloon_facts(&Facts { size, ..facts });
            self.page.set_resident(resident);
        }
        let statistics = Statistics {
            total_memory_bytes: self.total.bytes(),
            free_memory_bytes: size.saturating_sub(used).bytes(),
            committable_bytes: if self.can_evict.get() { size } else { size.saturating_sub(used) }.bytes(),
            wanted_bytes: self.need.get().saturating_sub(used).bytes(),
            balloon_bytes: balloon.bytes(),
            verified_bytes: 4096,
            swapped_bytes: self.swapped.get().bytes(),
            evictions: self.swapped.get().0,
            activity: Text::new("walking"),
            ..Statistics::default()
        };
        self.page.set_statistics(&statistics.encode());
    }

    pub(super) fn say(&self, event: GuestEvent) {
        self.events.lock().unwrap().push_back(event);
        self.bell.lock().unwrap().write_all(&[1]).unwrap();
    }

    pub(super) fn end(&self, reason: EndReason) {
        self.say(GuestEvent::Ended(Ending { reason, details: Vec::new() }));
    }
}

impl GuestHandle for FakeGuest {
    fn observe(&self) -> Observation {
        Observation { reports: self.machine.reports.get(), ..Observation::of_page(&self.machine.page) }
    }

    fn send_target(&mut self, target: FrameCount, epoch: Epoch) {
        self.machine.page.publish_target(target, epoch);
        self.machine.doorbells.set(self.machine.doorbells.get() + 1);
    }

    fn send_resources(&mut self, resources: &Resources, news: News) {
        self.machine.page.set_resources(resources);
        self.machine.announcements.set(self.machine.announcements.get() + u32::from(news == News::Announce));
    }

    fn measure_resident(&self) -> Option<FrameCount> {
        Some(self.machine.measured())
    }

    fn confinement(&self) -> Confinement {
        self.machine.confinement.get()
    }

    fn origin(&self) -> Origin {
        self.machine.origin.get()
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    fn next_event(&mut self) -> Option<GuestEvent> {
        let _ = self.link.read(&mut [0]);
        self.machine.events.lock().unwrap().pop_front()
    }

    fn pause(&mut self) {
        self.machine.is_paused.set(true);
    }

    fn resume(&mut self) {
        self.machine.is_paused.set(false);
    }

    fn limit_resident(&mut self, limit: Option<FrameCount>) {
        self.machine.limit.set(limit);
    }

    fn reclaim_ballooned(&mut self) {
        self.machine.reclaims.set(self.machine.reclaims.get() + 1);
        self.machine.beyond.set(FrameCount::ZERO);
    }

    fn limit_process(&mut self, size: FrameCount) {
        self.machine.process_limit.set(Some(size));
    }

    fn squeeze(&mut self, excess: FrameCount) -> bool {
        self.machine.squeezes.set(self.machine.squeezes.get().saturating_add(excess));
        self.machine.has_swap.get()
    }

    fn inspect(&mut self) {
        self.machine.inspections.set(self.machine.inspections.get() + 1);
    }

    fn request_stop(&mut self) {
        if self.machine.manners == Manners::Obliging {
            self.machine.end(EndReason::Stopped);
        }
    }

    fn kill(&mut self) {
        if self.machine.manners != Manners::Immortal {
            self.machine.end(EndReason::Killed(9));
        }
    }

    fn leave(self) {
        self.machine.is_left.set(true);
    }
}
