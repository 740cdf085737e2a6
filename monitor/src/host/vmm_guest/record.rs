//! What a supervisor writes down of a guest for the next one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use aerostat_link::message;
use serde::{Deserialize, Serialize};

use crate::fleet::GuestSpec;
use crate::host::Ending;
use crate::host::run_directory::GuestFiles;
use crate::size::frames;

/// How a guest outlives its supervisor.
#[derive(Debug)]
pub struct Succession {
    /// Where the next supervisor finds it.
    pub files: Arc<GuestFiles>,
    /// What the guest is.
    pub spec: GuestSpec,
    /// How long it runs without a supervisor.
    pub lease: Duration,
}

/// A guest's record: what its process does not know of it, or is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// The guest as it is run now.
    pub spec: GuestSpec,
    /// All memory that its machine has.
    #[serde(with = "frames")]
    pub memory: FrameCount,
    /// The monotonic clock just before its process was started.
    pub spawned_at_ns: u64,
}

impl GuestRecord {
    /// Writes the record, as a whole.
    ///
    /// # Errors
    ///
    /// Returns the system's error; then the old record is there.
    pub fn write(&self, files: &GuestFiles) -> io::Result<()> {
        files.write_record(&serde_json::to_vec(self)?)
    }

    /// Reads the record of a guest.
    ///
    /// # Errors
    ///
    /// Returns the system's error, also where the file is not a record of this or a compatible
    /// build.
    pub fn read(files: &GuestFiles) -> io::Result<Self> {
        let bytes = files.read_record()?.ok_or(io::ErrorKind::NotFound)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// Returns how a guest ended whose process is gone, as the process has written it; `None` where it
/// wrote nothing: it was killed, or never began.
#[must_use]
pub fn recorded_ending(files: &GuestFiles) -> Option<Ending> {
    let bytes = files.read_ended().ok().flatten()?;
    serde_json::from_slice::<message::Ending>(&bytes).ok().map(Ending::from)
}

#[cfg(test)]
mod tests {
    use super::{GuestRecord, recorded_ending};
    use crate::fleet::{GuestSpec, OveruseRule};
    use crate::host::disk::{DataDisk, DiskFaults, DiskMode, Disks, SwapDisk};
    use crate::host::run_directory::{FleetName, RunDirectory};
    use crate::host::{EndReason, Ending};
    use aerostat_abi::units::FrameCount;
    use aerostat_balloon_driver::RateLimits;
    use std::io::Write;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDirectory::open(Some(&base.path().join("base")), &FleetName::new("f").unwrap()).unwrap();
        let files = run.guest("web").unwrap();
        assert!(GuestRecord::read(&files).is_err());
        let path = "/data".into();
        let disks = Disks {
            data: Some(DataDisk { path, mode: DiskMode::ReadWrite, faults: DiskFaults::default() }),
            swap: Some(SwapDisk { size: FrameCount(7), faults: DiskFaults::default() }),
        };
        let spec = GuestSpec {
            disks,
            overuse: OveruseRule::Cap,
            balloon_rate: Some(RateLimits::parse("2-4096").unwrap()),
            ..GuestSpec::for_tests("web")
        };
        let record = GuestRecord { spec, memory: FrameCount::from_mib(512), spawned_at_ns: 77 };
        record.write(&files).unwrap();
        assert_eq!(GuestRecord::read(&files).unwrap(), record);
        files.write_record(b"{}").unwrap();
        assert!(GuestRecord::read(&files).is_err());
    }

    #[test]
    fn an_end_that_was_not_written_is_unknown() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDirectory::open(Some(&base.path().join("base")), &FleetName::new("f").unwrap()).unwrap();
        let files = run.guest("web").unwrap();
        assert_eq!(recorded_ending(&files), None);
        let mut file = files.create_ended().unwrap();
        assert_eq!(recorded_ending(&files), None);
        file.write_all(br#"{"reason":"LeaseEnded","details":[]}"#).unwrap();
        assert_eq!(recorded_ending(&files), Some(Ending { reason: EndReason::LeaseEnded, details: Vec::new() }));
        file.write_all(b"and more").unwrap();
        assert_eq!(recorded_ending(&files), None);
    }
}
