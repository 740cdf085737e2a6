//! Idle memory: a guest knows and reports how much of its memory is in use, and the tax on the rest
//! moves it to a guest that works.

use aerostat_tests::environment::app_image;
use aerostat_tests::fleet::{Fleet, FleetPlan, Member};
use aerostat_tests::{DEADLINE, Machine, Plan};

const POOL_MIB: u64 = 256;
/// What the application of each guest allocates.
const SET_MIB: u64 = 176;
const MAX_MIB: u64 = 224;
/// Readings of sizes that do not change.
const READINGS: usize = 40;

/// The phases repeat, so it does not matter which of them a slow machine misses.
#[test]
fn a_guest_reports_the_part_of_its_memory_that_it_uses() {
    const SET: u64 = 192 << 20;
    let plan = Plan::app("memwalk").memory_mib(256).command_line("phases=192M/48M:9s,192M:9s repeat");
    let mut guest = plan.boot(Machine::Kvm);
    for _ in 0..2 {
        guest.wait_for_report("a quarter in use", |report| {
            let [active, .., idle] = report.working_set_bytes;
            (SET / 5..SET * 3 / 10).contains(&active) && (SET * 2 / 3..SET).contains(&idle)
        });
        guest.wait_for_report("all in use", |report| report.working_set_bytes[0] > SET * 9 / 10);
    }
    assert_eq!(guest.registers().statistics().evictions, 0, "the report needs no reclaim");
}

/// Describes two guests with equal shares that want more than the pool together. Both use all that
/// they have, so that each claims its half; then one of them uses 8 MiB.
fn idle_and_busy(tax: u8) -> FleetPlan {
    let member = |name, command_line| {
        let image = app_image("memwalk");
        Member { name, image, min_mib: 32, max_mib: MAX_MIB, command_line }
    };
    let swap = format!("{MAX_MIB}M");
    let idle = format!("phases={SET_MIB}M:8s,{SET_MIB}M/8M:3600s");
    let busy = format!("phases={SET_MIB}M:3600s");
    let plan = FleetPlan::pool_mib(POOL_MIB).with(&member("idle", &idle)).with_key("swap", &swap);
    plan.with(&member("busy", &busy)).with_key("swap", &swap).with_idle_tax(tax)
}

fn size_mib(fleet: &Fleet, name: &str) -> Option<u64> {
    Some(fleet.status(name)?["size_bytes"].as_u64()? >> 20)
}

/// Returns the sizes of both guests.
fn sizes(fleet: &Fleet) -> Option<(u64, u64)> {
    Some((size_mib(fleet, "idle")?, size_mib(fleet, "busy")?))
}

/// Returns whether the idle guest is idle, and has reported that most of its memory is.
fn is_idle_known(fleet: &Fleet) -> Option<bool> {
    let status = fleet.status("idle")?;
    let is_idling = status["activity"].as_str()?.contains("idling on most");
    let [used, idle] = ["used_bytes", "idle_bytes"].map(|key| status["memory"][key].as_u64());
    Some(is_idling && idle? > used? / 2)
}

/// The experiment of figure 7 in C. Waldspurger's paper, OSDI 2002.
#[test]
fn the_tax_moves_idle_memory_to_a_guest_that_works() {
    let mut fleet = idle_and_busy(0).up(None);
    // Guests that swap leave a reserve of the pool alone, so they share a little less than all.
    let are_half = |&(idle, busy): &(u64, u64)| {
        let both = idle + busy;
        both * 10 >= POOL_MIB * 9 && idle.abs_diff(busy) * 10 <= both
    };
    fleet.wait_for("a report of idle memory", |fleet| is_idle_known(fleet)?.then_some(()));
    fleet.wait_for("half of the pool for each", |fleet| sizes(fleet).filter(are_half));
    for _ in 0..READINGS {
        let sizes = sizes(&fleet).expect("the guests run");
        assert!(are_half(&sizes), "without a tax, idle memory stays: {sizes:?}");
    }
    fleet.apply(&idle_and_busy(75));
    fleet.wait_for("more for the guest that works", |fleet| sizes(fleet).filter(|(idle, busy)| 10 * busy > 13 * idle));
    let events = fleet.ask(&["events"]);
    assert!(events.contains("its idle memory is taxed"), "{events}");
    assert!(events.contains("it brings back pages that it had to evict"), "{events}");
    fleet.ask(&["down"]);
    let run = fleet.wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    assert_eq!(run.report()["violations"], 0, "{run}");
    run.expect_unharmed("idle");
    run.expect_unharmed("busy");
}
