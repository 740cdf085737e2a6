//! A fleet from end to end, as a user runs it: memory moves between guests, every byte that they
//! read back is right, and the report has the shape and the sums that it should have.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use aerostat_tests::DEADLINE;
use aerostat_tests::environment::app_image;
use aerostat_tests::fleet::{FleetPlan, Member, Run};
use serde_json::Value;

/// Describes a guest that walks through `phases`.
fn walker<'a>(name: &'a str, max_mib: u64, phases: &'a str) -> Member<'a> {
    Member { name, image: app_image("memwalk"), min_mib: 48, max_mib, command_line: phases }
}

/// Describes two guests whose demands alternate. One can grow only by memory that the other has
/// inflated.
fn alternating_guests() -> FleetPlan {
    FleetPlan::pool_mib(256).with(&walker("ebb", 192, "phases=128M:2s,24M:2s repeat")).with(&walker(
        "flow",
        192,
        "phases=24M:2s,128M:2s repeat",
    ))
}

#[test]
fn memory_moves_between_guests_and_keeps_its_contents() {
    let run = alternating_guests().up(Some(Duration::from_secs(8))).wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    let report = run.report();
    assert!(report["moved_mib"].as_u64() > Some(0), "no memory moved\n{run}");
    assert_eq!(report["violations"], 0, "{run}");
    run.expect_unharmed("ebb");
    run.expect_unharmed("flow");
    expect_published_shape(&report);
    expect_consistent_samples(&report, &run);
}

/// The application reads its last phase back just before it ends.
#[test]
fn the_last_metrics_of_a_guest_are_in_the_report() {
    let plan = FleetPlan::pool_mib(128).with(&walker("brief", 96, "phases=64M:50ms"));
    let run = plan.up(None).wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    let verified = run.report()["guests"][0]["app"]["verified_bytes"].as_u64();
    assert!(verified >= Some(64 << 20), "not all of 64 MiB was verified\n{run}");
}

const THREE: [&str; 3] = ["first", "second", "third"];

/// Three guests want twice the pool. They can evict pages, so whichever asked first gives memory
/// back.
#[test]
fn guests_that_want_more_than_the_pool_get_fair_shares() {
    const POOL_MIB: u64 = 288;
    const SHARE_MIB: u64 = POOL_MIB / 3;
    let plan = THREE.iter().fold(FleetPlan::pool_mib(POOL_MIB), |plan, name| {
        plan.with(&walker(name, 224, "phases=192M:3600s")).with_key("swap", "256M")
    });
    let mut fleet = plan.up(None);
    // Guests that swap leave a reserve of the pool alone, so they share a little less than all.
    let is_fair = |status: &Value| {
        let fair = (SHARE_MIB << 20) * 3 / 4..=(SHARE_MIB << 20) * 5 / 4;
        ["size_bytes", "target_bytes"].iter().all(|key| status[key].as_u64().is_some_and(|bytes| fair.contains(&bytes)))
    };
    // It holds all that it wants, and a part of it is evicted.
    let is_whole = |status: &Value| status["activity"].as_str() == Some("walking 192 of 192 MiB");
    fleet.wait_for("a fair share for each", |fleet| {
        let statuses: Vec<_> = THREE.iter().filter_map(|name| fleet.status(name)).collect();
        let are_fair = statuses.iter().all(|status| is_fair(status) && is_whole(status));
        (statuses.len() == THREE.len() && are_fair).then_some(())
    });
    fleet.ask(&["down"]);
    let run = fleet.wait_for_end(DEADLINE);
    assert_eq!(run.report()["violations"], 0, "{run}");
    for name in THREE {
        assert_eq!(run.guest(name)["app"]["errors"], 0, "{name} found errors\n{run}");
    }
}

/// The guests can evict nothing. Whichever asked first keeps what it uses, and the others' failed
/// allocations harm none of them.
#[test]
fn guests_that_want_more_than_the_pool_go_on_with_less() {
    // An allocation waits two seconds for memory before it fails: the phase has room for two that
    // fail, with a walk between.
    let plan =
        THREE.iter().fold(FleetPlan::pool_mib(288), |plan, name| plan.with(&walker(name, 224, "phases=192M:7s")));
    let run = plan.up(None).wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    assert_eq!(run.report()["violations"], 0, "{run}");
    for name in THREE {
        run.expect_unharmed(name);
        let failures = run.guest(name)["allocation_failures"].as_u64();
        assert!(failures > Some(0), "{name} reported no failed allocation\n{run}");
    }
}

/// A neighbour releases memory that it does not use, and may take longer than others have to wait:
/// then the host pages it out for them. Nothing fails, and both verify their memory.
#[test]
fn a_neighbour_that_releases_memory_slowly_keeps_no_other_waiting() {
    let slow = Member {
        name: "slow",
        image: app_image("memwalk"),
        min_mib: 32,
        max_mib: 192,
        command_line: "phases=160M/16M:3600s balloon_rate=4-8",
    };
    let alone = || FleetPlan::pool_mib(224).with(&slow).with_key("swap", "256M");
    let mut fleet = alone().up(None);
    let is_idle = |status: &Value| status["activity"].as_str() == Some("idling on most 160 of 160 MiB");
    fleet.wait_for("a neighbour that does not use its memory", |fleet| fleet.status("slow").filter(is_idle));
    fleet.apply(&alone().with(&walker("grower", 160, "phases=16M:2s,104M:1s")));
    fleet.wait_for_line(&["  grower ended: "]);
    fleet.ask(&["down"]);
    let run = fleet.wait_for_end(DEADLINE);
    run.expect_unharmed("grower");
    run.expect_unharmed("slow");
    assert_eq!(run.guest("grower")["allocation_failures"], 0, "{run}");
    assert_eq!(run.report()["violations"], 0, "{run}");
}

/// One guest inflates single frames, as all of its memory is in use and goes to its swap disk, and
/// a neighbour grows by them. They must be physically free before the neighbour gets them, or both
/// guests together take more than the pool.
#[test]
fn memory_that_is_granted_again_is_physically_free() {
    const POOL_MIB: u64 = 224;
    // A VMM process takes 2 MiB for itself, and page tables take a 512th.
    const OVERHEAD_MIB: u64 = 2 * 2 + 1;
    let squeezed = Member {
        name: "squeezed",
        image: app_image("memwalk"),
        min_mib: 48,
        max_mib: 192,
        command_line: "phases=160M:2s repeat",
    };
    let plan = FleetPlan::pool_mib(POOL_MIB).with(&squeezed).with_key("swap", "256M").with(&walker(
        "grower",
        176,
        "phases=16M:2s,80M:2s,144M:4s",
    ));
    let run = plan.up(Some(Duration::from_secs(10))).wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    let report = run.report();
    let physical = report["peak_physical_mib"].as_u64();
    assert!(physical <= Some(POOL_MIB + OVERHEAD_MIB), "{physical:?} MiB were taken of a pool of {POOL_MIB}\n{run}");
    assert_eq!(report["violations"], 0, "{run}");
    let inflated = run.guest("squeezed")["balloon"]["inflated_mib"].as_u64();
    assert!(inflated >= Some(48), "little was inflated: {inflated:?} MiB\n{run}");
}

/// Asserts that the report has the keys of the example in `docs/report.md`, with values of the same
/// kinds, and no others.
#[track_caller]
fn expect_published_shape(report: &Value) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/report.md");
    let page = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let example = page.split("```json").nth(1).and_then(|rest| rest.split("```").next());
    let example = example.unwrap_or_else(|| panic!("{path} has no example"));
    let example: Value = serde_json::from_str(example).unwrap_or_else(|error| panic!("{path}: {error}"));
    expect_same_shape(&example, report, "");
}

#[track_caller]
fn expect_same_shape(example: &Value, found: &Value, place: &str) {
    match (example, found) {
        (Value::Object(example), Value::Object(found)) => {
            let keys = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(example), keys(found), "keys of {place:?}");
            for (key, value) in example {
                expect_same_shape(value, &found[key], &format!("{place}/{key}"));
            }
        }
        (Value::Array(example), Value::Array(found)) => {
            assert!(!found.is_empty(), "{place} is empty");
            found.iter().for_each(|element| expect_same_shape(&example[0], element, place));
        }
        (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)) => {}
        _ => panic!("{place} is {found}, not as {example}"),
    }
}

/// Asserts that samples are in the order of time, that resident memory is at most the pool at every
/// moment, and that size and balloon add up.
#[track_caller]
fn expect_consistent_samples(report: &Value, run: &Run) {
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap_or_else(|| panic!("no {key}: {value}"));
    let mut resident_at: BTreeMap<u64, u64> = BTreeMap::new();
    for guest in report["guests"].as_array().unwrap_or_else(|| panic!("no guests\n{run}")) {
        let samples = guest["samples"].as_array().unwrap_or_else(|| panic!("no samples: {guest}"));
        let times: Vec<u64> = samples.iter().map(|sample| number(sample, "ms")).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
        for sample in samples {
            *resident_at.entry(number(sample, "ms")).or_default() += number(sample, "resident_mib");
            let (size, balloon) = (number(sample, "size_mib"), number(sample, "balloon_mib"));
            // Each is rounded down.
            assert!(number(guest, "max_mib") - (size + balloon) <= 1, "size and balloon are not all memory: {sample}");
        }
    }
    let pool = number(report, "pool_mib");
    for (ms, resident) in &resident_at {
        assert!(*resident <= pool, "{resident} MiB resident of a pool of {pool} MiB at {ms} ms\n{run}");
    }
    let most = resident_at.values().max().copied();
    assert!(
        most <= Some(number(report, "peak_resident_mib") + 2),
        "a sample exceeds the peak by more than rounding\n{run}"
    );
    let all_guests = report["guests"].as_array().map_or(0, Vec::len);
    let shared = resident_at.len() * all_guests;
    let samples: usize = report["guests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|guest| guest["samples"].as_array())
        .map(Vec::len)
        .sum();
    assert!(
        samples * 10 >= shared * 9,
        "guests are not sampled together: {samples} samples at {} times\n{run}",
        resident_at.len()
    );
}
