//! The supervisor's record of one guest, from before its start until after its end.

use std::time::Duration;

use aerostat_abi::registers::Facts;
use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::balloon::BalloonTotals;
use super::episodes::Episodes;
use super::observation::{Bounds, Observation, ResidentWatch};
use super::overuse::Overuse;
use super::pacing::Pacing;
use super::status::{EventKind, GuestState, GuestStatus};
use super::swap::{SwapAccount, SwapTotals};
use crate::clock::Moment;
use crate::fleet::{GuestSpec, OveruseRule};
use crate::host::{EndReason, Ending, GuestEvent, GuestHandle};
use crate::report::{Sample, Samples};
use crate::scheduler::{GuestId, GuestSample, Hints, Limits, Reading, Targets, Usage};
use crate::vmm::DISAGREEING_REPORTS;

/// How long a guest may make no call to its balloon before it counts as silent. Its driver makes
/// one each second.
const SILENCE: Duration = Duration::from_secs(5);
/// Memory that a VMM process uses for itself, and the error of its measurement of its guest's
/// memory in either direction.
pub(super) const OWN_MEMORY: FrameCount = FrameCount::from_mib(2);
/// The most lines of an answer that are reported.
const LINES_OF_ANSWER: usize = 64;
/// The most events of one guest that are handled at a time, so that a noisy guest does not keep the
/// supervisor from the others.
const EVENTS_PER_ROUND: usize = 64;

/// The supervisor's record of one guest.
#[derive(Debug)]
pub(super) struct Guest<G> {
    pub(super) id: GuestId,
    pub(super) name: String,
    pub(super) limits: Limits,
    /// The process, until it ended.
    pub(super) handle: Option<G>,
    pub(super) ending: Option<Ending>,
    /// What the scheduler has decided.
    pub(super) target: FrameCount,
    /// The value of the register. It is not read from the page, since the process may write
    /// anywhere in it.
    register: FrameCount,
    /// The values that were written into the register so far.
    targets: Targets,
    /// How the register moves to the target, if the host limits the rate.
    pacing: Option<Pacing>,
    spawned: Moment,
    facts: Facts,
    resident: ResidentWatch,
    statistics: Statistics,
    swap: SwapAccount,
    state: GuestState,
    overuse: Overuse,
    overuse_rule: OveruseRule,
    disagreements: Episodes,
    /// Why the supervisor has ended the guest. Its process may still exist.
    verdict: Option<Ending>,
    /// Since when the guest is silent, once that was reported.
    told_silence: Option<Moment>,
    /// The guest was asked where its processor is, and has not answered.
    is_asked: bool,
    /// The guest's answer.
    answer: Vec<String>,
    /// The guest was asked to end.
    is_stopping: bool,
    spawn_to_main: Option<Duration>,
    /// Kept only if a report will read them.
    samples: Option<Samples>,
}

/// What a guest's events require.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing new.
    Nothing,
    /// A thread in the guest waits for memory.
    Pressure,
    /// The guest ended.
    Ended(Ending),
}

impl<G: GuestHandle> Guest<G> {
    /// Creates the record of a guest whose process was started; `spawned` is the moment before.
    pub(super) fn new(id: GuestId, spec: &GuestSpec, handle: G, spawned: Moment) -> Self {
        let target = handle.registers().target();
        Self {
            id,
            name: spec.name.clone(),
            limits: spec.limits,
            handle: Some(handle),
            ending: None,
            target,
            register: target,
            targets: Targets::new(target),
            pacing: spec.balloon_rate.map(|limits| Pacing::new(limits, target, spawned)),
            samples: None,
            spawned,
            facts: Facts::default(),
            resident: ResidentWatch::default(),
            statistics: Statistics::default(),
            swap: SwapAccount::default(),
            state: GuestState::Starting,
            overuse: Overuse::default(),
            overuse_rule: spec.overuse,
            disagreements: Episodes::default(),
            verdict: None,
            told_silence: None,
            is_asked: false,
            answer: Vec::new(),
            is_stopping: false,
            spawn_to_main: None,
        }
    }

    /// Keeps samples from now on.
    pub(super) fn keep_samples(&mut self) {
        self.samples.get_or_insert_default();
    }

    /// Returns since when the guest is silent, once in each silence. Also asks the guest where its
    /// processor is.
    pub(super) fn new_silence(&mut self) -> Option<Moment> {
        if self.state != GuestState::Silent {
            self.told_silence = None;
            return None;
        }
        if self.told_silence.is_some() {
            return None;
        }
        self.told_silence = Some(self.last_heard());
        self.inspect();
        self.told_silence
    }

    /// Returns when the driver last made a call to the balloon, or the guest's start if it made
    /// none.
    fn last_heard(&self) -> Moment {
        self.spawned.max(Moment::from_ns(self.facts.last_call_ns))
    }

    /// Asks where the guest's processor is; [`Self::take_answer`] returns the answer later.
    pub(super) fn inspect(&mut self) {
        if let Some(handle) = &mut self.handle {
            self.is_asked = true;
            handle.inspect();
        }
    }

    /// Returns where the guest's processor was, if there is an answer that has not been taken.
    pub(super) fn take_answer(&mut self) -> impl Iterator<Item = EventKind> + use<G> {
        let guest = self.name.clone();
        let lines = std::mem::take(&mut self.answer).into_iter();
        lines.map(move |line| EventKind::Inspected { guest: guest.clone(), line })
    }

    /// Asks the guest to end; [`Self::news`] reports when it has.
    pub(super) fn request_stop(&mut self) {
        self.is_stopping = true;
        if let Some(handle) = &mut self.handle {
            handle.request_stop();
        }
    }

    /// Reads the register page; a guest that ended keeps what was read last. Returns the events to
    /// report.
    pub(super) fn look(&mut self, now: Moment) -> impl Iterator<Item = EventKind> + use<G> {
        let event_kinds = if self.read(now) { [self.judge(now), self.compare(now)] } else { [None, None] };
        event_kinds.into_iter().flatten()
    }

    /// Reads the register page; returns whether there is one.
    fn read(&mut self, now: Moment) -> bool {
        let Some(handle) = &self.handle else { return false };
        let bounds = Bounds {
            machine: self.limits.max,
            // The page's own acknowledgement counts only afterwards: its sizes may result from
            // targets before it.
            allowed: self.facts.size.max(self.targets.largest()),
            has_size: self.facts.size > FrameCount::ZERO,
            spawned: self.spawned,
            now,
        };
        let Observation { facts, statistics, main, contradiction } = Observation::read(handle.registers(), &bounds);
        let resident = self.resident.observe(&facts, now, || handle.resident());
        self.facts = Facts { resident, ..facts };
        let is_sound = self.targets.acknowledge(self.facts.acknowledged).is_ok();
        self.statistics = statistics;
        self.swap.observe(&self.statistics, now);
        if let Some(main) = main {
            self.spawn_to_main.get_or_insert_with(|| main.since(self.spawned));
        }
        if let Some(contradiction) = contradiction {
            self.condemn(EndReason::Failed(format!("its process reported {contradiction}")));
        }
        self.state = if now.since(self.last_heard()) > SILENCE {
            GuestState::Silent
        } else if main.is_none() {
            GuestState::Starting
        } else {
            GuestState::of_sizes(self.facts.size, self.target, self.wanted())
        };
        if !is_sound {
            self.condemn(EndReason::Failed("its process acknowledged a target that was never set".into()));
        }
        true
    }

    /// Applies the fleet file's rule to a guest that uses memory beyond its size.
    fn judge(&mut self, now: Moment) -> Option<EventKind> {
        let finding = self.overuse.observe(self.entitled(), self.facts.resident, now)?;
        match (self.overuse_rule, &mut self.handle) {
            (OveruseRule::Kill, _) => self.condemn(EndReason::BeyondSize(finding.excess)),
            (OveruseRule::Cap, Some(handle)) if finding.is_new_sample => handle.reclaim_ballooned(),
            (OveruseRule::Cap | OveruseRule::Warn, _) => {}
        }
        let (guest, excess, rule) = (self.name.clone(), finding.excess, self.overuse_rule);
        finding.told.map(|episodes| EventKind::Overuse { guest, excess, rule, episodes })
    }

    /// Detects a guest that keeps reporting a wrong balloon size. The report is only a hint, so
    /// nothing else follows.
    fn compare(&mut self, now: Moment) -> Option<EventKind> {
        let disagrees = self.facts.disagreeing_reports >= DISAGREEING_REPORTS;
        let episodes = self.disagreements.observe(disagrees, now)?;
        let reported = FrameCount::from_bytes_floor(self.statistics.balloon_bytes);
        Some(EventKind::Disagreement { guest: self.name.clone(), reported, balloon: self.facts.balloon, episodes })
    }

    /// Returns what the guest may use: its size, or, until its process has published a size, the
    /// size that it was started with.
    fn entitled(&self) -> FrameCount {
        if self.facts.size == FrameCount::ZERO { self.targets.largest() } else { self.facts.size }
    }

    /// Ends the guest for the first of these reasons; [`Self::news`] reports when it has ended.
    fn condemn(&mut self, reason: EndReason) {
        if self.verdict.is_some() {
            return;
        }
        let Facts { size, resident, .. } = self.facts;
        let details = vec![format!("size {size}, target {}, resident {resident}", self.target)];
        self.verdict = Some(Ending { reason, details });
        if let Some(handle) = &mut self.handle {
            handle.kill();
        }
    }

    /// Returns the handle's events as one result.
    pub(super) fn news(&mut self) -> News {
        let mut news = News::Nothing;
        let Some(handle) = &mut self.handle else { return news };
        for _ in 0..EVENTS_PER_ROUND {
            match handle.next_event() {
                Some(GuestEvent::Ended(ending)) => {
                    return News::Ended(self.verdict.take().unwrap_or_else(|| self.believable(ending)));
                }
                Some(GuestEvent::Pressure) => news = News::Pressure,
                // An answer that was not asked for does not fill the logs.
                Some(GuestEvent::Inspected(lines)) => {
                    if std::mem::take(&mut self.is_asked) {
                        self.answer = lines;
                        self.answer.truncate(LINES_OF_ANSWER);
                    }
                }
                None => break,
            }
        }
        news
    }

    /// Returns how the guest ended. A process that stopped without having been asked has failed.
    fn believable(&self, ending: Ending) -> Ending {
        if ending.reason != EndReason::Stopped || self.is_stopping {
            return ending;
        }
        let why = "its process stopped, and nothing had asked it to";
        Ending { reason: EndReason::Failed(why.into()), details: ending.details }
    }

    /// Closes the record of a living guest: reads its last facts, drops its process and counts its
    /// memory as released. Returns the events to report.
    pub(super) fn end(&mut self, ending: Ending, now: Moment) -> impl Iterator<Item = EventKind> + use<G> {
        let last = self.look(now);
        self.handle = None;
        self.ending = Some(ending);
        self.state = GuestState::Ended;
        self.target = FrameCount::ZERO;
        let gone = FrameCount::ZERO;
        self.facts = Facts { size: gone, balloon: gone, resident: gone, page_tables: gone, ..self.facts };
        last
    }

    /// Moves the register to the target: at once, or as fast as the host's rate allows.
    pub(super) fn follow_target(&mut self, now: Moment) {
        let Some(handle) = &self.handle else { return };
        let register = match &mut self.pacing {
            None => self.target,
            Some(pacing) => {
                if self.facts.size > FrameCount::ZERO {
                    pacing.follow(self.target, self.facts.size, now);
                }
                pacing.register()
            }
        };
        if self.register != register {
            self.register = register;
            self.targets.set(register);
            handle.set_target(register);
        }
    }

    /// Keeps a sample for the report. Samples begin when the VMM process has published its first
    /// facts and stop when the guest has ended.
    pub(super) fn record(&mut self, elapsed: Duration) {
        let sample = Sample::new(elapsed, self.facts.size, &self.reading());
        if let Some(samples) = &mut self.samples
            && self.facts.size > FrameCount::ZERO
        {
            samples.record(sample);
        }
    }

    pub(super) fn resident(&self) -> FrameCount {
        self.facts.resident
    }

    /// Returns the host memory that the guest uses: what is behind it, and the page tables that map
    /// it.
    pub(super) fn charged(&self) -> FrameCount {
        self.facts.resident.saturating_add(self.facts.page_tables)
    }

    /// Returns what the guest may use beyond its size: its VMM process's own memory, and a page
    /// table for each of its huge frames.
    pub(super) fn overhead(&self) -> FrameCount {
        let size = self.facts.size.max(self.target);
        if self.handle.is_some() {
            OWN_MEMORY.saturating_add(FrameCount(size.0 / HUGE_FRAMES))
        } else {
            FrameCount::ZERO
        }
    }

    pub(super) fn sample(&self) -> GuestSample {
        let hints = match Usage::from_statistics(&self.statistics, self.limits) {
            None => Hints::None,
            Some(usage) if self.state == GuestState::Silent => Hints::Stale(usage),
            Some(usage) => Hints::Report(usage),
        };
        GuestSample { allowed: self.targets.largest(), size: self.facts.size, resident: self.charged(), hints }
    }

    pub(super) fn reading(&self) -> Reading {
        Reading { balloon: self.facts.balloon, resident: self.facts.resident, target: self.target }
    }

    pub(super) fn status(&self) -> GuestStatus {
        GuestStatus {
            name: self.name.clone(),
            state: self.state,
            max: self.limits.max,
            size: self.facts.size,
            balloon: self.facts.balloon,
            target: self.target,
            resident: self.facts.resident,
            wanted: self.wanted(),
            rate_per_s: self.rate_per_s(),
            balloon_state: self.statistics.balloon_state.as_str().to_owned(),
            swap: self.handle.as_ref().and(self.swap.status()),
            activity: self.statistics.activity.as_str().to_owned(),
        }
    }

    /// Returns the memory that threads in the guest wait for, at most what its machine could have.
    fn wanted(&self) -> FrameCount {
        FrameCount::from_bytes_ceil(self.statistics.wanted_bytes).min(self.limits.max)
    }

    /// Returns the frames per second that the balloon may inflate by: the host's rate, or the
    /// driver's own.
    fn rate_per_s(&self) -> FrameCount {
        let drivers = FrameCount::from_bytes_floor(self.statistics.rate_bytes_per_s);
        self.pacing.as_ref().map_or(drivers, |pacing| FrameCount(pacing.frames_per_s()))
    }

    pub(super) fn spawn_to_main(&self) -> Option<Duration> {
        self.spawn_to_main
    }

    pub(super) fn into_samples(self) -> Samples {
        self.samples.unwrap_or_default()
    }

    pub(super) fn swap_totals(&self) -> SwapTotals {
        self.swap.totals()
    }

    pub(super) fn balloon_totals(&self) -> BalloonTotals {
        BalloonTotals {
            overuse_episodes: self.overuse.episodes(),
            peak_overuse: self.overuse.peak(),
            disagreements: self.disagreements.count(),
            ..BalloonTotals::new(&self.facts, &self.statistics)
        }
    }

    pub(super) fn dropped_lines(&self) -> u64 {
        self.facts.dropped_lines
    }

    pub(super) fn statistics(&self) -> &Statistics {
        &self.statistics
    }
}
