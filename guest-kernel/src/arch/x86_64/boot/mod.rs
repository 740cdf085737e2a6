//! From the first Rust instruction to the application's `main`: [`start`] is the kernel's
//! architecture in one list.
//!
//! Two ways lead here ([`hermit`], [`pvh`]); both end in one validated [`Machine`].
#![cfg_attr(
    target_os = "none",
    allow(unsafe_code, reason = "the first function, called by assembly; reads loader-provided memory")
)]

#[cfg(target_os = "none")]
mod hermit;
mod machine;
#[cfg_attr(not(target_os = "none"), allow(dead_code, reason = "on the host only the parser's tests use it"))]
mod pvh;
mod virtio_devices;

#[cfg(target_os = "none")]
pub(crate) use entry::{image_range, start};
#[cfg(target_os = "none")]
pub(crate) use machine::{BalloonDriver, CommandLine, Machine, MachineError, parse_size};
#[cfg(target_os = "none")]
pub(crate) use virtio_devices::{Interrupt, VirtioDevice, VirtioDevices};

#[cfg(target_os = "none")]
mod entry {
    use core::ops::Range;

    use aerostat_abi::boot::BootMark;
    use aerostat_abi::units::FrameCount;
    use aerostat_reclaim_policy::Name;

    use super::{Machine, MachineError, hermit, pvh};
    use crate::arch::x86_64::ring0;
    use crate::arch::x86_64::{apic, machine_ports};
    use crate::drivers::block::{self, DiskId};
    use crate::drivers::serial;
    use crate::mm::block::Contents;
    use crate::mm::page_table::Image;
    use crate::mm::reclaim::swap::slot_map::{CLUSTER, SlotMap};
    use crate::mm::reclaim::{self, start::Swap, swap::disk::Disk};
    use crate::mm::start::InstalledMemory;
    use crate::mm::{OutOfMemory, pinned};
    use crate::{app, background, balloon, mm, report, thread, time};

    unsafe extern "C" {
        static image_start: u8;
        static code_end: u8;
        static constants_end: u8;
        static image_end: u8;
    }

    /// Where the image lies, `.bss` included.
    pub(crate) fn image_range() -> Range<u64> {
        (&raw const image_start).expose_provenance() as u64..(&raw const image_end).expose_provenance() as u64
    }

    /// Where the parts of the image end.
    fn image() -> Image {
        Image {
            code_end: (&raw const code_end).expose_provenance() as u64,
            constants_end: (&raw const constants_end).expose_provenance() as u64,
            end: image_range().end,
        }
    }

    /// Called in ring 3 with upcalls masked, on the boot stack, with the loader's information and
    /// where it came from.
    pub(crate) extern "C" fn start(information: u64, origin: u32) -> ! {
        machine_ports::mark(BootMark::Kernel);
        ring0::install(); // from here on, exceptions are reported
        let machine = match read_machine(information, origin) {
            Ok(machine) => machine,
            Err(error) => report::bad_machine(error),
        };
        if let Some(port) = machine.serial_port {
            serial::use_port(port);
        }
        serial::start(machine.log_level());
        machine_ports::mask_legacy_interrupts();
        apic::start();
        time::start(machine.tsc_hz);
        let memory = InstalledMemory {
            ranges: &machine.memory,
            untouched: if machine.is_memory_zeroed { Contents::Zero } else { Contents::Unknown },
            image: image(),
        };
        let mut metadata = match mm::start::start(&memory, balloon::words) {
            Ok(metadata) => metadata,
            Err(OutOfMemory) => report::bad_machine(MachineError::TooSmall),
        };
        log::debug!("memory: {} in {} ranges", machine.total_frames(), machine.memory.len());
        block::start(&machine.virtio_devices);
        thread::start(); // this becomes the idle thread
        ring0::enable_interrupts();
        let started = balloon::start(&machine, &mut metadata).and_then(|()| start_swap(&machine));
        if let Err(error) = started.and_then(|()| start_background()) {
            report::bad_machine(error);
        }
        app::start(machine);
        thread::idle()
    }

    /// Switches reclaim on if the guest has swap.
    fn start_swap(machine: &Machine) -> Result<(), MachineError> {
        let policy = Name::from_command_line(machine.command_line.as_str()).map_err(MachineError::UnknownPolicy)?;
        let compressed = machine.compressed_swap()?;
        let disk = swap_disk();
        if compressed > FrameCount::ZERO || disk.is_some() {
            reclaim::start::start(Swap { policy, compressed, disk });
        }
        Ok(())
    }

    /// The swap disk with accounts for its slots, where there is one and memory for them.
    fn swap_disk() -> Option<(&'static dyn Disk, SlotMap)> {
        let disk = block::device(DiskId::Swap)?;
        let slots = SlotMap::usable(disk.slots());
        if slots == 0 {
            log::warn!(
                "swap: the disk has {} slots of 4 KiB, less than the {CLUSTER} that are written at once; it is not used",
                disk.slots()
            );
            return None;
        }
        if let Ok(mut metadata) = pinned::metadata(SlotMap::words(slots)) {
            return Some((disk, SlotMap::new(slots, &mut metadata)));
        }
        log::warn!("swap: there is no memory for the accounts of {slots} slots; the disk is not used");
        None
    }

    fn start_background() -> Result<(), MachineError> {
        background::start().map_err(|_| MachineError::TooSmall)
    }

    fn read_machine(information: u64, origin: u32) -> Result<Machine, MachineError> {
        match origin {
            0 => hermit::read(information),
            _ => pvh::read(information, &pvh::IdentityMapped),
        }
    }
}
