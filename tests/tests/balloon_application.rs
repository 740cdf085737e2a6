//! A balloon that an application drives. It inflates and deflates like the kernel's driver, and a
//! guest has one driver or the other.

use std::time::Duration;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::environment::app_image;
use aerostat_tests::fleet::{FleetPlan, Member};
use aerostat_tests::{DEADLINE, Guest, Machine, Plan};

const MEMORY_MIB: u64 = 256;
const GRANT_MIB: u64 = 64;

/// Moves memory of the initial balloon, memory that the application inflated in huge and single
/// frames, and memory that its working set used in between.
#[test]
fn an_application_follows_the_target() {
    let plan = Plan::app("balloon").memory_mib(MEMORY_MIB).grant_mib(GRANT_MIB);
    let mut guest = plan.command_line("balloon=none phases=160M:1s,16M:1s repeat").boot(Machine::Kvm);
    guest.wait_for_line("160 MiB in use of 160 MiB");
    expect_size(&mut guest, GRANT_MIB);
    // The working set is refused memory and tries again, and the target may fall while the working
    // set has all of it.
    for target in [MEMORY_MIB, 48, 101, 97, 224, GRANT_MIB] {
        guest.set_target_mib(target);
        let facts = expect_size(&mut guest, target);
        let tolerated = facts.size.saturating_add(FrameCount::from_mib(2));
        guest.wait_for_facts("a resident memory within its size", |facts| facts.resident <= tolerated);
    }
    guest.set_target_mib(MEMORY_MIB);
    let touched = FrameCount::from_mib(160);
    guest.wait_for_facts("a working set that has grown again", |facts| facts.resident >= touched);
    guest.set_target_mib(GRANT_MIB);
    expect_size(&mut guest, GRANT_MIB);
    let facts = guest.facts();
    guest.check(facts.all_refused_entries() == 0, "the monitor refused entries");
    guest.check(facts.inflated > FrameCount::ZERO && facts.deflated > FrameCount::ZERO, "nothing moved");
    guest.check(facts.host_reclaimed == FrameCount::ZERO, "the host reclaimed memory");
    let statistics = guest.registers().statistics();
    guest.check(statistics.app_errors == 0 && statistics.verified_bytes > 0, "its working set was not verified");
}

/// Waits for a size and asserts that the guest does not grow beyond it on the way.
#[track_caller]
fn expect_size(guest: &mut Guest, mib: u64) -> aerostat_abi::registers::Facts {
    let (wanted, before) = (FrameCount::from_mib(mib), guest.facts().size);
    let facts = guest.wait_for_facts(&format!("a size of {mib} MiB"), |facts| {
        assert!(facts.size <= wanted.max(before), "the guest has grown beyond its target: {facts:?}");
        facts.size == wanted
    });
    guest.check(
        facts.size.saturating_add(facts.balloon) == FrameCount::from_mib(MEMORY_MIB),
        "size and balloon are not all memory",
    );
    facts
}

/// If no memory is free, the application has pages evicted and inflates the frames that become
/// free.
#[test]
fn an_application_evicts_pages_to_inflate() {
    let plan = Plan::app("balloon").memory_mib(128).swap_mib(256);
    let mut guest = plan.command_line("balloon=none phases=96M:100s").boot(Machine::Kvm);
    guest.wait_for_facts("a working set in memory", |facts| facts.resident >= FrameCount::from_mib(96));
    guest.set_target_mib(88);
    let size = FrameCount::from_mib(88);
    guest.wait_for_facts("a size of 88 MiB", |facts| facts.size == size);
    guest.wait_for_facts("a resident memory within it", |facts| facts.resident <= size);
    guest.set_target_mib(128);
    guest.wait_for_facts("all memory", |facts| facts.size == FrameCount::from_mib(128));
    let statistics = guest.registers().statistics();
    guest.check(statistics.app_errors == 0, "its working set has changed");
    guest.check(statistics.evictions > 0, "nothing was evicted");
}

/// The report has all bytes that the phases verified.
#[test]
fn the_application_ends_after_the_last_phase() {
    let plan = Plan::app("balloon").memory_mib(96).command_line("balloon=none phases=32M:100ms");
    let mut guest = plan.boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("balloon: 0 entries were refused");
    let statistics = guest.registers().statistics();
    guest.check(statistics.verified_bytes >= 32 << 20, "not all of 32 MiB was reported as verified");
    guest.check(statistics.activity.as_str() == "done", "the last report does not say that it is done");
}

#[test]
fn the_application_ends_where_the_kernel_has_a_driver() {
    let mut guest = Plan::app("balloon").command_line("phases=16M:1s").boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Failure);
    guest.expect_logged("there is no balloon to drive: say balloon=none");
}

#[test]
fn the_port_cannot_be_opened_where_the_kernel_has_a_driver() {
    let mut guest = Plan::test_guest("balloon_port").boot(Machine::Kvm);
    guest.wait_for_line("balloon port: ok");
    guest.expect_logged("balloon port: refused");
}

/// Neither kernel nor application drives the balloon of a guest that starts small: it never uses
/// its initial balloon.
#[test]
fn a_balloon_without_a_driver_is_left_alone() {
    let plan = Plan::test_guest("balloon_port").memory_mib(MEMORY_MIB).grant_mib(GRANT_MIB);
    let mut guest = plan.command_line("balloon=none").boot(Machine::Kvm);
    guest.wait_for_line("balloon port: ok");
    guest.expect_logged("balloon port: opened");
    let (granted, used) = (FrameCount::from_mib(GRANT_MIB), FrameCount::from_mib(GRANT_MIB - 16));
    let facts = guest.wait_for_facts("most of its memory in use", |facts| facts.resident >= used);
    guest.check(facts.size == granted, "its size has changed");
    guest.check(facts.resident <= granted, "it has used memory that was not granted");
}

#[test]
fn the_page_list_of_the_application_has_every_block_once() {
    let mut guest = Plan::test_guest("balloon_page_list").boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("balloon page list: ok");
}

#[test]
fn an_unknown_driver_is_refused() {
    let mut guest = Plan::test_guest("boot").command_line("balloon=application").boot(Machine::Kvm);
    guest.expect_exit(GuestExit::BadMachine);
    guest.expect_logged("unusable machine: balloon= can only be none");
}

/// The host paces both drivers. Each guest grows by the memory that the other has inflated.
#[test]
fn memory_moves_between_both_kinds_of_driver() {
    let member =
        |name, app, command_line| Member { name, image: app_image(app), min_mib: 48, max_mib: 192, command_line };
    let plan = FleetPlan::pool_mib(256)
        .with(&member("kernel", "memwalk", "phases=128M:2s,24M:2s repeat"))
        .with(&member("app", "balloon", "balloon=none phases=24M:2s,128M:2s repeat"))
        .with_key("balloon_rate", "16-4096");
    let run = plan.up(Some(Duration::from_secs(9))).wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    let report = run.report();
    assert!(report["moved_mib"].as_u64() > Some(0), "no memory moved\n{run}");
    assert_eq!(report["violations"], 0, "{run}");
    for name in ["kernel", "app"] {
        run.expect_unharmed(name);
        let balloon = &run.guest(name)["balloon"];
        assert!(balloon["inflated_mib"].as_u64() > Some(0), "{name} inflated nothing\n{run}");
    }
}
