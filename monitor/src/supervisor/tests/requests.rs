//! Requests of fake guests, and what they are told of the host.

use std::time::Duration;

use aerostat_abi::requests::{FiledRequest, Outcome, ResourceKind, Resources, Sequence, Urgency};
use aerostat_abi::units::FrameCount;

use super::{Bench, launch, spec};
use crate::supervisor::fake::Machine;
use crate::supervisor::requests::HostResources;

const MEMORY: ResourceKind = ResourceKind::Memory;

impl Bench {
    /// Has a guest file a request for memory that it needs in a second.
    fn file(&self, guest: usize, sequence: u32, mib: u64) {
        let needed_at_ns = self.now.after(Duration::from_secs(1)).ns();
        self.machines[guest].file(&FiledRequest {
            kind: MEMORY,
            sequence: Sequence(sequence),
            urgency: Urgency::Normal,
            amount: FrameCount::from_mib(mib).bytes(),
            needed_at_ns,
        });
    }

    fn outcome(&self, guest: usize) -> Option<Outcome> {
        Some(self.machines[guest].resources().answer(MEMORY)?.outcome)
    }
}

fn total(machine: &Machine, kind: ResourceKind) -> Option<u64> {
    machine.resources().component(kind).map(|component| component.total)
}

#[test]
fn a_request_is_granted_before_the_guest_needs_it() {
    let mut bench = Bench::new();
    bench.needs([400, 20]);
    bench.pass(50);
    bench.needs([20, 20]);
    bench.file(1, 1, 300);
    bench.told();
    bench.pass(30);
    assert_eq!(bench.outcome(1), Some(Outcome::Granted));
    assert!(bench.status().guests[1].size >= FrameCount::from_mib(300), "it is there: {:?}", bench.status().guests[1]);
    let told = bench.told();
    assert!(
        told.iter().any(|line| line.starts_with("beta asked for 300.0 MiB of memory and is granted it")),
        "{told:?}"
    );
    bench.needs([20, 300]);
    bench.pass(5);
    assert_eq!(bench.outcome(1), Some(Outcome::Used));
    let outcome = bench.supervisor.into_outcome(bench.now);
    let totals = outcome.guests[1].requests;
    assert_eq!((outcome.violations, totals.filed, totals.granted, totals.denied), (0, 1, 1, 0));
    assert!(totals.longest_to_grant < Duration::from_secs(1));
}

#[test]
fn a_replay_and_a_request_beyond_max_change_nothing() {
    let mut bench = Bench::new();
    bench.pass(10);
    let before: Vec<_> = bench.status().guests.iter().map(|guest| guest.target).collect();
    bench.file(1, 7, 4096);
    bench.pass(5);
    assert_eq!(bench.outcome(1), Some(Outcome::BeyondMax));
    bench.file(1, 6, 300);
    bench.pass(5);
    assert_eq!(bench.outcome(1), Some(Outcome::BeyondMax));
    let after: Vec<_> = bench.status().guests.iter().map(|guest| guest.target).collect();
    assert_eq!(before, after);
    assert_eq!(bench.told(), ["beta asked for 4096.0 MiB of memory and is denied it: it is more than the guest's max"]);
}

#[test]
fn guests_are_told_when_the_host_changes_and_not_otherwise() {
    let mut bench = Bench::new();
    bench.supervisor.record_resources(HostResources { processors: 4, ..HostResources::default() });
    bench.needs([300, 20]);
    bench.pass(50);
    let first = bench.machines[0].resources();
    assert_ne!(first, Resources::default());
    assert_eq!(total(&bench.machines[0], ResourceKind::Processors), Some(4));
    let announced = bench.machines[0].announcements.get();
    bench.needs([20, 300]);
    bench.pass(100);
    let later = bench.machines[0].resources();
    assert_eq!((later.generation, bench.machines[0].announcements.get()), (first.generation, announced));
    assert_ne!(later.component(MEMORY), first.component(MEMORY), "it sees its target and what is free all the same");

    bench.supervisor.record_resources(HostResources { processors: 3, ..HostResources::default() });
    bench.pass(1);
    assert_eq!(total(&bench.machines[1], ResourceKind::Processors), Some(3));
    assert_ne!(bench.machines[1].resources().generation, first.generation);
}

#[test]
fn the_host_revises_the_allocations_before_it_tells_of_a_smaller_pool() {
    let mut bench = Bench::new();
    bench.needs([300, 150]);
    bench.pass(50);
    let announced = bench.machines[0].announcements.get();
    bench.needs([150, 50]);
    bench.supervisor.resize(FrameCount::from_mib(256)).unwrap();
    bench.pass(1);
    assert_eq!(bench.machines[0].announcements.get(), announced + 1);
    let told = bench.machines[0].resources().component(MEMORY).unwrap();
    assert_eq!(told.total, FrameCount::from_mib(256).bytes());
    assert_eq!(told.assigned, bench.machines[0].target().bytes(), "the new target is in the register already");
    assert!(told.assigned < FrameCount::from_mib(256).bytes());
}

#[test]
fn a_guest_that_comes_is_told_at_its_first_poll() {
    let mut bench = Bench::new();
    bench.pass(5);
    let gamma = launch(&mut bench.supervisor, &spec("gamma"), bench.now);
    bench.machines.push(gamma);
    bench.pass(1);
    assert!(total(&bench.machines[2], MEMORY).is_some());
}
