//! How long a guest takes from the start of QEMU to its first program: `main` of an Aerostat
//! application, and `init` of Linux.

use anyhow::Result;

use super::TURNS;
use super::machine::{Machines, Software};
use crate::row::Row;
use crate::sample::median;

const MEMORY_MIB: u64 = 256;
/// The peer's time, divided by what an Aerostat guest should need.
const GOAL: f64 = 20.0;

pub(super) fn measure(machines: &Machines) -> Result<Vec<Row>> {
    let (mut aerostat, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        aerostat.push(machines.boot(&Software::aerostat("hello", "", "hello from a guest"), MEMORY_MIB)?.boot_ms());
        peer.push(machines.boot(&Software::linux(""), MEMORY_MIB)?.boot_ms());
    }
    let row = Row::cost("qemu_boot_ms", median(aerostat), "ms", median(peer));
    Ok(vec![row.goal_of_limit(1.0 / GOAL)])
}
