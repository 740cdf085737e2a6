//! What the loader left: the facts about the machine, read before the kernel unmaps low memory.
//!
//! There are two kinds of loaders ([`hermit`], [`pvh`]); both end in one validated [`Machine`].

#[cfg_attr(not(target_os = "none"), allow(dead_code, reason = "on the host only the parser's tests use it"))]
mod acpi;
pub(crate) mod devices;
#[cfg(target_os = "none")]
mod hermit;
pub(crate) mod interrupt_controllers;
mod machine;
mod memory_map;
mod physical_memory;
#[cfg_attr(not(target_os = "none"), allow(dead_code, reason = "on the host only the parser's tests use it"))]
mod pvh;

#[cfg(target_os = "none")]
pub(crate) use machine::{Machine, MachineError};

#[cfg(target_os = "none")]
use super::power;

/// The protocol of the loader. The boot code passes it in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Origin {
    /// Our own monitor: hermit-entry.
    Hermit = 0,
    /// QEMU, Firecracker and Cloud Hypervisor: Xen's PVH.
    Pvh = 1,
}

/// Reads the loader's information at `information`.
///
/// # Safety
/// A loader of this protocol left it there, and nothing has been written over it.
///
/// # Errors
/// [`MachineError`] when the machine can't be used.
#[cfg(target_os = "none")]
#[allow(unsafe_code, reason = "reads what the loader left in memory")]
pub(crate) unsafe fn read_machine(information: u64, origin: Origin) -> Result<Machine, MachineError> {
    match origin {
        // SAFETY: the caller's duty.
        Origin::Hermit => unsafe { hermit::read(information) },
        Origin::Pvh => {
            // SAFETY: the boot page tables are in force until memory management starts, and this is
            // the only value.
            let memory = unsafe { physical_memory::BootMemory::new() };
            let machine = pvh::read(information, &memory);
            // A machine that can't be used is powered off, too, rather than started again and
            // again.
            let registers =
                machine.as_ref().map_or_else(|_| pvh::read_power(information, &memory), |found| found.power);
            drop(memory);
            registers.addresses().for_each(physical_memory::map_registers);
            power::set(registers);
            machine
        }
    }
}
