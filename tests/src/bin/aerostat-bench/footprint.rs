//! Measures the memory behind a small guest: one whose application has 4 MiB of its own.
//!
//! The limit is what the application has touched; no guest can have less. Several guests run at
//! once, and each figure is one guest's share, as the charge of a control group is exact to some
//! hundred KiB only.

use std::thread;
use std::time::Duration;

use aerostat_abi::units::FRAME_BYTES;
use aerostat_tests::{Guest, Machine, PhysicalMeter, Plan};
use anyhow::Result;

use crate::row::Row;
use crate::sample::median;

/// Guests that run at once.
const GUESTS: u32 = 8;
/// Memory of each machine.
const MEMORY_MIB: u64 = 64;
/// What the application `small_application` touches.
const APPLICATION_MIB: f64 = 4.0;
/// The goal for physical memory behind a guest. Another VMM needs 6.9 MiB with the same image.
const GOAL_MIB: f64 = 6.0;
/// How long the guests rest before they are measured: several samples, and a second in which the
/// guests' kernels work in the background.
const SETTLED: Duration = Duration::from_millis(2500);

pub(crate) fn measure(meter: &PhysicalMeter) -> Result<Vec<Row>> {
    let before = (meter.bytes()?, meter.bytes_with_kernel()?);
    let plan = Plan::test_guest("small_application").memory_mib(MEMORY_MIB);
    let mut guests: Vec<Guest> = (0..GUESTS).map(|_| plan.boot(Machine::Kvm)).collect();
    for guest in &mut guests {
        guest.wait_for_line("small_application: has touched");
    }
    thread::sleep(SETTLED);
    let after = (meter.bytes()?, meter.bytes_with_kernel()?);
    let resident = median(guests.iter().map(|guest| mib(guest.facts().resident.0 * FRAME_BYTES)).collect());
    let each = |before: u64, after: u64| mib(after.saturating_sub(before)) / f64::from(GUESTS);
    Ok(vec![
        Row::cost("guest_floor_mib", each(before.0, after.0), "MiB", APPLICATION_MIB).goal(GOAL_MIB),
        Row::cost("guest_floor_resident_mib", resident, "MiB", APPLICATION_MIB).goal(GOAL_MIB),
        Row::cost("guest_floor_with_kernel_mib", each(before.1, after.1), "MiB", APPLICATION_MIB),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "memory has far less than 2^53 bytes")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
