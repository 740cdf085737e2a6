//! Boot information from our own monitor: the hermit-entry protocol, with the machine described by
//! a device tree.
#![allow(unsafe_code, reason = "reads what the loader left in memory")]

use aerostat_abi::boot::{BALLOON_COMPATIBLE, TSC_FREQUENCY, VIRTIO_COMPATIBLE, VIRTIO_VECTOR};
use aerostat_abi::units::to_usize;
use fdt::Fdt;
use fdt::node::FdtNode;
use hermit_entry::boot_info::{BootInfo, PlatformInfo, RawBootInfo};

use super::devices::{BadVirtioDevice, Interrupt, VirtioDescription, VirtioDescriptions};
use super::machine::{Machine, MachineError};

hermit_entry::define_entry_version!();

/// Reads the boot information at `address`.
///
/// # Safety
/// A loader of this protocol left it there, and nothing has been written over it.
///
/// # Errors
/// [`MachineError`] when the machine can't be used.
pub(super) unsafe fn read(address: u64) -> Result<Machine, MachineError> {
    let raw = core::ptr::with_exposed_provenance::<RawBootInfo>(to_usize(address));
    if raw.is_null() || !raw.is_aligned() {
        return Err(MachineError::BadBootInformation);
    }
    // SAFETY: the caller vouches for the boot information; it is aligned.
    let information = BootInfo::from(unsafe { *raw });
    let (PlatformInfo::Fdt, Some(tree)) = (information.platform_info, information.hardware_info.device_tree) else {
        return Err(MachineError::BadBootInformation);
    };
    let tree = core::ptr::with_exposed_provenance::<u8>(to_usize(tree.get()));
    // SAFETY: the boot information names the tree; its header is checked before the rest is read.
    let tree = unsafe { Fdt::from_ptr(tree) }.map_err(|_| MachineError::BadBootInformation)?;
    let mut machine = describe(&tree)?;
    machine.serial_port = information.hardware_info.serial_port_base.map(u16::from);
    Ok(machine)
}

fn describe(tree: &Fdt<'_>) -> Result<Machine, MachineError> {
    let memory = tree.all_nodes().filter(|node| node.name.starts_with("memory")).filter_map(FdtNode::reg).flatten();
    let ranges = memory.filter_map(|region| {
        let start = region.starting_address.expose_provenance() as u64;
        Some(start..start.checked_add(region.size? as u64)?)
    });
    let command_line =
        tree.find_node("/chosen").and_then(|node| node.property("bootargs")).map_or(&[][..], |p| p.value);
    let mut machine = Machine::new(ranges, until_zero(command_line))?;
    machine.tsc_hz = tree
        .find_node("/cpus/cpu@0")
        .and_then(|node| node.property(TSC_FREQUENCY))
        .and_then(|property| property.value.try_into().ok())
        .map(u64::from_be_bytes);
    machine.is_memory_zeroed = true;
    machine.has_balloon_port = tree.find_compatible(&[BALLOON_COMPATIBLE]).is_some();
    machine.devices.mmio = virtio_devices(tree)?;
    Ok(machine)
}

fn virtio_devices(tree: &Fdt<'_>) -> Result<VirtioDescriptions, BadVirtioDevice> {
    let mut devices = VirtioDescriptions::new("device tree");
    let is_virtio = |node: &FdtNode<'_, '_>| {
        node.compatible().is_some_and(|compatible| compatible.all().any(|name| name == VIRTIO_COMPATIBLE))
    };
    for node in tree.all_nodes().filter(is_virtio) {
        let registers = node.reg().and_then(|mut regions| regions.next()).ok_or(BadVirtioDevice)?;
        let vector = node.property(VIRTIO_VECTOR).and_then(|property| property.as_usize());
        let vector = vector.and_then(|vector| vector.try_into().ok()).ok_or(BadVirtioDevice)?;
        devices.add(VirtioDescription {
            registers: registers.starting_address.expose_provenance() as u64,
            bytes: registers.size.unwrap_or(0) as u64,
            interrupt: Interrupt::Message(vector),
        })?;
    }
    Ok(devices)
}

fn until_zero(text: &[u8]) -> &[u8] {
    text.split(|&byte| byte == 0).next().unwrap_or_default()
}
