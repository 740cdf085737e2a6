//! What is checked on the host before a command is sent: the supervisor's thread reads no files.

use std::fmt;

use aerostat_abi::units::FrameCount;

use crate::fleet::{Fleet, GuestSpec};
use crate::fleet_checks;
use crate::supervisor::{FleetStatus, GuestStatus};

/// Checks that may wait for a disk. Each refuses with a line that says what to do.
pub(super) trait HostChecks: fmt::Debug + Send + Sync {
    /// Checks that the host has the memory for the present guests in a larger pool.
    fn check_pool(&self, status: &FleetStatus, pool: FrameCount) -> Result<(), String>;

    /// Checks that the guests named in `starts` can start, and that the host has what the fleet
    /// needs. Those in `adds` are new.
    fn check_fleet(&self, status: &FleetStatus, fleet: &Fleet, starts: &Starts) -> Result<(), String>;
}

/// Guests that a plan starts, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts {
    /// Guests that come into the fleet.
    pub(super) added: Vec<String>,
    /// Guests that run and get another machine. They hold their disks until they end.
    pub(super) replaced: Vec<String>,
}

/// The host.
#[derive(Debug)]
pub(super) struct Host;

impl HostChecks for Host {
    fn check_pool(&self, status: &FleetStatus, pool: FrameCount) -> Result<(), String> {
        if pool <= status.pool {
            return Ok(());
        }
        let running = status.guests.iter().filter(|guest| guest.machine > FrameCount::ZERO);
        let guests: Vec<_> = running.map(|guest| (&guest.service.machine, guest.limits.max)).collect();
        fleet_checks::check_growth(pool, &guests, status.guaranteed, in_use(status)).map_err(|error| error.to_string())
    }

    fn check_fleet(&self, status: &FleetStatus, fleet: &Fleet, starts: &Starts) -> Result<(), String> {
        let is_in = |names: &[String], guest: &&GuestSpec| names.contains(&guest.name);
        let added: Vec<&GuestSpec> = fleet.guests.iter().filter(|guest| is_in(&starts.added, guest)).collect();
        let replaced = fleet.guests.iter().filter(|guest| is_in(&starts.replaced, guest));
        let cached_swap = fleet_checks::check_guests(added.iter().copied())?;
        replaced.into_iter().try_for_each(fleet_checks::check_machine)?;
        fleet_checks::check_descriptors(fleet).map_err(|error| error.to_string())?;
        if added.is_empty() && fleet.pool <= status.pool {
            return Ok(());
        }
        let in_use = in_use(status).saturating_add(fleet_checks::attached_memory(added));
        fleet_checks::check_host(fleet, cached_swap, in_use).map_err(|error| error.to_string())
    }
}

/// Returns the memory that the guests use already: what is available besides is less by that.
fn in_use(status: &FleetStatus) -> FrameCount {
    let resident = |guest: &GuestStatus| guest.resident;
    let sum = status.guests.iter().map(resident).fold(FrameCount::ZERO, FrameCount::saturating_add);
    // Attached machines are not in the group that is measured.
    status.physical.map_or(sum, |physical| physical.max(sum))
}
