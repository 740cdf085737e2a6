//! The register page: one page of shared memory between the supervisor and one VMM process.
//!
//! It holds the *balloon register* (the target) and what the VMM process knows about its guest.
//! Each word is written by one process: the magic number, the target and the host's resources by
//! the supervisor, all else by the VMM process while it runs. After its end, nothing is resident
//! any more, and the supervisor stores that. A reader reads word by word, so it may see words of
//! two moments. No lock is needed, and a process that ends during an update does not block the
//! other. When a change must be known *at once*, a doorbell tells it: the supervisor rings for the
//! guest's interrupt, the VMM process writes to its link.

mod versioned;

use core::sync::atomic::{AtomicU64, Ordering};

use self::versioned::Versioned;
use crate::requests::{self, FiledRequest, Resources};
use crate::statistics::{self, STATUSES, Statistics};
use crate::units::{FRAME_SIZE, FrameCount};

/// Identifies the page and its layout.
pub const MAGIC: u64 = 0x4145_524f_5245_4737;

/// The word of a limit that is none.
const NO_LIMIT: u64 = u64::MAX;

/// A register page. All counts are 4 KiB frames; all times are nanoseconds of the host's monotonic
/// clock, 0 for "not yet".
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct RegisterPage {
    magic: AtomicU64,
    /// Written by the supervisor: the guest size that the host wants.
    target_frames: AtomicU64,
    /// Written by the VMM process from here on: guest size, total less balloon. 0 until it has
    /// published its first facts.
    size_frames: AtomicU64,
    balloon_frames: AtomicU64,
    resident_frames: AtomicU64,
    /// Frames inflated since the start, and frames deflated; the initial balloon is in neither.
    inflated_frames: AtomicU64,
    deflated_frames: AtomicU64,
    refused_entries: [AtomicU64; STATUSES],
    port_calls: AtomicU64,
    /// When the guest last used the balloon port.
    last_call_ns: AtomicU64,
    throttled_calls: AtomicU64,
    throttled_ns: AtomicU64,
    host_reclaimed_frames: AtomicU64,
    reclaimed_frames: AtomicU64,
    disagreeing_reports: AtomicU64,
    dropped_lines: AtomicU64,
    boot: [AtomicU64; BootStage::ALL.len()],
    statistics: [AtomicU64; statistics::WORDS],
    page_table_frames: AtomicU64,
    /// 1 where the VMM process can page its guest.
    is_pageable: AtomicU64,
    /// Frames whose contents are in the host swap file now.
    paged_out_frames: AtomicU64,
    /// Frames paged out since the start, and frames paged in.
    all_paged_out_frames: AtomicU64,
    all_paged_in_frames: AtomicU64,
    /// One more than the limit of resident memory that the VMM process acts on, 0 for no limit.
    obeyed_limit: AtomicU64,
    /// Written by the supervisor: what the guest's resident memory is held at by paging;
    /// [`NO_LIMIT`] for no limit.
    resident_limit_frames: AtomicU64,
    /// Written by the supervisor: the epoch of the target.
    target_epoch: AtomicU64,
    /// Written by the VMM process: the epoch of the oldest target that it may still act on.
    acknowledged_epoch: AtomicU64,
    /// Written by the supervisor: the host's resources as the guest is told of them.
    resources: Versioned<{ requests::WORDS }>,
    /// Written by the VMM process: the guest's latest request of each kind.
    requests: Versioned<{ requests::ALL_FILED_WORDS }>,
}

const _: () = assert!(size_of::<RegisterPage>() == FRAME_SIZE);
const _: () = assert!(align_of::<RegisterPage>() == FRAME_SIZE);

/// The number of a target: each target that is set has an epoch, one more than the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the first target.
    pub const FIRST: Self = Self(1);

    /// Returns the epoch of the next target.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// Stages of a start, each with a time in the register page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootStage {
    /// The VMM process runs its first own instruction.
    Process,
    /// The VMM process has opened what it needs of the host.
    Opened,
    /// The VMM process is in its jail.
    Jailed,
    /// The virtual machine, its interrupt controller and its vCPU exist.
    Machine,
    /// The image is loaded, the boot information written.
    Loaded,
    /// The guest kernel runs.
    Kernel,
    /// The application's `main` is called.
    Main,
}

impl BootStage {
    /// Every stage, in the order of time.
    pub const ALL: [Self; 7] =
        [Self::Process, Self::Opened, Self::Jailed, Self::Machine, Self::Loaded, Self::Kernel, Self::Main];
}

/// The measurements of a VMM process. Read from a page, the fields may be of two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The epoch that the VMM process has acknowledged: no target before it is acted on any more. 0
    /// for none yet.
    pub acknowledged: Epoch,
    /// Guest size: total memory less balloon.
    pub size: FrameCount,
    /// Frames in the balloon.
    pub balloon: FrameCount,
    /// Host memory that is really behind the guest.
    pub resident: FrameCount,
    /// Frames inflated since the start.
    pub inflated: FrameCount,
    /// Frames deflated since the start.
    pub deflated: FrameCount,
    /// Batch entries not done since the start, failed releases included, by the code of their
    /// status.
    pub refused_entries: [u64; STATUSES],
    /// Calls through the balloon port since the start, refused ones included.
    pub port_calls: u64,
    /// When the guest last used the balloon port, in nanoseconds of the monotonic clock; 0 for
    /// never.
    pub last_call_ns: u64,
    /// Calls since the start that had to wait, because the guest called too often.
    pub throttled_calls: u64,
    /// Nanoseconds that these calls waited.
    pub throttled_ns: u64,
    /// Of the inflated frames, those that the VMM process reclaimed from the guest's offers,
    /// without running it.
    pub host_reclaimed: FrameCount,
    /// Frames since the start that the guest touched while they were ballooned, and lost again.
    pub reclaimed: FrameCount,
    /// Consecutive latest reports whose balloon size is not the real one.
    pub disagreeing_reports: u64,
    /// Lines of the guest's console since the start that were not written to its log, because there
    /// were too many.
    pub dropped_lines: u64,
    /// Host memory in the page tables of the VMM process, which map the guest's memory.
    pub page_tables: FrameCount,
    /// The limit of resident memory that the VMM process acts on; `None` while it acts on none.
    pub resident_limit: Option<FrameCount>,
    /// What host paging has done; `None` where this guest can't be paged.
    pub paging: Option<PagingFacts>,
}

/// What host paging has done to a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagingFacts {
    /// Frames whose contents are in the host swap file now.
    pub out: FrameCount,
    /// Frames paged out since the start.
    pub all_out: FrameCount,
    /// Frames paged in since the start.
    pub all_in: FrameCount,
}

impl Facts {
    /// Returns the number of batch entries not done since the start, of any status.
    #[must_use]
    pub fn all_refused_entries(&self) -> u64 {
        self.refused_entries.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl Default for RegisterPage {
    fn default() -> Self {
        Self::new()
    }
}

impl RegisterPage {
    /// Returns a page in its initial state.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            magic: AtomicU64::new(MAGIC),
            target_frames: AtomicU64::new(0),
            size_frames: AtomicU64::new(0),
            balloon_frames: AtomicU64::new(0),
            resident_frames: AtomicU64::new(0),
            inflated_frames: AtomicU64::new(0),
            deflated_frames: AtomicU64::new(0),
            refused_entries: [const { AtomicU64::new(0) }; STATUSES],
            port_calls: AtomicU64::new(0),
            last_call_ns: AtomicU64::new(0),
            throttled_calls: AtomicU64::new(0),
            throttled_ns: AtomicU64::new(0),
            host_reclaimed_frames: AtomicU64::new(0),
            reclaimed_frames: AtomicU64::new(0),
            disagreeing_reports: AtomicU64::new(0),
            dropped_lines: AtomicU64::new(0),
            boot: [const { AtomicU64::new(0) }; BootStage::ALL.len()],
            statistics: [const { AtomicU64::new(0) }; statistics::WORDS],
            page_table_frames: AtomicU64::new(0),
            is_pageable: AtomicU64::new(0),
            paged_out_frames: AtomicU64::new(0),
            all_paged_out_frames: AtomicU64::new(0),
            all_paged_in_frames: AtomicU64::new(0),
            obeyed_limit: AtomicU64::new(0),
            resident_limit_frames: AtomicU64::new(NO_LIMIT),
            target_epoch: AtomicU64::new(0),
            acknowledged_epoch: AtomicU64::new(0),
            resources: Versioned::new(),
            requests: Versioned::new(),
        }
    }

    /// Makes zeroed shared memory a register page: the supervisor does so before it starts the VMM
    /// process.
    pub fn initialise(&self, target: FrameCount) {
        self.set_target(target);
        self.limit_resident(None);
        self.magic.store(MAGIC, Ordering::Release);
    }

    /// Returns whether the page has this crate's layout.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.magic.load(Ordering::Acquire) == MAGIC
    }

    /// Returns the balloon register: the guest size that the host wants.
    #[must_use]
    pub fn target(&self) -> FrameCount {
        FrameCount(self.target_frames.load(Ordering::Acquire))
    }

    /// Sets the balloon register, in the next epoch. The caller rings the doorbell.
    pub fn set_target(&self, target: FrameCount) {
        self.publish_target(target, self.target_epoch().next());
    }

    /// Sets the balloon register to the target of `epoch`, which is later than the last. The caller
    /// rings the doorbell.
    pub fn publish_target(&self, target: FrameCount, epoch: Epoch) {
        // The target first: a reader that sees the epoch sees its target or a later one.
        self.target_frames.store(target.0, Ordering::Release);
        self.target_epoch.store(epoch.0, Ordering::Release);
    }

    /// Sets what the guest's resident memory is held at, by paging; `None` for no limit. The caller
    /// rings the doorbell.
    pub fn limit_resident(&self, limit: Option<FrameCount>) {
        self.resident_limit_frames.store(limit.map_or(NO_LIMIT, |limit| limit.0), Ordering::Release);
    }

    /// Returns what the guest's resident memory is to be held at, if there is a limit.
    #[must_use]
    pub fn resident_limit(&self) -> Option<FrameCount> {
        let limit = self.resident_limit_frames.load(Ordering::Acquire);
        (limit != NO_LIMIT).then_some(FrameCount(limit))
    }

    /// Returns the epoch of the target. [`Self::target`] returns the target of this epoch, or of a
    /// later one, from now on.
    #[must_use]
    pub fn target_epoch(&self) -> Epoch {
        Epoch(self.target_epoch.load(Ordering::Acquire))
    }

    /// Tells the supervisor that no target before `epoch` is acted on any more, and that what was
    /// done by them is published.
    pub fn acknowledge(&self, epoch: Epoch) {
        self.acknowledged_epoch.store(epoch.0, Ordering::Release);
    }

    /// Returns what the VMM process last wrote.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let read = |word: &AtomicU64| word.load(Ordering::Acquire);
        Facts {
            // Read first, as it is written last: the sizes are at least as recent.
            acknowledged: Epoch(read(&self.acknowledged_epoch)),
            size: FrameCount(read(&self.size_frames)),
            balloon: FrameCount(read(&self.balloon_frames)),
            resident: FrameCount(read(&self.resident_frames)),
            inflated: FrameCount(read(&self.inflated_frames)),
            deflated: FrameCount(read(&self.deflated_frames)),
            refused_entries: self.refused_entries.each_ref().map(read),
            port_calls: read(&self.port_calls),
            last_call_ns: read(&self.last_call_ns),
            throttled_calls: read(&self.throttled_calls),
            throttled_ns: read(&self.throttled_ns),
            host_reclaimed: FrameCount(read(&self.host_reclaimed_frames)),
            reclaimed: FrameCount(read(&self.reclaimed_frames)),
            disagreeing_reports: read(&self.disagreeing_reports),
            dropped_lines: read(&self.dropped_lines),
            page_tables: FrameCount(read(&self.page_table_frames)),
            resident_limit: read(&self.obeyed_limit).checked_sub(1).map(FrameCount),
            paging: (read(&self.is_pageable) != 0).then(|| PagingFacts {
                out: FrameCount(read(&self.paged_out_frames)),
                all_out: FrameCount(read(&self.all_paged_out_frames)),
                all_in: FrameCount(read(&self.all_paged_in_frames)),
            }),
        }
    }

    /// Publishes the balloon's metrics: everything in [`Facts`] that has no setter of its own.
    pub fn set_balloon_facts(&self, facts: &Facts) {
        let write = |word: &AtomicU64, value| word.store(value, Ordering::Release);
        write(&self.size_frames, facts.size.0);
        write(&self.balloon_frames, facts.balloon.0);
        write(&self.inflated_frames, facts.inflated.0);
        write(&self.deflated_frames, facts.deflated.0);
        self.refused_entries.iter().zip(facts.refused_entries).for_each(|(word, value)| write(word, value));
        write(&self.port_calls, facts.port_calls);
        write(&self.last_call_ns, facts.last_call_ns);
        write(&self.host_reclaimed_frames, facts.host_reclaimed.0);
        write(&self.reclaimed_frames, facts.reclaimed.0);
        write(&self.disagreeing_reports, facts.disagreeing_reports);
    }

    /// Takes over what is published in another page: everything but the target, its acknowledgement
    /// and the limit of resident memory. For the VMM process, which replaces its page, before the
    /// supervisor has written more than a target to the new one.
    pub fn carry_over(&self, from: &Self) {
        // Named one by one, so that a new word is not forgotten here.
        let Self {
            magic: _,
            target_frames: _,
            target_epoch: _,
            resident_limit_frames: _,
            obeyed_limit: _,
            acknowledged_epoch: _,
            size_frames,
            balloon_frames,
            resident_frames,
            inflated_frames,
            deflated_frames,
            refused_entries,
            port_calls,
            last_call_ns,
            throttled_calls,
            throttled_ns,
            host_reclaimed_frames,
            reclaimed_frames,
            disagreeing_reports,
            dropped_lines,
            boot,
            statistics,
            page_table_frames,
            is_pageable,
            paged_out_frames,
            all_paged_out_frames,
            all_paged_in_frames,
            resources,
            requests,
        } = from;
        let copy = |to: &AtomicU64, from: &AtomicU64| to.store(from.load(Ordering::Acquire), Ordering::Release);
        let copy_all = |to: &[AtomicU64], from: &[AtomicU64]| to.iter().zip(from).for_each(|(to, from)| copy(to, from));
        copy(&self.size_frames, size_frames);
        copy(&self.balloon_frames, balloon_frames);
        copy(&self.resident_frames, resident_frames);
        copy(&self.inflated_frames, inflated_frames);
        copy(&self.deflated_frames, deflated_frames);
        copy_all(&self.refused_entries, refused_entries);
        copy(&self.port_calls, port_calls);
        copy(&self.last_call_ns, last_call_ns);
        copy(&self.throttled_calls, throttled_calls);
        copy(&self.throttled_ns, throttled_ns);
        copy(&self.host_reclaimed_frames, host_reclaimed_frames);
        copy(&self.reclaimed_frames, reclaimed_frames);
        copy(&self.disagreeing_reports, disagreeing_reports);
        copy(&self.dropped_lines, dropped_lines);
        copy_all(&self.boot, boot);
        copy_all(&self.statistics, statistics);
        copy(&self.page_table_frames, page_table_frames);
        copy(&self.is_pageable, is_pageable);
        copy(&self.paged_out_frames, paged_out_frames);
        copy(&self.all_paged_out_frames, all_paged_out_frames);
        copy(&self.all_paged_in_frames, all_paged_in_frames);
        // What a process that has ended has half written is of no use.
        if let Some(words) = resources.read() {
            self.resources.write(&words);
        }
        if let Some(words) = requests.read() {
            self.requests.write(&words);
        }
    }

    /// Publishes how much host memory is behind the guest.
    pub fn set_resident(&self, resident: FrameCount) {
        self.resident_frames.store(resident.0, Ordering::Release);
    }

    /// Publishes how many calls had to wait, and how long.
    pub fn set_throttled(&self, calls: u64, nanoseconds: u64) {
        self.throttled_calls.store(calls, Ordering::Release);
        self.throttled_ns.store(nanoseconds, Ordering::Release);
    }

    /// Publishes how many lines of the console were dropped.
    pub fn set_dropped_lines(&self, lines: u64) {
        self.dropped_lines.store(lines, Ordering::Release);
    }

    /// Publishes how much host memory the page tables behind the guest take.
    pub fn set_page_tables(&self, page_tables: FrameCount) {
        self.page_table_frames.store(page_tables.0, Ordering::Release);
    }

    /// Tells the supervisor that no limit of resident memory but this one is acted on any more: the
    /// guest can't become larger from now on.
    pub fn obey_limit(&self, limit: Option<FrameCount>) {
        self.obeyed_limit.store(limit.map_or(0, |limit| limit.0.saturating_add(1)), Ordering::Release);
    }

    /// Tells the supervisor that the guest can't be paged after all.
    pub fn withdraw_paging(&self) {
        self.is_pageable.store(0, Ordering::Release);
    }

    /// Publishes what host paging has done to a guest that can be paged.
    pub fn set_paging(&self, paging: &PagingFacts) {
        self.paged_out_frames.store(paging.out.0, Ordering::Release);
        self.all_paged_out_frames.store(paging.all_out.0, Ordering::Release);
        self.all_paged_in_frames.store(paging.all_in.0, Ordering::Release);
        self.is_pageable.store(1, Ordering::Release);
    }

    /// Returns the time at which `stage` was reached; 0 for not yet.
    #[must_use]
    pub fn boot_ns(&self, stage: BootStage) -> u64 {
        self.boot[stage as usize].load(Ordering::Acquire)
    }

    /// Notes that `stage` was reached at `now_ns`; only the first time counts.
    pub fn mark_boot(&self, stage: BootStage, now_ns: u64) {
        let word = &self.boot[stage as usize];
        if word.load(Ordering::Relaxed) == 0 {
            word.store(now_ns, Ordering::Release);
        }
    }

    /// Returns the guest's latest report. Words of two reports may mix.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut words = [0; statistics::WORDS];
        for (word, shared) in words.iter_mut().zip(&self.statistics) {
            *word = shared.load(Ordering::Acquire);
        }
        Statistics::decode(&words)
    }

    /// Returns the host's resources as the supervisor last published them; `None` while it does so.
    #[must_use]
    pub fn resources(&self) -> Option<Resources> {
        self.resources.read().map(|words| Resources::decode(&words))
    }

    /// Publishes the host's resources. Where their generation is new, the caller rings the
    /// doorbell.
    pub fn set_resources(&self, resources: &Resources) {
        self.resources.write(&resources.encode());
    }

    /// Returns a number that changes with every [`Self::set_resources`].
    #[must_use]
    pub fn resources_version(&self) -> u64 {
        self.resources.version()
    }

    /// Returns the guest's latest requests as the VMM process last published them; `None` while it
    /// does so.
    #[must_use]
    pub fn requests(&self) -> Option<[u64; requests::ALL_FILED_WORDS]> {
        self.requests.read()
    }

    /// Publishes a request of the guest in the place of the one before of its kind. For the one
    /// thread that does so.
    pub fn file_request(&self, request: &FiledRequest) {
        let mut words = self.requests.read().unwrap_or([0; requests::ALL_FILED_WORDS]);
        request.encode_into(&mut words);
        self.requests.write(&words);
    }

    /// Publishes a guest's report.
    pub fn set_statistics(&self, words: &[u64; statistics::WORDS]) {
        for (shared, word) in self.statistics.iter().zip(words) {
            shared.store(*word, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BootStage, Epoch, Facts, PagingFacts, RegisterPage};
    use crate::requests::{FiledRequest, Generation, ResourceKind, Resources, Sequence, Urgency};
    use crate::statistics::Statistics;
    use crate::units::FrameCount;
    use std::vec::Vec;

    #[test]
    fn values_are_read_as_they_were_written() {
        let page = RegisterPage::new();
        page.initialise(FrameCount(7));
        let facts = Facts {
            size: FrameCount(1),
            balloon: FrameCount(2),
            refused_entries: core::array::from_fn(|code| code as u64),
            port_calls: 3,
            host_reclaimed: FrameCount(6),
            reclaimed: FrameCount(7),
            disagreeing_reports: 10,
            ..Facts::default()
        };
        page.set_balloon_facts(&facts);
        page.set_resident(FrameCount(9));
        page.set_dropped_lines(8);
        page.set_throttled(4, 5);
        page.set_page_tables(FrameCount(11));
        assert_eq!(page.facts().paging, None);
        let paging = PagingFacts { out: FrameCount(12), all_out: FrameCount(14), all_in: FrameCount(13) };
        page.set_paging(&paging);
        assert!(page.is_valid());
        assert_eq!((page.target(), page.target_epoch()), (FrameCount(7), Epoch::FIRST));
        assert_eq!(page.resident_limit(), None);
        for limit in [Some(FrameCount(6)), Some(FrameCount::ZERO), None] {
            page.limit_resident(limit);
            assert_eq!(page.resident_limit(), limit);
        }
        for limit in [Some(FrameCount::ZERO), Some(FrameCount(9)), None] {
            page.obey_limit(limit);
            assert_eq!(page.facts().resident_limit, limit);
        }
        page.withdraw_paging();
        assert_eq!(page.facts().paging, None);
        page.set_paging(&paging);
        page.set_target(FrameCount(8));
        assert_eq!((page.target(), page.target_epoch()), (FrameCount(8), Epoch(2)));
        page.acknowledge(Epoch(2));
        let others = Facts {
            acknowledged: Epoch(2),
            resident: FrameCount(9),
            dropped_lines: 8,
            throttled_calls: 4,
            throttled_ns: 5,
            page_tables: FrameCount(11),
            paging: Some(paging),
            ..facts
        };
        assert_eq!(page.facts(), others);
        let statistics = Statistics { wanted_bytes: 5, ..Statistics::default() };
        page.set_statistics(&statistics.encode());
        assert_eq!(page.statistics(), statistics);

        page.mark_boot(BootStage::Main, 12);
        let next = RegisterPage::new();
        next.publish_target(FrameCount(9), Epoch(3));
        next.carry_over(&page);
        assert_eq!((next.target(), next.target_epoch()), (FrameCount(9), Epoch(3)));
        assert_eq!(next.facts(), Facts { acknowledged: Epoch(0), ..others });
        assert_eq!((next.statistics(), next.boot_ns(BootStage::Main)), (statistics, 12));
    }

    #[test]
    fn resources_and_requests_are_read_as_they_were_written() {
        let page = RegisterPage::new();
        assert_eq!(page.resources(), Some(Resources::default()));
        let version = page.resources_version();
        let resources = Resources::new(Generation(4));
        page.set_resources(&resources);
        assert_eq!(page.resources(), Some(resources));
        assert_ne!(page.resources_version(), version);
        let request = |kind, sequence| FiledRequest {
            kind,
            sequence: Sequence(sequence),
            urgency: Urgency::Normal,
            amount: 1,
            needed_at_ns: 2,
        };
        let [memory, disk, newer] =
            [request(ResourceKind::Memory, 1), request(ResourceKind::Disk, 1), request(ResourceKind::Memory, 2)];
        [memory, disk, newer].iter().for_each(|request| page.file_request(request));
        let words = page.requests().unwrap();
        assert_eq!(FiledRequest::decode_all(&words).collect::<Vec<_>>(), [newer, disk]);
    }

    #[test]
    fn a_boot_stage_is_noted_once() {
        let page = RegisterPage::new();
        page.mark_boot(BootStage::Main, 5);
        page.mark_boot(BootStage::Main, 6);
        assert_eq!(page.boot_ns(BootStage::Main), 5);
    }
}
