//! Machines of other programs: they are found running, and no host confines their guests.

use std::sync::Arc;

use aerostat_abi::units::FrameCount;

use super::{Bench, POOL, spec};
use crate::fleet::GuestSpec;
use crate::host::{Confinement, Origin, Reports};
use crate::scheduler::{Reason, Usage};
use crate::supervisor::Launched;
use crate::supervisor::fake::{Lie, Machine, Manners};

const fn mib(mib: u64) -> FrameCount {
    FrameCount::from_mib(mib)
}

/// Takes a machine of `machine` MiB, of which its guest has `size`, into the fleet.
fn attach(bench: &mut Bench, machine: u64, size: u64) -> Arc<Machine> {
    let spec = GuestSpec { name: "linux".into(), ..spec("linux") };
    let admission = bench.supervisor.admit(&spec).unwrap();
    let (fake, handle) = Machine::boot(mib(machine), mib(size), Manners::Obliging);
    fake.origin.set(Origin::Found { machine: mib(machine), size: mib(size) });
    fake.confinement.set(Confinement::ByGuest);
    bench.supervisor.launched(admission, Launched { handle, spawned: bench.now }, bench.now);
    bench.machines.push(Arc::clone(&fake));
    fake
}

/// A guest that uses so much.
fn uses(used: u64) -> Reports {
    Reports::Derived(Usage { used: mib(used), ..Usage::default() })
}

#[test]
fn a_machine_enters_with_the_size_that_it_has() {
    let mut bench = Bench::new();
    bench.pass(10);
    let fake = attach(&mut bench, 448, 448);
    fake.reports.set(Reports::Awaited);
    let status = bench.status();
    assert_eq!((status.guests[2].target, status.guests[2].machine), (mib(448), mib(448)));
    bench.pass(10);
    assert_eq!(bench.status().guests[2].size, mib(448), "nothing is known of its need");
    assert!(bench.status().free < mib(64), "what it has is gone from the pool");
    fake.reports.set(uses(100));
    bench.needs([300, 20]);
    bench.pass(100);
    let status = bench.status();
    assert!(status.guests[2].size < mib(150) && status.guests[0].size >= mib(300), "{status:?}");
    assert_eq!(status.violations, 0);
}

#[test]
fn a_machine_that_is_smaller_than_its_max_gets_no_more_than_it_has() {
    let mut bench = Bench::new();
    let fake = attach(&mut bench, 201, 201);
    fake.reports.set(uses(400));
    bench.pass(50);
    let status = bench.status();
    let guest = &status.guests[2];
    assert_eq!((guest.machine, guest.target, guest.limits.max), (mib(201), mib(200), mib(200)));
}

#[test]
fn a_guest_that_deflates_by_itself_is_counted_and_not_ended() {
    let mut bench = Bench::new();
    let fake = attach(&mut bench, 512, 128);
    fake.reports.set(uses(100));
    bench.pass(50);
    let _ = bench.told();
    let free = bench.status().free;
    fake.lie(Lie { size: mib(300), resident: mib(300) });
    bench.pass(1);
    let status = bench.status();
    assert_eq!((status.guests[2].size, bench.told()), (mib(300), vec![]), "no contradiction");
    assert!(status.free < free, "what it has taken is gone from the pool");
    bench.pass(50);
    assert!(bench.supervisor.take_ended().is_empty());
}

#[test]
fn a_guest_that_reports_nothing_keeps_its_size() {
    let mut bench = Bench::new();
    let fake = attach(&mut bench, 256, 256);
    fake.reports.set(Reports::Never);
    bench.needs([400, 20]);
    bench.pass(200);
    let status = bench.status();
    let guest = &status.guests[2];
    assert_eq!((guest.size, guest.target, guest.usage), (mib(256), mib(256), None));
    assert_eq!(guest.decision.as_ref().unwrap().reason, Reason::FixedSize);
    assert_eq!(guest.activity, "fixed size: reports nothing");
    assert!(status.granted <= POOL && status.violations == 0);
}
