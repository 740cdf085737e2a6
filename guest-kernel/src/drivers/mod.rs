//! The devices that every guest has: serial port, local APIC, and the ports that end the machine and mark its progress.
//!
//! Virtio devices will stand beside them.

pub(crate) mod apic;
pub(crate) mod machine_ports;
pub(crate) mod serial;
