//! What is checked of a fleet before its guests start: images, machines, disks, descriptors, and
//! the host's memory. All of it may wait for a disk.
//!
//! `aerostat up` checks a whole fleet; the control server checks what a change adds to one that
//! runs.

use aerostat_abi::units::FrameCount;

use crate::fleet::{Fleet, GuestSpec, Machine};
use crate::host::capacity::{self, Available, Need, TooLarge};
use crate::host::descriptors::{self, FleetSize, TooFewDescriptors};
use crate::host::disk::OpenDisk;
use crate::host::qemu;
use crate::supervisor::STARTERS;
use crate::vmm;

/// Checks that this process may have as many descriptors as the fleet takes.
///
/// # Errors
///
/// Says how many it takes.
pub fn check_descriptors(fleet: &Fleet) -> Result<(), TooFewDescriptors> {
    let guests = fleet.guests.len();
    let disks = fleet.guests.iter().map(|guest| guest.disks.count()).sum();
    descriptors::make_room(FleetSize { guests, disks, starts: guests.min(STARTERS) })
}

/// Checks whether the VMM can boot the guests' images in machines of their sizes, with their disks.
/// Returns the memory that their swap files may take of the host's page cache.
///
/// # Errors
///
/// Fails with a line that says what is wrong with which guest.
pub fn check_guests<'a>(guests: impl IntoIterator<Item = &'a GuestSpec>) -> Result<FrameCount, String> {
    // Disks that are held together are those that can be had together.
    let mut held = Vec::new();
    for guest in guests {
        check_machine(guest)?;
        held.push(guest.disks.open().map_err(|error| format!("guest {:?}: {error}", guest.name))?);
    }
    Ok(held.iter().flatten().map(OpenDisk::cached_swap).fold(FrameCount::ZERO, FrameCount::saturating_add))
}

/// Checks whether the VMM can boot a guest's image in a machine of its size.
///
/// # Errors
///
/// The same as for [`check_guests`].
pub fn check_machine(guest: &GuestSpec) -> Result<(), String> {
    let GuestSpec { name, image, limits, .. } = guest;
    // What an attached machine is, is found when it is attached.
    if let Machine::Attached(_) = guest.machine {
        return Ok(());
    }
    let refused = |why: String| format!("guest {name:?}: {why}");
    vmm::check_size(limits.max).map_err(|error| refused(error.to_string()))?;
    let info = vmm::check_image(image, limits.max)
        .map_err(|error| refused(format!("the image {} {error}", image.display())))?;
    let needed = FrameCount::from_bytes_ceil(info.end);
    if needed > limits.min {
        let min = limits.min;
        let image = image.display();
        return Err(refused(format!(
            "the image {image} ends at {needed}, above min {min}, with which it starts; raise min"
        )));
    }
    Ok(())
}

/// Returns the memory that attached machines have already: the pool need not find it.
pub fn attached_memory<'a>(guests: impl IntoIterator<Item = &'a GuestSpec>) -> FrameCount {
    let memory = |guest: &GuestSpec| match &guest.machine {
        Machine::Attached(attachment) => qemu::resident_behind(&attachment.qmp),
        Machine::Aerostat | Machine::Qemu => None,
    };
    sum(guests.into_iter().filter_map(memory))
}

/// Checks that the host can keep the memory that the pool of `fleet` grants, of which its guests
/// have `in_use` already.
///
/// # Errors
///
/// Says what is available, and the largest pool that fits.
pub fn check_host(fleet: &Fleet, cached_swap: FrameCount, in_use: FrameCount) -> Result<(), TooLarge> {
    let need = Need {
        pool: fleet.pool,
        minima: sum(fleet.guests.iter().map(|guest| guest.limits.min)),
        slots: sum(fleet.guests.iter().map(|guest| capacity::slots_at_start(guest.limits.max))),
        processes: sum(fleet.guests.iter().map(|guest| process_memory(&guest.machine))),
        cached_swap,
    };
    check(need, in_use)
}

/// Returns what a guest on such a machine costs beyond its own memory. A machine that is attached
/// costs nothing that is not in use already.
fn process_memory(machine: &Machine) -> FrameCount {
    match machine {
        Machine::Aerostat => capacity::VMM_PROCESS,
        Machine::Qemu => capacity::QEMU_PROCESS,
        Machine::Attached(_) => FrameCount::ZERO,
    }
}

/// Checks that the host can keep the memory of a larger pool, with the guests that run: their
/// machines with their largest sizes, and what they have in use already. A pool below `minima` is
/// not proposed.
///
/// # Errors
///
/// The same as for [`check_host`].
pub fn check_growth(
    pool: FrameCount,
    guests: &[(&Machine, FrameCount)],
    minima: FrameCount,
    in_use: FrameCount,
) -> Result<(), TooLarge> {
    let slots = sum(guests.iter().map(|&(_, max)| capacity::slots_at_start(max)));
    let processes = sum(guests.iter().map(|(machine, _)| process_memory(machine)));
    check(Need { pool, minima, slots, processes, cached_swap: FrameCount::ZERO }, in_use)
}

fn check(need: Need, in_use: FrameCount) -> Result<(), TooLarge> {
    let Some(Available { memory, limit }) = capacity::available() else { return Ok(()) };
    need.check(Available { memory: memory.saturating_add(in_use), limit })
}

fn sum(counts: impl Iterator<Item = FrameCount>) -> FrameCount {
    counts.fold(FrameCount::ZERO, FrameCount::saturating_add)
}
