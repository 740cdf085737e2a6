//! What the balloon device uses of this process: interrupts, the link, the meter, the main thread.

use std::ops::Range;
use std::sync::Arc;

use aerostat_abi::units::FrameCount;
use aerostat_link::Patience;
use aerostat_link::message::FromVmm;
use rustix::fd::OwnedFd;

use super::balloon::BalloonHost;
use super::balloon_interrupt::BalloonInterrupt;
use super::memory_slots::MemorySlots;
use super::problems::Problems;
use super::resident::ResidentMeter;
use super::shared_registers::SharedRegisters;
use super::supervisor_link::SupervisorLink;
use super::virtio::{Quiescent, Workers};

/// Messages of a kind within this time after the last are dropped: the supervisor polls soon in any
/// case, and a guest must not keep it busy.
const MESSAGE_INTERVAL_NS: u64 = 5_000_000;

/// The process around a balloon device.
#[derive(Debug)]
pub(super) struct ProcessHost {
    link: Arc<SupervisorLink>,
    problems: Problems,
    interrupt: BalloonInterrupt,
    slots: Arc<MemorySlots>,
    meter: Arc<ResidentMeter>,
    registers: Arc<SharedRegisters>,
    workers: Workers,
    /// Wakes the main thread.
    work_left: Arc<OwnedFd>,
    last_pressure_ns: u64,
    last_change_ns: u64,
    last_request_ns: u64,
}

impl ProcessHost {
    /// Resident memory is measured by `meter` and published in `registers`; `work_left` wakes the
    /// main thread.
    pub(super) fn new(
        link: Arc<SupervisorLink>,
        interrupt: BalloonInterrupt,
        slots: Arc<MemorySlots>,
        (meter, registers): (Arc<ResidentMeter>, Arc<SharedRegisters>),
        (workers, work_left): (Workers, Arc<OwnedFd>),
    ) -> Self {
        let problems = Problems::new(Arc::clone(&link));
        Self {
            link,
            problems,
            interrupt,
            slots,
            meter,
            registers,
            workers,
            work_left,
            last_pressure_ns: 0,
            last_change_ns: 0,
            last_request_ns: 0,
        }
    }
}

impl BalloonHost for ProcessHost {
    fn connect_doorbell(&mut self, vector: u8) {
        self.interrupt.connect(vector);
    }

    fn disconnect_doorbell(&mut self) {
        self.interrupt.disconnect();
    }

    fn pressure(&mut self, now_ns: u64) {
        if is_due(&mut self.last_pressure_ns, now_ns) {
            // A full link means that the supervisor has not read the last ones yet. The next
            // supervisor reads the guest's report.
            let _ = self.link.send(&FromVmm::Pressure, Patience::DoNotWait);
        }
    }

    fn use_changed(&mut self, now_ns: u64) {
        // A supervisor that has not read the last ones polls when it does.
        if is_due(&mut self.last_change_ns, now_ns) {
            let _ = self.link.send(&FromVmm::UseChanged, Patience::DoNotWait);
        }
    }

    fn requested(&mut self, now_ns: u64) {
        // Where this is dropped, the supervisor finds the request at its next poll.
        if is_due(&mut self.last_request_ns, now_ns) {
            let _ = self.link.send(&FromVmm::Requested, Patience::DoNotWait);
        }
    }

    fn attached(&self) -> FrameCount {
        self.slots.attached()
    }

    fn attach(&mut self, frames: &Range<usize>) -> bool {
        match self.slots.attach(frames) {
            Ok(()) => true,
            Err(error) => {
                self.problems.report(format_args!("the guest can't grow: {error}"));
                false
            }
        }
    }

    fn memory_released(&mut self) {
        // Where it can't be measured now, the main thread notices and ends the process.
        let _ = self.meter.publish(&self.registers.page());
    }

    fn work_left(&mut self) {
        // Full only where it was written 2^64 times and the main thread did not read it.
        let _ = rustix::io::write(&self.work_left, &1_u64.to_ne_bytes());
    }

    fn quiesce(&self) -> Option<Quiescent<'_>> {
        self.workers.hold()
    }
}

/// Returns whether enough time has passed since the last message, and notes that one is sent.
fn is_due(last_ns: &mut u64, now_ns: u64) -> bool {
    let is_due = now_ns.saturating_sub(*last_ns) >= MESSAGE_INTERVAL_NS;
    if is_due {
        *last_ns = now_ns;
    }
    is_due
}
