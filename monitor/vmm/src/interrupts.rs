//! Interrupts that eventfds raise: which line leads to which vector of the guest.
//!
//! KVM has one table of routes per machine and replaces it as a whole; [`InterruptRouter`] is its
//! only owner. A device's line exists from the start, the doorbell's from when the guest says which
//! vector it wants. Lines are messages to processor 0 and are independent of the interrupt
//! controller's pins, which are unused.

use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::lock::lock;
use super::machine::{KvmError, failed};

/// A message to the local APIC of processor 0 (Intel SDM volume 3, 12.11.1).
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;
/// The doorbell's line: the first one that belongs to no pin of the interrupt controller. The
/// devices' lines follow.
const DOORBELL_LINE: u32 = 24;
const FIRST_DEVICE_LINE: u32 = DOORBELL_LINE + 1;

/// The vector of each interrupt source. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Routes {
    doorbell: Option<u8>,
    devices: Vec<u8>,
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    line: u32,
    vector: u8,
}

impl Routes {
    /// Adds a device; returns its line.
    fn add_device(&mut self, vector: u8) -> u32 {
        self.devices.push(vector);
        self.entries().last().map_or(FIRST_DEVICE_LINE, |route| route.line)
    }

    /// Returns the whole table.
    fn entries(&self) -> impl Iterator<Item = Route> {
        let doorbell = self.doorbell.map(|vector| Route { line: DOORBELL_LINE, vector });
        let devices = (FIRST_DEVICE_LINE..).zip(&self.devices).map(|(line, &vector)| Route { line, vector });
        doorbell.into_iter().chain(devices)
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

    /// Makes a write to `bell` raise `vector` from now on; an earlier write raises it at once.
    pub(super) fn connect_doorbell(&self, bell: &EventFd, vector: u8) -> Result<(), KvmError> {
        self.connect(bell, |routes| {
            routes.doorbell = Some(vector);
            DOORBELL_LINE
        })
    }

    /// Disconnects `bell`, which raises nothing from now on; does nothing where it was not
    /// connected.
    pub(super) fn disconnect_doorbell(&self, bell: &EventFd) -> Result<(), KvmError> {
        let mut routes = lock(&self.routes);
        if routes.doorbell.take().is_none() {
            return Ok(());
        }
        // The route stays in KVM's table until that is replaced; a line that is never raised does
        // no harm.
        self.vm.unregister_irqfd(bell, DOORBELL_LINE).map_err(failed("disconnect an interrupt"))
    }

    /// Makes a write to `interrupt` raise a new device's `vector` from now on.
    pub(super) fn connect_device(&self, interrupt: &EventFd, vector: u8) -> Result<(), KvmError> {
        self.connect(interrupt, |routes| routes.add_device(vector))
    }

    /// Changes the table and connects `source` to the line that results.
    fn connect(&self, source: &EventFd, change: impl FnOnce(&mut Routes) -> u32) -> Result<(), KvmError> {
        // Changed as a copy: a table that KVM refuses is not kept.
        let mut routes = lock(&self.routes);
        let mut changed = routes.clone();
        let line = change(&mut changed);
        let entries: Vec<_> = changed.entries().map(message).collect();
        let table = KvmIrqRouting::from_entries(&entries).map_err(|_| KvmError::Lacks("route interrupts"))?;
        self.vm.set_gsi_routing(&table).map_err(failed("route an interrupt"))?;
        *routes = changed;
        self.vm.register_irqfd(source, line).map_err(failed("connect an interrupt"))
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
        assert_eq!((routes.add_device(0x50), routes.add_device(0x51)), (25, 26));
        routes.doorbell = Some(0x40);
        assert_eq!(routes.add_device(0x52), 27);
        let expected = [(24, 0x40), (25, 0x50), (26, 0x51), (27, 0x52)].map(|(line, vector)| Route { line, vector });
        assert_eq!(routes.entries().collect::<Vec<_>>(), expected);
    }
}
