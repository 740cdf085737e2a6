//! Descriptors that a fleet needs in the supervisor's process: counted before the first start, as
//! running out of them later ends the fleet.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a running guest needs: its process and its standard error, the measurement of its memory,
/// link, doorbell, what watches them, its files in the run directory, and the limit and the charge
/// of its control group.
pub const PER_GUEST: u64 = 9;
/// What one start needs temporarily, besides the guest's disks: image, log, register page, the
/// other ends of link and doorbell, namespaces, and what starting a process takes.
pub const PER_START: u64 = 24;
/// What every run needs: streams, logs, report, signals, KVM, namespaces, and what was open before.
pub const PER_RUN: u64 = 56;
/// What the control server needs: sockets, an event loop, 64 clients, and a file for each that
/// follows a log.
pub const CONTROL: u64 = 128;

/// The process can't have as many descriptors as the fleet needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it takes up to {needed} open files, and the limit is {limit}; raise it with `ulimit -n {needed}`, or run fewer guests"
)]
pub struct TooFewDescriptors {
    needed: u64,
    limit: u64,
}

/// The size of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetSize {
    /// Guests.
    pub guests: usize,
    /// Disks of all guests.
    pub disks: usize,
    /// Guests that are started at the same time.
    pub starts: usize,
}

/// Raises the limit as far as allowed, and checks that it suffices for a fleet.
///
/// # Errors
///
/// Returns [`TooFewDescriptors`], with the number that the fleet needs.
pub fn make_room(fleet: FleetSize) -> Result<(), TooFewDescriptors> {
    let limit = getrlimit(Resource::Nofile);
    // A process may always raise its limit so far; where it is refused all the same, the limit in
    // force counts.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let in_force = if raised.is_ok() { limit.maximum } else { limit.current };
    check(needed(fleet), in_force.unwrap_or(u64::MAX))
}

/// Disks are all open at once when they are checked, before the first guest runs, and later those
/// of the guests that are being started.
const fn needed(fleet: FleetSize) -> u64 {
    let FleetSize { guests, disks, starts } = fleet;
    PER_RUN + CONTROL + PER_START * starts as u64 + PER_GUEST * guests as u64 + disks as u64
}

const fn check(needed: u64, limit: u64) -> Result<(), TooFewDescriptors> {
    if needed <= limit { Ok(()) } else { Err(TooFewDescriptors { needed, limit }) }
}

#[cfg(test)]
mod tests {
    use super::{FleetSize, check, needed};

    #[test]
    fn a_limit_that_is_too_low_is_reported_with_a_sufficient_one() {
        let three_hundred = needed(FleetSize { guests: 300, disks: 4, starts: 4 });
        assert!(check(three_hundred, three_hundred).is_ok());
        let error = check(three_hundred, 1024).unwrap_err().to_string();
        let advice = [format!("takes up to {three_hundred} open files"), format!("ulimit -n {three_hundred}")];
        assert!(advice.iter().all(|words| error.contains(words)), "{error}");
    }
}
