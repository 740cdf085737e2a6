//! The guest's balloon interrupt: a message to its processor, which this process sends.
//!
//! A line to an eventfd would do as well, and cost more: a guest names its vector while it starts,
//! and a change of KVM's table of routes waits until no processor of the host reads the old one.

use std::sync::{Arc, Mutex};

use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;

use super::interrupts::MESSAGE_ADDRESS;
use super::lock::lock;

/// Raises the interrupt. Clones raise the same one.
#[derive(Clone, Debug)]
pub(super) struct BalloonInterrupt {
    vm: Arc<VmFd>,
    state: Arc<Mutex<State>>,
}

/// Which vector a ring raises, and whether there was one that none was connected for. Pure.
#[derive(Debug, Default)]
struct State {
    vector: Option<u8>,
    is_rung: bool,
}

impl State {
    /// Connects a vector; returns it if it has to be raised for an earlier ring.
    fn connect(&mut self, vector: u8) -> Option<u8> {
        self.vector = Some(vector);
        std::mem::take(&mut self.is_rung).then_some(vector)
    }

    /// Returns the vector to raise. Without one the ring is kept.
    fn ring(&mut self) -> Option<u8> {
        self.is_rung = self.vector.is_none();
        self.vector
    }
}

impl BalloonInterrupt {
    /// Creates the interrupt of a machine, which raises nothing before it is connected.
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, state: Arc::default() }
    }

    /// Makes a ring raise `vector` from now on; an earlier ring raises it at once.
    pub(super) fn connect(&self, vector: u8) {
        let due = lock(&self.state).connect(vector);
        self.raise(due);
    }

    /// Makes a ring raise nothing: it is kept for the next connection.
    pub(super) fn disconnect(&self) {
        lock(&self.state).vector = None;
    }

    /// Raises the interrupt.
    pub(super) fn ring(&self) {
        let due = lock(&self.state).ring();
        self.raise(due);
    }

    fn raise(&self, vector: Option<u8>) {
        let Some(vector) = vector else { return };
        let message = kvm_msi { address_lo: MESSAGE_ADDRESS, data: vector.into(), ..kvm_msi::default() };
        // KVM refuses only what no guest's processor can take. Without the interrupt the guest
        // still polls its target every one or two seconds.
        let _ = self.vm.signal_msi(message);
    }
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn a_ring_before_the_connection_is_raised_by_it_and_only_once() {
        let mut state = State::default();
        assert_eq!((state.ring(), state.ring()), (None, None));
        assert_eq!(state.connect(0x40), Some(0x40));
        assert_eq!(state.connect(0x41), None);
        assert_eq!(state.ring(), Some(0x41));
        state.vector = None;
        assert_eq!(state.ring(), None);
        assert_eq!(state.connect(0x42), Some(0x42));
    }
}
