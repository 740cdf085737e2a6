//! Guests that ask for memory before they need it, beside one that does not.

use aerostat_tests::DEADLINE;
use aerostat_tests::environment::app_image;
use aerostat_tests::fleet::{FleetPlan, Member};

fn batch<'a>(name: &'a str, max_mib: u64, command_line: &'a str) -> Member<'a> {
    Member { name, image: app_image("batch"), min_mib: 32, max_mib, command_line }
}

/// Two jobs begin at the same time in a pool that an archive has filled. The archive's pages have
/// to go to its swap disk for either. How
/// long a job waits depends on the machine, but not that the one that has not asked waits longer.
#[test]
fn a_job_that_asks_has_its_memory_when_it_begins_and_one_that_does_not_stalls() {
    let plan = FleetPlan::pool_mib(320)
        .with(&batch("archive", 288, "size=224M start=1s ask=1s run=8s rest"))
        .with_key("swap", "512M")
        .with(&batch("asks", 128, "size=80M start=5s ask=2s run=2s"))
        .with(&batch("stalls", 128, "size=80M start=5s run=2s"));
    let mut fleet = plan.up(None);
    let run = fleet.wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    assert_eq!(run.report()["violations"], 0, "{run}");
    let stalled_ms = |name: &str| run.guest(name)["swap"]["stalled_ms"].as_u64().expect("it is a number");
    for name in ["archive", "asks", "stalls"] {
        run.expect_unharmed(name);
    }
    let (asks, stalls) = (stalled_ms("asks"), stalled_ms("stalls"));
    assert!(stalls > 0, "its memory was there without a wait\n{run}");
    assert!(asks < stalls, "the one that asked waited for {asks} ms, the other for {stalls} ms\n{run}");
    let requests = run.guest("asks")["requests"].clone();
    assert_eq!((&requests["filed"], &requests["granted"]), (&1.into(), &1.into()), "{run}");
    assert_eq!(run.guest("stalls")["requests"]["filed"], 0, "{run}");
    assert!(run.events.contains("asks asked for "), "{run}");
    let log = fleet.log("asks");
    assert!(log.contains("batch: Ready "), "the memory was not there before the start\n{log}");
    assert!(run.output.stdout.contains("requests  granted  in part"), "the summary has no table of requests\n{run}");
}

#[test]
fn a_job_that_asks_for_more_than_its_guest_can_have_hears_of_it_at_once() {
    let mut fleet = FleetPlan::pool_mib(192).with(&batch("greedy", 64, "size=128M start=2s ask=1s run=1s")).up(None);
    let run = fleet.wait_for_end(DEADLINE);
    let log = fleet.log("greedy");
    assert!(log.contains("batch: Denied(BeyondMax) "), "{log}\n{run}");
    let requests = run.guest("greedy")["requests"].clone();
    assert_eq!((&requests["granted"], &requests["denied"]), (&0.into(), &1.into()), "{run}");
}
