//! Measures an Aerostat guest under QEMU beside the usual alternative, the peer: a Linux guest with
//! its own balloon driver. Both run on the same QEMU with the same amount of memory, and QMP sets
//! their targets.
//!
//! Times are the host's. QEMU emulates where it can't boot Linux under KVM; emulation slows down
//! the guests' drivers and not the host.

mod boot;
mod cpu_time;
mod idle;
mod machine;
mod resize;

use std::path::Path;

use anyhow::Result;

use self::machine::Machines;
use crate::row::Row;
use crate::sample::to_f64;

/// A guest's memory.
const MEMORY_MIB: u64 = 3072;
/// The part of it that moves.
const MOVED_MIB: u64 = 2560;
/// Turns of both guests.
const TURNS: usize = 3;

/// Measures all; `linux` is the folder with the kernel and the initial RAM disk of the peer.
pub(crate) fn measure(linux: &Path) -> Result<Vec<Row>> {
    let machines = Machines::new(linux)?;
    println!("qemu: {}, accelerator {}", machine::version()?, machines.accelerator());
    let mut rows = boot::measure(&machines)?;
    rows.extend(resize::measure(&machines)?);
    rows.extend(idle::measure(&machines)?);
    Ok(rows)
}

/// Returns so many MiB in GiB.
fn gib(mib: u64) -> f64 {
    to_f64(mib) / 1024.0
}
