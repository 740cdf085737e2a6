//! Everything that only this processor needs: boot, the ring-0 stub, traps, descriptor tables, the
//! local APIC, port access, copy routines, and the decoder of memory operands.

#[cfg(target_os = "none")]
pub(crate) mod apic;
pub(crate) mod boot;
pub(crate) mod copy;
pub(crate) mod cpu;
mod early_lines;
#[cfg(target_os = "none")]
pub(crate) mod image;
pub(crate) mod interrupt;
#[cfg(target_os = "none")]
pub(crate) mod machine_ports;
pub(crate) mod operand;
#[cfg(target_os = "none")]
pub(crate) mod port_io;
pub(crate) mod power;
#[cfg(target_os = "none")]
pub(crate) mod ring0;
#[cfg(target_os = "none")]
pub(crate) mod serial;
#[cfg(target_os = "none")]
pub(crate) mod trap;
