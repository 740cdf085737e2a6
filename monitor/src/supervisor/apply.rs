//! What has to change so that a running fleet matches an edited fleet file. Pure.
//!
//! A guest keeps running where its limits, shares, reservation, restart rule or `ignored_target`
//! change. It is replaced, that is ended and started again, where its machine changes: its kind,
//! image, command line, disks, how its balloon is paced, or a max above what its machine has.

use std::fmt;

use aerostat_abi::units::FrameCount;

use crate::fleet::{Fleet, GuestSpec};
use crate::scheduler::IdleTax;

/// The steps from a fleet to another, in the order in which they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps; empty where the fleet matches.
    pub steps: Vec<Step>,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The pool is resized.
    Pool {
        /// Its size.
        from: FrameCount,
        /// Its new size.
        to: FrameCount,
    },
    /// Idle memory is taxed otherwise.
    IdleTax {
        /// The tax.
        from: IdleTax,
        /// The new tax.
        to: IdleTax,
    },
    /// A guest comes into the fleet and is started.
    Add {
        /// The guest.
        guest: String,
    },
    /// A guest changes while it runs.
    Change {
        /// The guest.
        guest: String,
        /// What changes: a key, its value, its new value.
        changes: Vec<String>,
    },
    /// A guest is ended and started again.
    Replace {
        /// The guest.
        guest: String,
        /// What changes.
        changes: Vec<String>,
    },
    /// A guest is ended and leaves the fleet.
    Remove {
        /// The guest.
        guest: String,
    },
}

/// What a running fleet is, in the words of a fleet file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present<'a> {
    pub(super) pool: FrameCount,
    pub(super) idle_tax: IdleTax,
    pub(super) guests: &'a [(&'a GuestSpec, Machine)],
}

/// The machine of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// The guest runs, and can't become larger than this.
    Of(FrameCount),
    /// The guest does not run.
    None,
}

/// Returns the steps from what is present to `fleet`.
pub(super) fn plan(present: Present<'_>, fleet: &Fleet) -> Plan {
    let Present { pool, idle_tax, guests } = present;
    let mut steps = Vec::new();
    if pool != fleet.pool {
        steps.push(Step::Pool { from: pool, to: fleet.pool });
    }
    if idle_tax != fleet.idle_tax {
        steps.push(Step::IdleTax { from: idle_tax, to: fleet.idle_tax });
    }
    for new in &fleet.guests {
        match guests.iter().find(|(old, _)| old.name == new.name) {
            None => steps.push(Step::Add { guest: new.name.clone() }),
            Some(&(old, machine)) => steps.extend(change(old, machine, new)),
        }
    }
    let is_gone = |old: &GuestSpec| !fleet.guests.iter().any(|new| new.name == old.name);
    let gone = guests.iter().filter(|(old, _)| is_gone(old));
    steps.extend(gone.map(|(old, _)| Step::Remove { guest: old.name.clone() }));
    Plan { steps }
}

/// Returns the step from one specification of a guest to another, if there is one.
fn change(old: &GuestSpec, machine: Machine, new: &GuestSpec) -> Option<Step> {
    if old == new {
        return None;
    }
    let guest = new.name.clone();
    let grows_beyond_machine = match machine {
        Machine::Of(size) => new.limits.max > size,
        Machine::None => false,
    };
    let needs_other_machine = grows_beyond_machine
        || old.machine != new.machine
        || (&old.image, &old.command_line, &old.disks, old.balloon_rate, old.overuse)
            != (&new.image, &new.command_line, &new.disks, new.balloon_rate, new.overuse);
    let changes = differences(old, new);
    if needs_other_machine && machine != Machine::None {
        Some(Step::Replace { guest, changes })
    } else {
        Some(Step::Change { guest, changes })
    }
}

/// Returns what differs, a phrase for each key.
pub(super) fn differences(old: &GuestSpec, new: &GuestSpec) -> Vec<String> {
    let mut changes = Vec::new();
    let mut compare = |key: &str, from: String, to: String| {
        if from != to {
            changes.push(format!("{key} {from} -> {to}"));
        }
    };
    let image = |spec: &GuestSpec| spec.image.display().to_string();
    let shares = |spec: &GuestSpec| spec.subscription.shares.count().to_string();
    let reservation = |spec: &GuestSpec| spec.subscription.reservation.to_string();
    compare("min", old.limits.min.to_string(), new.limits.min.to_string());
    compare("max", old.limits.max.to_string(), new.limits.max.to_string());
    compare("shares", shares(old), shares(new));
    compare("reservation", reservation(old), reservation(new));
    compare("restart", old.restart.to_string(), new.restart.to_string());
    compare("ignored_target", old.ignored_target.to_string(), new.ignored_target.to_string());
    compare("machine", old.machine.to_string(), new.machine.to_string());
    compare("image", image(old), image(new));
    compare("command_line", format!("{:?}", old.command_line), format!("{:?}", new.command_line));
    let mut note = |key: &str, differs: bool| {
        if differs {
            changes.push(key.to_owned());
        }
    };
    note("disks", old.disks != new.disks);
    note("balloon_rate", old.balloon_rate != new.balloon_rate);
    note("overuse", old.overuse != new.overuse);
    changes
}

impl Plan {
    /// Returns whether nothing has to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool { from, to } => write!(f, "~ pool {from} -> {to}"),
            Self::IdleTax { from, to } => write!(f, "~ idle_tax {} % -> {} %", from.percent(), to.percent()),
            Self::Add { guest } => write!(f, "+ {guest} (is started)"),
            Self::Change { guest, changes } => write!(f, "~ {guest}: {}", changes.join(", ")),
            Self::Replace { guest, changes } => {
                write!(f, "± {guest}: {} (is ended and started again)", changes.join(", "))
            }
            Self::Remove { guest } => write!(f, "- {guest} (is ended)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, Plan, Present, plan};
    use crate::fleet::{Fleet, GuestSpec};
    use crate::scheduler::{IdleTax, Limits, Shares};
    use aerostat_abi::units::FrameCount;

    const POOL: FrameCount = FrameCount::from_mib(512);

    fn spec(name: &str) -> GuestSpec {
        GuestSpec::for_tests(name)
    }

    fn lines(running: &[GuestSpec], fleet: &Fleet) -> Vec<String> {
        let guests: Vec<_> = running.iter().map(|spec| (spec, Machine::Of(spec.limits.max))).collect();
        let present = Present { pool: POOL, idle_tax: IdleTax::default(), guests: &guests };
        plan(present, fleet).steps.iter().map(ToString::to_string).collect()
    }

    fn fleet(guests: Vec<GuestSpec>) -> Fleet {
        Fleet { pool: POOL, idle_tax: IdleTax::default(), guests }
    }

    #[test]
    fn a_fleet_that_matches_needs_no_step() {
        let guests = vec![spec("alpha"), spec("beta")];
        let pairs: Vec<_> = guests.iter().map(|spec| (spec, Machine::None)).collect();
        let present = Present { pool: POOL, idle_tax: IdleTax::default(), guests: &pairs };
        assert_eq!(plan(present, &fleet(guests.clone())), Plan::default());
        assert!(plan(present, &fleet(guests.clone())).is_empty());
    }

    #[test]
    fn guests_come_change_and_go() {
        let running = [spec("alpha"), spec("beta"), spec("gamma")];
        let mut beta = spec("beta");
        beta.limits.min = FrameCount::from_mib(32);
        beta.subscription.shares = Shares::HIGH;
        let mut gamma = spec("gamma");
        gamma.command_line = "quietly".into();
        let new = Fleet { pool: FrameCount::from_mib(256), ..fleet(vec![spec("delta"), beta, gamma]) };
        let expected = [
            "~ pool 512.0 MiB -> 256.0 MiB",
            "+ delta (is started)",
            "~ beta: min 64.0 MiB -> 32.0 MiB, shares 1000 -> 2000",
            "± gamma: command_line \"\" -> \"quietly\" (is ended and started again)",
            "- alpha (is ended)",
        ];
        assert_eq!(lines(&running, &new), expected);
    }

    #[test]
    fn a_max_beyond_the_machine_needs_another_machine() {
        let with_max = |mib| {
            let limits = Limits { max: FrameCount::from_mib(mib), ..spec("alpha").limits };
            fleet(vec![GuestSpec { limits, ..spec("alpha") }])
        };
        let running = [spec("alpha")];
        assert!(lines(&running, &with_max(1024))[0].starts_with("± alpha: max 512.0 MiB -> 1024.0 MiB"));
        assert!(lines(&running, &with_max(128))[0].starts_with("~ alpha: max"));
    }
}
