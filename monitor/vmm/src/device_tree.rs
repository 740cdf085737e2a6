//! The device tree that describes a guest's machine: memory, boot arguments, the processor's clock,
//! the balloon port, virtio devices. `docs/devices.md` shows the nodes.

use aerostat_abi::boot::{BALLOON_COMPATIBLE, TSC_FREQUENCY, VIRTIO_COMPATIBLE, VIRTIO_VECTOR};
use vm_fdt::{FdtWriter, FdtWriterResult};

use super::layout::MemoryLayout;
use super::virtio;

/// The contents of the tree.
#[derive(Debug)]
pub(super) struct Description<'a> {
    /// Where memory lies.
    pub(super) memory: &'a MemoryLayout,
    /// The guest's boot arguments.
    pub(super) command_line: &'a str,
    /// Rate of the time stamp counter, where the host knows it.
    pub(super) tsc_hz: Option<u64>,
    /// The number of virtio devices.
    pub(super) virtio_devices: usize,
}

/// Builds the tree as a flat blob.
pub(super) fn build(description: &Description<'_>) -> FdtWriterResult<Vec<u8>> {
    let mut tree = FdtWriter::new()?;
    let root = tree.begin_node("")?;
    tree.property_string("compatible", "aerostat")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;

    let memory = tree.begin_node("memory@0")?;
    tree.property_string("device_type", "memory")?;
    let ranges: Vec<u64> = description.memory.regions().flat_map(|region| [region.start.0, region.bytes]).collect();
    tree.property_array_u64("reg", &ranges)?;
    tree.end_node(memory)?;

    let chosen = tree.begin_node("chosen")?;
    tree.property_string("bootargs", description.command_line)?;
    tree.end_node(chosen)?;

    let cpus = tree.begin_node("cpus")?;
    tree.property_u32("#address-cells", 1)?;
    tree.property_u32("#size-cells", 0)?;
    let cpu = tree.begin_node("cpu@0")?;
    tree.property_string("device_type", "cpu")?;
    tree.property_u32("reg", 0)?;
    if let Some(hz) = description.tsc_hz {
        tree.property_u64(TSC_FREQUENCY, hz)?;
    }
    tree.end_node(cpu)?;
    tree.end_node(cpus)?;

    let balloon = tree.begin_node("balloon-port")?;
    tree.property_string("compatible", BALLOON_COMPATIBLE)?;
    tree.end_node(balloon)?;

    for slot in virtio::slots(description.virtio_devices) {
        let device = tree.begin_node(&format!("virtio@{:x}", slot.address.0))?;
        tree.property_string("compatible", VIRTIO_COMPATIBLE)?;
        tree.property_array_u64("reg", &[slot.address.0, slot.bytes])?;
        tree.property_u32(VIRTIO_VECTOR, slot.vector.into())?;
        tree.end_node(device)?;
    }

    tree.end_node(root)?;
    tree.finish()
}

#[cfg(test)]
mod tests {
    use super::{Description, build};
    use crate::layout::MemoryLayout;
    use aerostat_abi::boot::{VIRTIO_COMPATIBLE, VIRTIO_VECTOR};
    use aerostat_abi::units::FrameCount;
    use fdt::Fdt;

    fn tree(virtio_devices: usize) -> Vec<u8> {
        let layout = MemoryLayout::new(FrameCount::from_mib(5 << 10)).unwrap();
        build(&Description { memory: &layout, command_line: "a=b", tsc_hz: Some(1), virtio_devices }).unwrap()
    }

    #[test]
    fn devices_are_announced_with_their_registers_and_vectors() {
        let blob = tree(2);
        let tree = Fdt::new(&blob).unwrap();
        let found = tree.all_nodes().filter(|node| {
            node.compatible().is_some_and(|compatible| compatible.all().any(|name| name == VIRTIO_COMPATIBLE))
        });
        let devices: Vec<_> = found
            .map(|node| {
                let registers = node.reg().unwrap().next().unwrap();
                let vector = node.property(VIRTIO_VECTOR).unwrap().as_usize();
                (node.name.to_owned(), registers.starting_address as usize, registers.size, vector)
            })
            .collect();
        assert_eq!(
            devices,
            [
                ("virtio@d0000000".to_owned(), 0xd000_0000, Some(0x1000), Some(0x50)),
                ("virtio@d0001000".to_owned(), 0xd000_1000, Some(0x1000), Some(0x51)),
            ]
        );
    }

    #[test]
    fn a_guest_without_devices_has_no_device_nodes() {
        let blob = tree(0);
        let tree = Fdt::new(&blob).unwrap();
        assert!(tree.find_compatible(&[VIRTIO_COMPATIBLE]).is_none());
        assert_eq!(tree.chosen().bootargs(), Some("a=b"));
        assert_eq!(tree.memory().regions().count(), 2);
    }
}
