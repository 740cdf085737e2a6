//! Interrupts of devices, which eventfds raise: which line leads to which vector of the guest.
//!
//! KVM has one table of routes per machine and replaces it as a whole; [`InterruptRouter`] is its
//! only owner. Lines are messages to processor 0 and are independent of the interrupt controller's
//! pins, which are unused. The balloon's interrupt needs no line ([`super::balloon_interrupt`]).

use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::lock::lock;
use super::machine::{KvmError, failed};

/// The address of a message to the local APIC of processor 0 (Intel SDM volume 3, 12.11.1). Its
/// data is the vector.
pub(super) const MESSAGE_ADDRESS: u32 = 0xfee0_0000;
/// The first device's line, which is the first one that belongs to no pin of the interrupt
/// controller.
const FIRST_LINE: u32 = 24;

/// The vector of each device. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Routes(Vec<u8>);

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    line: u32,
    vector: u8,
}

impl Routes {
    /// Adds a device; returns its line.
    fn add_device(&mut self, vector: u8) -> u32 {
        self.0.push(vector);
        self.entries().last().map_or(FIRST_LINE, |route| route.line)
    }

    /// Returns the whole table.
    fn entries(&self) -> impl Iterator<Item = Route> {
        (FIRST_LINE..).zip(&self.0).map(|(line, &vector)| Route { line, vector })
    }
}

/// The owner of a machine's interrupt routes.
#[derive(Debug)]
pub(super) struct InterruptRouter {
    vm: Arc<VmFd>,
    routes: Mutex<Routes>,
}

impl InterruptRouter {
    /// Creates the router of a machine that has an interrupt controller.
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, routes: Mutex::default() }
    }

    /// Makes a write to `interrupt` raise a new device's `vector` from now on.
    pub(super) fn connect_device(&self, interrupt: &EventFd, vector: u8) -> Result<(), KvmError> {
        // Changed as a copy: a table that KVM refuses is not kept.
        let mut routes = lock(&self.routes);
        let mut changed = routes.clone();
        let line = changed.add_device(vector);
        let entries: Vec<_> = changed.entries().map(message).collect();
        let table = KvmIrqRouting::from_entries(&entries).map_err(|_| KvmError::Lacks("route interrupts"))?;
        self.vm.set_gsi_routing(&table).map_err(failed("route an interrupt"))?;
        *routes = changed;
        self.vm.register_irqfd(interrupt, line).map_err(failed("connect an interrupt"))
    }
}

fn message(route: Route) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi: route.line, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi = kvm_irq_routing_msi { address_lo: MESSAGE_ADDRESS, data: route.vector.into(), ..Default::default() };
    entry
}

#[cfg(test)]
mod tests {
    use super::{Route, Routes};

    #[test]
    fn lines_stay_when_others_come() {
        let mut routes = Routes::default();
        assert_eq!(routes.entries().count(), 0);
        assert_eq!((routes.add_device(0x50), routes.add_device(0x51)), (24, 25));
        let expected = [(24, 0x50), (25, 0x51)].map(|(line, vector)| Route { line, vector });
        assert_eq!(routes.entries().collect::<Vec<_>>(), expected);
    }
}
