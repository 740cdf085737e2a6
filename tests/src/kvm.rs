//! A guest under Aerostat's own VMM.

use std::path::Path;
use std::time::Duration;

use aerostat::host::disk::Disks;
use aerostat::host::vmm_guest::{GuestConfig, VmmGuest};
use aerostat::host::{Ending, GuestEvent, GuestHandle};
use aerostat_abi::registers::BootStage;

use crate::clock::monotonic_ns;
use crate::environment::aerostat_vmm;
use crate::guest::Plan;

/// A guest with its VMM process.
#[derive(Debug)]
pub(crate) struct KvmGuest {
    handle: VmmGuest,
    spawned_ns: u64,
    /// The answer to the last inspection.
    inspected: Option<Vec<String>>,
}

impl KvmGuest {
    /// Starts the guest of `plan`; its serial port writes to `log`.
    pub(crate) fn start(plan: &Plan, log: &Path) -> Self {
        let config = GuestConfig {
            name: plan.image.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            image: plan.image.clone(),
            memory: plan.memory,
            initial_grant: plan.grant,
            command_line: plan.command_line.clone(),
            disks: Disks { data: plan.disk.clone(), swap: plan.swap.clone() },
            host_swap: plan.host_swap.clone(),
            log: Some(log.to_path_buf()),
            pool: None,
            program: aerostat_vmm(),
            succession: None,
        };
        let spawned_ns = monotonic_ns();
        let handle = VmmGuest::spawn(&config).unwrap_or_else(|error| panic!("starting {config:?}: {error}"));
        Self { handle, spawned_ns, inspected: None }
    }

    pub(crate) fn handle(&self) -> &VmmGuest {
        &self.handle
    }

    pub(crate) fn handle_mut(&mut self) -> &mut VmmGuest {
        &mut self.handle
    }

    /// Returns the time from before the spawn to `stage` if the guest has reached it.
    pub(crate) fn since_spawn(&self, stage: BootStage) -> Option<Duration> {
        let reached = self.handle.registers().boot_ns(stage);
        (reached != 0).then(|| Duration::from_nanos(reached.saturating_sub(self.spawned_ns)))
    }

    /// Asks where the guest is.
    pub(crate) fn inspect(&mut self) {
        self.inspected = None;
        self.handle.inspect();
    }

    /// Returns the answer, if it has come.
    pub(crate) fn inspected(&self) -> Option<&[String]> {
        self.inspected.as_deref()
    }

    /// Returns how the guest ended if it has.
    pub(crate) fn ending(&mut self) -> Option<Ending> {
        while let Some(event) = self.handle.next_event() {
            match event {
                GuestEvent::Ended(ending) => return Some(ending),
                GuestEvent::Inspected(lines) => self.inspected = Some(lines),
                _ => {}
            }
        }
        None
    }
}
