//! Starts guests of a fleet in the machines that its file names.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aerostat_abi::units::FrameCount;

use crate::fleet::{Attachment, GuestSpec, Machine};
use crate::host::cgroup::PoolGroup;
use crate::host::qemu::{self, QemuConfig, QemuGuest};
use crate::host::run_directory::RunDirectory;
use crate::host::vmm_guest::{GuestConfig, Succession, VmmGuest};
use crate::host::{AnyGuest, vmm_program};

/// How long guests run on when their supervisor was killed, until another one takes them over.
const LEASE: Duration = Duration::from_secs(60);

/// What starts need.
#[derive(Debug)]
pub(super) struct Launcher {
    /// Where the next supervisor finds the guests.
    pub(super) directory: Arc<RunDirectory>,
    /// The control group that theirs are made in, if there is one.
    pub(super) pool: Option<Arc<PoolGroup>>,
    /// Where their logs are, if they have some.
    pub(super) logs: Option<PathBuf>,
}

impl Launcher {
    /// Starts a guest with its first target, or attaches its machine. For a thread that may wait.
    ///
    /// # Errors
    ///
    /// Says in a line what is missing.
    pub(super) fn start(&self, spec: &GuestSpec, target: FrameCount) -> anyhow::Result<AnyGuest> {
        let pool = self.pool.clone();
        let log = self.logs.as_ref().map(|directory| directory.join(format!("{}.log", spec.name)));
        match &spec.machine {
            Machine::Aerostat => {
                let files = Arc::new(self.directory.guest(&spec.name)?);
                let succession = Some(Arc::new(Succession { files, spec: spec.clone(), lease: LEASE }));
                let config = spec.config(target, vmm_program::find()?);
                Ok(VmmGuest::spawn(&GuestConfig { log, succession, pool, ..config })?.into())
            }
            Machine::Qemu => {
                let files = Arc::new(self.directory.guest(&spec.name)?);
                let program = qemu::PROGRAM.into();
                Ok(QemuGuest::spawn(&QemuConfig { spec: spec.clone(), target, log, files, pool, program })?.into())
            }
            Machine::Attached(Attachment { qmp, on_detach }) => Ok(QemuGuest::attach(qmp.clone(), *on_detach)?.into()),
        }
    }
}
