//! What the supervisor accepts from a register page.
//!
//! A VMM process is not trusted: a guest is assumed to control it, and what it writes decides which
//! guests get memory. Therefore a page is read only in this module, each fact is limited to what
//! can be true, and an impossible fact is detected. How much memory is behind the guest is measured
//! from outside the process.

use std::fmt;
use std::time::Duration;

use aerostat_abi::registers::{BootStage, Facts, RegisterPage};
use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::guest::OWN_MEMORY;
use crate::clock::Moment;

/// Intervals at which resident memory is measured while nothing seems to change: the first, and the
/// longest. A measurement costs a few microseconds.
const LIVELY: Duration = Duration::from_millis(20);
const CALM: Duration = Duration::from_millis(320);

/// The bounds of what can be true of a guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// All memory of its machine.
    pub(super) machine: FrameCount,
    /// The largest size that the guest may have: its last one, or a target that its process may
    /// still act on.
    pub(super) allowed: FrameCount,
    /// Whether its process has published a size before.
    pub(super) has_size: bool,
    /// The moment at which the guest's process was started.
    pub(super) spawned: Moment,
    /// The moment at which the page is read.
    pub(super) now: Moment,
}

/// The accepted contents of a register page. The resident memory in it is still the process's own
/// claim.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    pub(super) facts: Facts,
    pub(super) statistics: Statistics,
    /// When the application's `main` was called.
    pub(super) main: Option<Moment>,
    /// An impossible fact, if the page has one.
    pub(super) contradiction: Option<Contradiction>,
}

/// A fact that no correct VMM process publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contradiction {
    /// A size that the guest was not granted.
    Size { claimed: FrameCount, allowed: FrameCount },
    /// No size, although one was published before.
    NoSize,
    /// A balloon that is larger than the machine.
    Balloon { claimed: FrameCount, machine: FrameCount },
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { claimed, allowed } => {
                write!(f, "a size of {claimed}, and it may have {allowed}")
            }
            Self::NoSize => f.write_str("no size, after there was one"),
            Self::Balloon { claimed, machine } => write!(f, "a balloon of {claimed} in a machine of {machine}"),
        }
    }
}

impl Observation {
    /// Reads `page` within `bounds`.
    pub(super) fn read(page: &RegisterPage, bounds: &Bounds) -> Self {
        let Bounds { machine, allowed, has_size, spawned, now } = *bounds;
        let claimed = page.facts();
        let contradiction = if claimed.size > allowed {
            Some(Contradiction::Size { claimed: claimed.size, allowed })
        } else if claimed.size == FrameCount::ZERO && has_size {
            Some(Contradiction::NoSize)
        } else if claimed.balloon > machine {
            Some(Contradiction::Balloon { claimed: claimed.balloon, machine })
        } else {
            None
        };
        let facts = Facts {
            size: claimed.size.min(allowed),
            balloon: claimed.balloon.min(machine),
            page_tables: claimed.page_tables.min(most_page_tables(machine)),
            // The process may have written a stamp after `now`, which was taken before the read.
            last_call_ns: claimed.last_call_ns.min(now.ns()),
            ..claimed
        };
        let main = Some(page.boot_ns(BootStage::Main)).filter(|&main| main != 0);
        let main = main.map(|main| Moment::from_ns(main).clamp(spawned, now.max(spawned)));
        Self { facts, statistics: page.statistics(), main, contradiction }
    }
}

/// Returns the most page tables that a machine can have: one behind every huge frame, the tables
/// above them, and those that the process itself needs.
fn most_page_tables(machine: FrameCount) -> FrameCount {
    const OWN: u64 = 64;
    let lowest = machine.0.div_ceil(HUGE_FRAMES);
    FrameCount(lowest + lowest.div_ceil(HUGE_FRAMES) + OWN)
}

/// Resident memory, measured from outside the VMM process: at every sample while something changes,
/// and at growing intervals while nothing does.
#[derive(Debug, Default)]
pub(super) struct ResidentWatch {
    /// What the process published at the last measurement: its size and its own measurement.
    seen: Option<(FrameCount, FrameCount)>,
    measured: FrameCount,
    pace: Duration,
    due: Moment,
}

impl ResidentWatch {
    /// Returns the resident memory by `measure` if a measurement is due, else by the last one. Up
    /// to [`OWN_MEMORY`] of what was measured is the process's own; the process may say how much.
    pub(super) fn observe(
        &mut self,
        claimed: &Facts,
        now: Moment,
        measure: impl FnOnce() -> Option<FrameCount>,
    ) -> FrameCount {
        let says = Some((claimed.size, claimed.resident));
        // A process that has ended can't be measured; the event of its end will follow.
        if (now >= self.due || says != self.seen)
            && let Some(measured) = measure()
        {
            let is_same = measured == self.measured && says == self.seen;
            self.pace = if is_same { CALM.min(2 * self.pace) } else { LIVELY };
            (self.seen, self.measured, self.due) = (says, measured, now.after(self.pace));
        }
        claimed.resident.clamp(self.measured.saturating_sub(OWN_MEMORY), self.measured)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Contradiction, LIVELY, Observation, ResidentWatch};
    use crate::clock::Moment;
    use aerostat_abi::registers::{BootStage, Facts, RegisterPage};
    use aerostat_abi::units::FrameCount;
    use proptest::{prop_assert, proptest};

    const MIB: fn(u64) -> FrameCount = FrameCount::from_mib;
    const BOUNDS: Bounds = Bounds {
        machine: FrameCount::from_mib(512),
        allowed: FrameCount::from_mib(128),
        has_size: true,
        spawned: Moment::from_ns(1000),
        now: Moment::from_ns(5000),
    };

    fn observed(size: FrameCount, balloon: FrameCount) -> (Facts, Option<Contradiction>) {
        let page = RegisterPage::new();
        page.set_balloon_facts(&Facts { size, balloon, ..Facts::default() });
        let observation = Observation::read(&page, &BOUNDS);
        (observation.facts, observation.contradiction)
    }

    #[test]
    fn facts_that_can_be_true_are_believed() {
        let (facts, contradiction) = observed(MIB(128), MIB(512));
        assert_eq!((facts.size, facts.balloon, contradiction), (MIB(128), MIB(512), None));
        let unpublished = Observation::read(&RegisterPage::new(), &Bounds { has_size: false, ..BOUNDS });
        assert_eq!((unpublished.contradiction, unpublished.main), (None, None));
    }

    #[test]
    fn impossible_facts_are_found_out_and_bounded() {
        let everything = FrameCount(u64::MAX);
        let (facts, contradiction) = observed(everything, MIB(384));
        assert_eq!(facts.size, MIB(128));
        assert_eq!(contradiction, Some(Contradiction::Size { claimed: everything, allowed: MIB(128) }));
        assert_eq!(observed(FrameCount::ZERO, MIB(384)).1, Some(Contradiction::NoSize));
        let (facts, contradiction) = observed(MIB(64), everything);
        assert_eq!((facts.balloon, contradiction.is_some()), (MIB(512), true));
        let page = RegisterPage::new();
        page.set_page_tables(everything);
        assert!(Observation::read(&page, &BOUNDS).facts.page_tables < MIB(3), "a 512th of the machine, and a little");
    }

    #[test]
    fn stamps_lie_between_the_start_and_now() {
        for (stamp, main) in [(1, 1000), (3000, 3000), (u64::MAX, 5000)] {
            let page = RegisterPage::new();
            page.mark_boot(BootStage::Main, stamp);
            page.set_balloon_facts(&Facts { size: MIB(1), last_call_ns: u64::MAX, ..Facts::default() });
            let observation = Observation::read(&page, &BOUNDS);
            assert_eq!((observation.main, observation.facts.last_call_ns), (Some(Moment::from_ns(main)), 5000));
        }
    }

    /// Looks every 20 ms at a process that says (size, resident) and has `measured`; how often it
    /// was measured, and the last result.
    fn looks(count: u32, watch: &mut ResidentWatch, says: (u64, u64), measured: u64) -> (u32, FrameCount) {
        let facts = Facts { size: MIB(says.0), resident: MIB(says.1), ..Facts::default() };
        let mut measures = 0;
        let mut resident = FrameCount::ZERO;
        let start = Moment::from_ns(watch.due.ns() + 1);
        for look in 0..count {
            let now = start.after(look * LIVELY);
            resident = watch.observe(&facts, now, || {
                measures += 1;
                Some(MIB(measured))
            });
        }
        (measures, resident)
    }

    #[test]
    fn an_idle_guest_is_measured_rarely_and_a_change_at_once() {
        let mut watch = ResidentWatch::default();
        let (measures, resident) = looks(500, &mut watch, (128, 60), 61);
        assert!((25..60).contains(&measures), "{measures} measures in ten seconds");
        assert_eq!(resident, MIB(60));
        assert_eq!(looks(1, &mut watch, (126, 60), 59), (1, MIB(59)));
        assert_eq!(looks(1, &mut watch, (126, 58), 59), (1, MIB(58)));
    }

    #[test]
    fn a_process_that_lies_about_its_memory_is_not_believed() {
        for (claimed, believed) in [(0, 298), (u64::MAX >> 20, 300), (299, 299)] {
            assert_eq!(looks(1, &mut ResidentWatch::default(), (64, claimed), 300).1, MIB(believed));
        }
    }

    proptest! {
        #[test]
        fn no_page_exceeds_the_bounds(size: u64, balloon: u64, last_call_ns: u64, main: u64) {
            let page = RegisterPage::new();
            page.mark_boot(BootStage::Main, main);
            let (size, balloon) = (FrameCount(size), FrameCount(balloon));
            page.set_balloon_facts(&Facts { size, balloon, last_call_ns, ..Facts::default() });
            let Observation { facts, main, .. } = Observation::read(&page, &BOUNDS);
            prop_assert!(facts.size <= BOUNDS.allowed && facts.balloon <= BOUNDS.machine);
            prop_assert!(facts.last_call_ns <= BOUNDS.now.ns());
            prop_assert!(main.is_none_or(|main| (BOUNDS.spawned..=BOUNDS.now).contains(&main)));
        }
    }
}
