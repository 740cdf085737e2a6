//! Inflates the memory of its disk's queue, and then places the queue where there is no memory. The
//! device may stop.

use core::ptr;
use core::sync::atomic::{Ordering, fence};

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::port::Command;
use aerostat_abi::units::HUGE_ORDER;
use aerostat_guest::app::Instant;

use crate::{SPARE, Wrong, expect, port};

/// The first virtio device, whose registers the kernel has mapped (`docs/devices.md`).
pub(crate) const DEVICE: usize = 0xd000_0000;
/// Registers (virtio 1.2, 4.2.2).
const DRIVER_FEATURES: usize = 0x020;
const DRIVER_FEATURES_SELECT: usize = 0x024;
const QUEUE_SIZE: usize = 0x038;
const QUEUE_READY: usize = 0x044;
pub(crate) const NOTIFY: usize = 0x050;
pub(crate) const STATUS: usize = 0x070;
/// Addresses of the descriptors, the available ring and the used ring, 64 bits each.
const QUEUE_PARTS: [usize; 3] = [0x080, 0x090, 0x0a0];
const DRIVER_OK: u32 = 1 | 2 | 4 | 8;
const DEVICE_NEEDS_RESET: u32 = 64;
const PATIENCE_NS: u64 = 5_000_000_000;
const NOTIFICATIONS: usize = 100;
/// Offsets in the queue's huge frame.
const AVAILABLE: usize = 0x1000;
pub(crate) const USED: usize = 0x2000;
const HEADER: usize = 0x3000;
const DATA: usize = 0x4000;

pub(crate) fn inflate() -> Result<(), Wrong> {
    port::mask_upcalls();
    let frame = usize::try_from(SPARE.start.address()).map_err(|_| "no address")?;
    let huge = Entry::pending(SPARE.start, HUGE_ORDER);
    begin([frame, frame + AVAILABLE, frame + USED]);
    request(frame);
    wait_until("the device did nothing", || read::<u16>(frame + USED + 2) == 1)?;
    expect(port::batch(Command::Inflate, [huge]).2[0].status == EntryStatus::Done, "the queue was not inflated")?;
    (0..NOTIFICATIONS).for_each(|_| write(DEVICE + NOTIFY, 0_u32));
    // The memory is ballooned now. The rings are filled with garbage.
    (0..512).for_each(|word| write(frame + AVAILABLE + 8 * word, u64::MAX - word as u64));
    (0..512).for_each(|word| write(frame + 8 * word, 0xdead_beef_dead_beef_u64));
    (0..NOTIFICATIONS).for_each(|_| write(DEVICE + NOTIFY, 0_u32));
    for nowhere in [DEVICE, 1 << 40, usize::MAX - 0xffff, 0] {
        begin([nowhere; 3]);
        (0..NOTIFICATIONS).for_each(|_| write(DEVICE + NOTIFY, 0_u32));
        wait_until("the device accepted a queue without memory", || {
            nowhere == 0 || read::<u32>(DEVICE + STATUS) & DEVICE_NEEDS_RESET != 0
        })?;
    }
    Ok(())
}

/// Starts the device with a queue of 16 descriptors.
pub(crate) fn begin(parts: [usize; 3]) {
    write(DEVICE + STATUS, 0_u32);
    write(DEVICE + STATUS, DRIVER_OK & 3);
    for (select, features) in [(0_u32, 0_u32), (1, 1)] {
        write(DEVICE + DRIVER_FEATURES_SELECT, select);
        write(DEVICE + DRIVER_FEATURES, features);
    }
    write(DEVICE + STATUS, DRIVER_OK & !4);
    write(DEVICE + QUEUE_SIZE, 16_u32);
    for (register, address) in QUEUE_PARTS.into_iter().zip(parts) {
        let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
        write(DEVICE + register, u32::from_le_bytes([a, b, c, d]));
        write(DEVICE + register + 4, u32::from_le_bytes([e, f, g, h]));
    }
    write(DEVICE + QUEUE_READY, 1_u32);
    write(DEVICE + STATUS, DRIVER_OK);
}

/// Reads the disk's first sector.
pub(crate) fn request(queue: usize) {
    let [next, writable] = [1_u64, 2];
    let parts = [(HEADER, 16_u64, next), (DATA, 512, next | writable), (HEADER + 16, 1, writable)];
    for (index, (place, bytes, flags)) in parts.into_iter().enumerate() {
        write(queue + 16 * index, (queue + place) as u64);
        write(queue + 16 * index + 8, bytes | flags << 32 | (index as u64 + 1) << 48);
    }
    write(queue + HEADER, [0_u64; 2]);
    write(queue + AVAILABLE, [0_u16; 3]);
    fence(Ordering::SeqCst);
    write(queue + AVAILABLE + 2, 1_u16);
    write(DEVICE + NOTIFY, 0_u32);
}

pub(crate) fn wait_until(otherwise: Wrong, holds: impl Fn() -> bool) -> Result<(), Wrong> {
    let end = Instant::now().after(PATIENCE_NS);
    while !holds() {
        expect(Instant::now() < end, otherwise)?;
    }
    Ok(())
}

pub(crate) fn write<T>(address: usize, value: T) {
    // SAFETY: registers of a device, or memory that the kernel does not use. Both are mapped at
    // their own addresses.
    unsafe { ptr::with_exposed_provenance_mut::<T>(address).write_volatile(value) };
}

pub(crate) fn read<T>(address: usize) -> T {
    // SAFETY: as in `write`, and every bit pattern is a number.
    unsafe { ptr::with_exposed_provenance::<T>(address).read_volatile() }
}
