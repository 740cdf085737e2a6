//! Memory management's handler of page faults, as the trap layer calls it.

use super::address_space::Fault;
use super::fault::{self, FaultError};
use super::page_table;
use crate::arch::x86_64::operand;
use crate::arch::x86_64::trap::{PageFault, PageFaultHandler, TrapFrame};
use crate::report;

/// The handler: resolves faults, and reports those that can't be resolved.
#[derive(Debug)]
pub(crate) struct PageFaults;

impl PageFaultHandler for PageFaults {
    fn is_due(&self, fault: PageFault) -> bool {
        fault::is_due(fault.into())
    }

    fn resolve(&self, fault: PageFault, frame: &TrapFrame) {
        match fault::handle(fault.into()) {
            Ok(()) => {}
            Err(FaultError::Violation(violation)) => report::violation(frame, fault.address, violation),
            Err(FaultError::OutOfMemory) => report::out_of_memory(frame, fault.address),
            Err(FaultError::Disk) => report::disk_error(frame, fault.address),
        }
    }
}

impl From<PageFault> for Fault {
    fn from(fault: PageFault) -> Self {
        let access = match fault.access {
            operand::Access::Read => page_table::Access::ReadOnly,
            operand::Access::Write => page_table::Access::ReadWrite,
        };
        Self { address: fault.address, access }
    }
}
