//! What the supervisor accepts of what a guest's process publishes.
//!
//! A VMM process is not trusted: a guest is assumed to control it, and what it writes decides which
//! guests get memory. Therefore an observation is used only after it went through this module: each
//! fact is limited to what can be true, and an impossible fact is detected. How much memory is
//! behind the guest is measured from outside the process.

use std::fmt;
use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::OWN_MEMORY;
use crate::clock::Moment;
use crate::host::Observation;

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
    /// A moment before the observation.
    pub(super) now: Moment,
}

/// An observation, limited to what can be true. The resident memory in it is still the process's
/// own claim.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) observation: Observation,
    /// An impossible fact, if there was one.
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

impl Accepted {
    /// Limits what was `claimed` to `bounds`.
    pub(super) fn new(claimed: Observation, bounds: &Bounds) -> Self {
        let Bounds { machine, allowed, has_size, spawned, now } = *bounds;
        let contradiction = match (claimed.size, claimed.balloon) {
            (Some(size), _) if size > allowed => Some(Contradiction::Size { claimed: size, allowed }),
            (None, _) if has_size => Some(Contradiction::NoSize),
            (_, Some(balloon)) if balloon > machine => Some(Contradiction::Balloon { claimed: balloon, machine }),
            _ => None,
        };
        let observation = Observation {
            size: claimed.size.map(|size| size.min(allowed)),
            balloon: claimed.balloon.map(|balloon| balloon.min(machine)),
            paged_out: claimed.paged_out.map(|out| out.min(allowed)),
            page_tables: claimed.page_tables.map(|tables| tables.min(most_page_tables(machine))),
            // The process may have written a stamp after `now`.
            last_call: claimed.last_call.map(|at| at.min(now)),
            main: claimed.main.map(|at| at.clamp(spawned, now.max(spawned))),
            ..claimed
        };
        Self { observation, contradiction }
    }
}

/// Returns the most page tables that a machine can have: one behind every huge frame, the tables
/// above them, and those that the process itself needs.
fn most_page_tables(machine: FrameCount) -> FrameCount {
    const OWN: u64 = 64;
    let lowest = machine.0.div_ceil(HUGE_FRAMES);
    FrameCount(lowest + lowest.div_ceil(HUGE_FRAMES) + OWN)
}

/// A process's claims that are worth a new measurement when they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) size: Option<FrameCount>,
    pub(super) resident: Option<FrameCount>,
}

/// Resident memory, measured from outside the VMM process: at every poll while something changes,
/// and at growing intervals while nothing does.
#[derive(Debug, Default)]
pub(super) struct ResidentWatch {
    /// The claims at the last measurement.
    seen: Option<Claims>,
    measured: FrameCount,
    pace: Duration,
    due: Moment,
}

impl ResidentWatch {
    /// Returns the resident memory by `measure` if a measurement is due, else by the last one. Up
    /// to [`OWN_MEMORY`] of what was measured is the process's own; the process may say how much.
    pub(super) fn observe(
        &mut self,
        claims: Claims,
        now: Moment,
        measure: impl FnOnce() -> Option<FrameCount>,
    ) -> FrameCount {
        // A process that has ended can't be measured; the event of its end will follow.
        if (now >= self.due || self.seen != Some(claims))
            && let Some(measured) = measure()
        {
            let is_same = measured == self.measured && self.seen == Some(claims);
            self.pace = if is_same { CALM.min(2 * self.pace) } else { LIVELY };
            (self.seen, self.measured, self.due) = (Some(claims), measured, now.after(self.pace));
        }
        let claimed = claims.resident.unwrap_or(self.measured);
        claimed.clamp(self.measured.saturating_sub(OWN_MEMORY), self.measured)
    }
}

#[cfg(test)]
mod tests {
    use super::{Accepted, Bounds, Claims, Contradiction, LIVELY, ResidentWatch};
    use crate::clock::Moment;
    use crate::host::Observation;
    use aerostat_abi::registers::{BootStage, Facts, PagingFacts, RegisterPage};
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

    fn accepted(page: &RegisterPage) -> Accepted {
        Accepted::new(Observation::of_page(page), &BOUNDS)
    }

    /// Returns what is accepted of this size and balloon.
    fn sizes(size: FrameCount, balloon: FrameCount) -> (Option<FrameCount>, Option<FrameCount>, Option<Contradiction>) {
        let page = RegisterPage::new();
        page.set_balloon_facts(&Facts { size, balloon, ..Facts::default() });
        let Accepted { observation, contradiction } = accepted(&page);
        (observation.size, observation.balloon, contradiction)
    }

    #[test]
    fn facts_that_can_be_true_are_believed() {
        assert_eq!(sizes(MIB(128), MIB(512)), (Some(MIB(128)), Some(MIB(512)), None));
        let unpublished = Accepted::new(Observation::default(), &Bounds { has_size: false, ..BOUNDS });
        assert_eq!((unpublished.contradiction, unpublished.observation.main), (None, None));
    }

    #[test]
    fn impossible_facts_are_found_out_and_bounded() {
        let everything = FrameCount(u64::MAX);
        let (size, _, contradiction) = sizes(everything, MIB(384));
        assert_eq!(size, Some(MIB(128)));
        assert_eq!(contradiction, Some(Contradiction::Size { claimed: everything, allowed: MIB(128) }));
        assert_eq!(sizes(FrameCount::ZERO, MIB(384)).2, Some(Contradiction::NoSize));
        let (_, balloon, contradiction) = sizes(MIB(64), everything);
        assert_eq!((balloon, contradiction.is_some()), (Some(MIB(512)), true));
        let page = RegisterPage::new();
        page.set_page_tables(everything);
        let page_tables = accepted(&page).observation.page_tables.unwrap();
        assert!(page_tables < MIB(3), "a 512th of the machine, and a little");
    }

    #[test]
    fn no_more_is_paged_out_than_the_guest_has() {
        let page = RegisterPage::new();
        assert_eq!(accepted(&page).observation.paged_out, None);
        for (claimed, believed) in [(MIB(7), MIB(7)), (FrameCount(u64::MAX), BOUNDS.allowed)] {
            page.set_paging(&PagingFacts { out: claimed, ..PagingFacts::default() });
            assert_eq!(accepted(&page).observation.paged_out, Some(believed));
        }
    }

    #[test]
    fn stamps_lie_between_the_start_and_now() {
        for (stamp, main) in [(1, 1000), (3000, 3000), (u64::MAX, 5000)] {
            let page = RegisterPage::new();
            page.mark_boot(BootStage::Main, stamp);
            page.set_balloon_facts(&Facts { size: MIB(1), last_call_ns: u64::MAX, ..Facts::default() });
            let Observation { main: found, last_call, .. } = accepted(&page).observation;
            assert_eq!((found, last_call), (Some(Moment::from_ns(main)), Some(BOUNDS.now)));
        }
    }

    /// Polls a process that claims (size, resident) and has `measured` every 20 ms; returns how
    /// often it was measured, and the last result.
    fn polls(count: u32, watch: &mut ResidentWatch, claims: (u64, u64), measured: u64) -> (u32, FrameCount) {
        let claims = Claims { size: Some(MIB(claims.0)), resident: Some(MIB(claims.1)) };
        let mut measures = 0;
        let mut resident = FrameCount::ZERO;
        let start = Moment::from_ns(watch.due.ns() + 1);
        for poll in 0..count {
            let now = start.after(poll * LIVELY);
            resident = watch.observe(claims, now, || {
                measures += 1;
                Some(MIB(measured))
            });
        }
        (measures, resident)
    }

    #[test]
    fn an_idle_guest_is_measured_rarely_and_a_change_at_once() {
        let mut watch = ResidentWatch::default();
        let (measures, resident) = polls(500, &mut watch, (128, 60), 61);
        assert!((25..60).contains(&measures), "{measures} measures in ten seconds");
        assert_eq!(resident, MIB(60));
        assert_eq!(polls(1, &mut watch, (126, 60), 59), (1, MIB(59)));
        assert_eq!(polls(1, &mut watch, (126, 58), 59), (1, MIB(58)));
    }

    #[test]
    fn a_process_that_lies_about_its_memory_is_not_believed() {
        for (claimed, believed) in [(0, 298), (u64::MAX >> 20, 300), (299, 299)] {
            assert_eq!(polls(1, &mut ResidentWatch::default(), (64, claimed), 300).1, MIB(believed));
        }
    }

    proptest! {
        #[test]
        fn no_page_exceeds_the_bounds(size: u64, balloon: u64, last_call_ns: u64, main: u64) {
            let page = RegisterPage::new();
            page.mark_boot(BootStage::Main, main);
            let (size, balloon) = (FrameCount(size), FrameCount(balloon));
            page.set_balloon_facts(&Facts { size, balloon, last_call_ns, ..Facts::default() });
            let Observation { size, balloon, last_call, main, .. } = accepted(&page).observation;
            prop_assert!(size.is_none_or(|size| size <= BOUNDS.allowed));
            prop_assert!(balloon.is_some_and(|balloon| balloon <= BOUNDS.machine));
            prop_assert!(last_call.is_none_or(|at| at <= BOUNDS.now));
            prop_assert!(main.is_none_or(|main| (BOUNDS.spawned..=BOUNDS.now).contains(&main)));
        }
    }
}
