//! Measures the memory of a small guest ([`footprint`]), and that of a VMM process besides its
//! guest's: resident memory in total, and the anonymous part, which VMM processes do not share. The
//! rest is mostly the program, which all of them map from one file.
//!
//! Guest memory is found by `MADV_HUGEPAGE` and `MADV_NOHUGEPAGE`, which the VMM process uses for
//! nothing else. `/proc/PID/smaps` shows them as the flags `hg` and `nh` (Linux,
//! Documentation/filesystems/proc.rst). The limits are goals, as the host has no lower bound to
//! measure.

use std::fs;
use std::iter::Sum;
use std::ops::Add;

use aerostat_tests::{Machine, PhysicalMeter, Plan};
use anyhow::{Context, Result, ensure};

use crate::footprint;
use crate::row::Row;

/// Memory of the guest.
const MEMORY_MIB: u64 = 512;
/// The goal for resident memory (Firecracker needs 4.2 MiB).
const RESIDENT_GOAL_MIB: f64 = 5.0;
/// The goal for anonymous memory (Firecracker needs 0.4 MiB).
const ANONYMOUS_GOAL_MIB: f64 = 0.5;

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut rows = footprint::measure(&PhysicalMeter::enter())?;
    rows.extend(of_vmm()?);
    Ok(rows)
}

fn of_vmm() -> Result<Vec<Row>> {
    let mut guest = Plan::test_guest("inflate").memory_mib(MEMORY_MIB).boot(Machine::Kvm);
    guest.wait_for_line("inflate: freed");
    let file = format!("/proc/{}/smaps", guest.pid());
    let smaps = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let mappings: Vec<Mapping> = mappings(&smaps).collect();
    let touched: u64 =
        mappings.iter().filter(|mapping| mapping.is_guest_memory).map(|mapping| mapping.use_kib.resident).sum();
    ensure!(touched >= 256 << 10, "only {touched} KiB of the VMM process look like its guest's memory");
    let own: Use = mappings.iter().filter(|mapping| !mapping.is_guest_memory).map(|mapping| mapping.use_kib).sum();
    Ok(vec![
        Row::cost("vmm_overhead_mib", mib(own.resident), "MiB", RESIDENT_GOAL_MIB),
        Row::cost("vmm_overhead_anonymous_mib", mib(own.anonymous), "MiB", ANONYMOUS_GOAL_MIB),
    ])
}

/// A mapping of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mapping {
    use_kib: Use,
    is_guest_memory: bool,
}

/// Memory in use, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    resident: u64,
    anonymous: u64,
}

impl Add for Use {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { resident: self.resident + other.resident, anonymous: self.anonymous + other.anonymous }
    }
}

impl Sum for Use {
    fn sum<I: Iterator<Item = Self>>(uses: I) -> Self {
        uses.fold(Self::default(), Self::add)
    }
}

/// Returns the mappings in the text of an smaps file, in which the flags are each mapping's last
/// line.
fn mappings(smaps: &str) -> impl Iterator<Item = Mapping> {
    let mut current = Mapping::default();
    smaps.lines().filter_map(move |line| {
        let (field, value) = line.split_once(':')?;
        match field {
            "Rss" => current.use_kib.resident = kib(value),
            "Anonymous" => current.use_kib.anonymous = kib(value),
            "VmFlags" => {
                current.is_guest_memory = value.split_whitespace().any(|flag| matches!(flag, "hg" | "nh"));
                return Some(std::mem::take(&mut current));
            }
            _ => {}
        }
        None
    })
}

fn kib(value: &str) -> u64 {
    value.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a process has far less than 2^53 KiB")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::{Mapping, Use, mappings};

    #[test]
    fn a_mapping_ends_with_its_flags() {
        let smaps = "\
7f00-7f01 rw-p 00000000 00:00 0
Rss:                 300 kB
Anonymous:           200 kB
VmFlags: rd wr mr mw me hg
55aa-55ab r-xp 00000000 00:00 0 /bin/aerostat
Rss:                  40 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
";
        let guest = Mapping { use_kib: Use { resident: 300, anonymous: 200 }, is_guest_memory: true };
        let program = Mapping { use_kib: Use { resident: 40, anonymous: 0 }, is_guest_memory: false };
        assert_eq!(mappings(smaps).collect::<Vec<_>>(), [guest, program]);
    }
}
