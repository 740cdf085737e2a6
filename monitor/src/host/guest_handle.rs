//! A guest as the supervisor sees it, independent of what runs it.
//!
//! The supervisor reads an [`Observation`], sends targets, and receives events. None of it requires
//! a process of ours: a guest of another machine monitor can stand behind the trait, as long as
//! somewhere a control connection tells its size and takes a target.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use aerostat_abi::registers::{BootStage, Epoch, Facts, RegisterPage};
use aerostat_abi::requests::{FiledRequest, Resources};
use aerostat_abi::statistics::{STATUSES, Statistics};
use aerostat_abi::units::FrameCount;

use super::Ending;
use crate::clock::Moment;
use crate::scheduler::Usage;

/// A running guest. No method blocks.
pub trait GuestHandle: Sized {
    /// Returns what is known of the guest now.
    fn observe(&self) -> Observation;

    /// Passes on the size that the guest is to have. The guest follows later:
    /// [`Observation::acknowledged`] is `epoch` or a later one when no target before this one is
    /// acted on any more.
    fn send_target(&mut self, target: FrameCount, epoch: Epoch);

    /// Passes on the host's resources. Those with a new generation are announced to the guest. A
    /// guest whose driver knows nothing of them ignores them.
    fn send_resources(&mut self, resources: &Resources, news: News);

    /// Returns the anonymous memory of the guest's process, measured from outside: the guest's, and
    /// the little that the process has of its own. `None` where the process is gone.
    fn measure_resident(&self) -> Option<FrameCount>;

    /// Returns memory of the guest's process that is not the guest's, where that is much.
    fn own_memory(&self) -> FrameCount {
        FrameCount::ZERO
    }

    /// Returns what keeps the guest within its targets.
    fn confinement(&self) -> Confinement {
        Confinement::ByHost
    }

    /// Returns how long threads of the guest's process have been ready and have waited for a
    /// processor, all together, since its start. `None` where the host does not say.
    fn waited_for_processor(&self) -> Option<Duration> {
        None
    }

    /// Returns whether the machine ran before it came into the fleet.
    fn origin(&self) -> Origin {
        Origin::Started
    }

    /// Returns a descriptor that is readable when [`Self::next_event`] has an event.
    fn event_fd(&self) -> BorrowedFd<'_>;

    /// Returns the next event, if there is one. [`GuestEvent::Ended`] comes exactly once, as the
    /// last one.
    fn next_event(&mut self) -> Option<GuestEvent>;

    /// Has the host hold the guest's resident memory at most at `limit`, by paging, until it is
    /// told otherwise. `None`: there is no limit, and what is out comes back at leisure. No effect
    /// where [`Observation::paged_out`] is `None`.
    fn limit_resident(&mut self, limit: Option<FrameCount>);

    /// Stops the guest: its processor does not run until [`Self::resume`]. Its process goes on.
    fn pause(&mut self);

    /// Lets a guest go on that was paused. No effect on others.
    fn resume(&mut self);

    /// Has the host release ballooned frames that the guest has touched.
    fn reclaim_ballooned(&mut self);

    /// Limits the host memory of the guest's process to what it needs for a guest of `size` frames,
    /// where the kernel can: it kills the process alone if that takes more. A limit that the
    /// process does not keep now is not set. A guest that the host does not confine may have all of
    /// its machine.
    fn limit_process(&mut self, size: FrameCount);

    /// Begins to take `excess` from the guest's process without its help, so that it has that much
    /// less resident memory some time later. Returns whether there is a way on this host.
    fn squeeze(&mut self, excess: FrameCount) -> bool;

    /// Asks where the guest's processor is; [`GuestEvent::Inspected`] follows, where that can be
    /// answered.
    fn inspect(&mut self);

    /// Asks the guest's process to end cleanly; [`GuestEvent::Ended`] follows.
    fn request_stop(&mut self);

    /// Ends the guest's process now; [`GuestEvent::Ended`] follows.
    fn kill(&mut self);

    /// Leaves the guest to the next supervisor, if there is a way to find it; else it ends.
    fn leave(self);
}

/// Whether the host's resources have changed in a way that the guest should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Their generation is new: the guest is told.
    Announce,
    /// The guest finds them when it asks.
    KeepQuiet,
}

/// What keeps a guest within its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// The host: a guest can't become larger than the targets that it was sent.
    ByHost,
    /// The guest itself: it may deflate its balloon whenever it likes, up to its machine's memory.
    ByGuest,
}

/// Where a machine comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was started for the fleet, with its first target.
    Started,
    /// It ran before.
    Found {
        /// All memory that it has.
        machine: FrameCount,
        /// The guest's size.
        size: FrameCount,
    },
}

/// Where the supervisor learns what a guest needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reports {
    /// From [`Observation::statistics`].
    #[default]
    OfGuest,
    /// From what the balloon driver of another kernel reports.
    Derived(Usage),
    /// Nothing is known yet.
    Awaited,
    /// Nothing is going to be known: the guest has no balloon, or reports nothing. It keeps its
    /// size.
    Never,
}

/// What a guest's process tells its supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestEvent {
    /// The guest reported that a thread in it waits for memory.
    Pressure,
    /// The guest reported that it uses its memory otherwise than before, and no thread waits.
    UseChanged,
    /// The guest has filed a request: [`Observation::requests`] has it.
    Requested,
    /// Where its processor is: registers and return addresses. Untrusted text.
    Inspected(Vec<String>),
    /// Something does not work as it should, and the guest goes on: what, in a line. Untrusted
    /// text.
    Problem(String),
    /// The guest has ended, and all its memory is free.
    Ended(Ending),
}

/// What is published of a guest at one moment. A fact is `None` until it is published, and for ever
/// where what runs the guest does not know it. Nothing is checked: the publisher is not trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The latest target before which none is acted on any more. The sizes are at least as recent.
    pub acknowledged: Option<Epoch>,
    /// Guest size: total memory less balloon.
    pub size: Option<FrameCount>,
    /// Frames in the balloon.
    pub balloon: Option<FrameCount>,
    /// Host memory behind the guest.
    pub resident: Option<FrameCount>,
    /// Host memory in the page tables that map the guest's memory.
    pub page_tables: Option<FrameCount>,
    /// The limit of resident memory that the guest's process acts on; `None` where it acts on none.
    pub resident_limit: Option<FrameCount>,
    /// Frames whose contents are in the host swap file: still the guest's, and part of its size.
    /// `None` if this guest can't be paged.
    pub paged_out: Option<FrameCount>,
    /// What host paging did since the start; `None` if this guest can't be paged.
    pub paging: Option<PagingCounters>,
    /// When the guest's driver last made a call to its balloon.
    pub last_call: Option<Moment>,
    /// When the application's `main` was called.
    pub main: Option<Moment>,
    /// When the machine first ran, where it is not known when `main` was called.
    pub running: Option<Moment>,
    /// What the balloon did since the start.
    pub counters: Option<BalloonCounters>,
    /// Lines of the guest's console that were left out of its log.
    pub dropped_lines: Option<u64>,
    /// The guest's own latest report.
    pub statistics: Option<Statistics>,
    /// Where it is said what the guest needs.
    pub reports: Reports,
    /// The guest's latest request of each kind.
    pub requests: Vec<FiledRequest>,
}

/// What a balloon did since the start, as the host counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalloonCounters {
    /// Frames inflated.
    pub inflated: FrameCount,
    /// Frames deflated.
    pub deflated: FrameCount,
    /// Of the inflated frames, those that the host reclaimed without running the guest.
    pub host_reclaimed: FrameCount,
    /// Batch entries that were not done, by the code of their status.
    pub refused_entries: [u64; STATUSES],
    /// Calls through the balloon port.
    pub calls: u64,
    /// Calls that were delayed because they came too fast.
    pub throttled_calls: u64,
    /// Total delay of these calls.
    pub throttled: Duration,
    /// Frames that the guest touched while they were ballooned, and lost again.
    pub reclaimed: FrameCount,
    /// Consecutive latest reports whose balloon size is not the real one.
    pub disagreeing_reports: u64,
}

/// What host paging did to a guest since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagingCounters {
    /// Frames written to the host swap file.
    pub out: FrameCount,
    /// Frames brought back.
    pub back: FrameCount,
}

impl Observation {
    /// Reads the register page of a VMM process, in which zero stands for what is not published
    /// yet.
    #[must_use]
    pub fn of_page(page: &RegisterPage) -> Self {
        let facts = page.facts();
        let main = page.boot_ns(BootStage::Main);
        Self {
            acknowledged: Some(facts.acknowledged).filter(|&epoch| epoch != Epoch(0)),
            size: Some(facts.size).filter(|&size| size > FrameCount::ZERO),
            balloon: Some(facts.balloon),
            resident: Some(facts.resident),
            page_tables: Some(facts.page_tables),
            resident_limit: facts.resident_limit,
            paged_out: facts.paging.map(|paging| paging.out),
            paging: facts.paging.map(|paging| PagingCounters { out: paging.all_out, back: paging.all_in }),
            last_call: Some(facts.last_call_ns).filter(|&at| at != 0).map(Moment::from_ns),
            main: Some(main).filter(|&at| at != 0).map(Moment::from_ns),
            running: None,
            reports: Reports::OfGuest,
            counters: Some(BalloonCounters::new(&facts)),
            dropped_lines: Some(facts.dropped_lines),
            statistics: Some(page.statistics()).filter(|statistics| *statistics != Statistics::default()),
            requests: page.requests().iter().flat_map(FiledRequest::decode_all).collect(),
        }
    }
}

impl BalloonCounters {
    fn new(facts: &Facts) -> Self {
        Self {
            inflated: facts.inflated,
            deflated: facts.deflated,
            host_reclaimed: facts.host_reclaimed,
            refused_entries: facts.refused_entries,
            calls: facts.port_calls,
            throttled_calls: facts.throttled_calls,
            throttled: Duration::from_nanos(facts.throttled_ns),
            reclaimed: facts.reclaimed,
            disagreeing_reports: facts.disagreeing_reports,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BalloonCounters, Observation};
    use aerostat_abi::registers::{Epoch, Facts, RegisterPage};
    use aerostat_abi::units::FrameCount;

    #[test]
    fn an_unwritten_page_publishes_no_size_stamp_or_report() {
        let observation = Observation::of_page(&RegisterPage::new());
        let zero = Some(FrameCount::ZERO);
        let unpublished = Observation {
            balloon: zero,
            resident: zero,
            page_tables: zero,
            counters: Some(BalloonCounters::default()),
            dropped_lines: Some(0),
            ..Observation::default()
        };
        assert_eq!(observation, unpublished);
    }

    #[test]
    fn an_epoch_is_read_with_sizes_that_are_as_recent() {
        let page = RegisterPage::new();
        page.set_balloon_facts(&Facts { size: FrameCount(7), ..Facts::default() });
        page.acknowledge(Epoch(3));
        let observation = Observation::of_page(&page);
        assert_eq!((observation.size, observation.acknowledged), (Some(FrameCount(7)), Some(Epoch(3))));
    }
}
