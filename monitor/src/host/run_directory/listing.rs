//! The fleets below a base directory, for clients.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::folder::Folder;
use super::lock::Lock;
use super::{CONTROL_SOCKET, FleetName, default_base};

/// A fleet with a run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetEntry {
    /// Its name.
    pub fleet: FleetName,
    /// The process of its supervisor; `None` if none runs. Guests may still run.
    pub supervisor: Option<u32>,
}

/// Returns the fleets below `base`, or below [`default_base`], by name.
///
/// # Errors
///
/// Returns the system's error where the directory is there and can't be read.
pub fn fleets(base: Option<&Path>) -> io::Result<Vec<FleetEntry>> {
    let Some(base) = open_base(base)? else { return Ok(Vec::new()) };
    let names = base.names()?.into_iter().filter_map(|name| FleetName::new(name).ok());
    let entry = |fleet: FleetName| {
        // What is not a directory is no fleet.
        let folder = base.open_existing_below(fleet.as_str()).ok()?;
        Some(FleetEntry { supervisor: Lock::holder(&folder), fleet })
    };
    Ok(names.filter_map(entry).collect())
}

/// Connects to the control socket of `fleet` below `base`, or below [`default_base`].
///
/// # Errors
///
/// Returns the system's error: `NotFound` or `ConnectionRefused` where no supervisor of the fleet
/// runs.
pub fn connect(base: Option<&Path>, fleet: &FleetName) -> io::Result<UnixStream> {
    let base = open_base(base)?.ok_or(io::ErrorKind::NotFound)?;
    base.open_existing_below(fleet.as_str())?.connect_stream(CONTROL_SOCKET)
}

fn open_base(base: Option<&Path>) -> io::Result<Option<Folder>> {
    Folder::open_existing(&base.map_or_else(default_base, Path::to_owned))
}
