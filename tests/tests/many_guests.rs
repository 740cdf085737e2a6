//! Fleets of many small guests: all of them start and are served, and a limit of the host that is
//! too low is reported before the first one starts.

use std::time::Duration;

use aerostat::host::descriptors::{CONTROL, PER_GUEST, PER_RUN, PER_START};
use aerostat_tests::DEADLINE;
use aerostat_tests::environment::app_image;
use aerostat_tests::fleet::{Fleet, FleetPlan, Member, Receiver, line_with};
use rustix::process::Signal;

const GUESTS: usize = 60;
const MIB: u64 = 24;

fn plan(guests: usize) -> FleetPlan {
    let pool = FleetPlan::pool_mib(MIB * guests as u64);
    (0..guests).fold(pool, |plan, number| {
        let name = format!("guest{number}");
        let command_line = "phases=2M:100ms repeat";
        plan.with(&Member { name: &name, image: app_image("memwalk"), min_mib: MIB, max_mib: MIB, command_line })
    })
}

/// Returns a shell command that sets a limit on open files and executes its arguments.
fn limited(option: &str) -> [String; 4] {
    ["sh".into(), "-c".into(), format!("ulimit {option} && exec \"$@\""), "sh".into()]
}

fn up(guests: usize, limit: &str) -> Fleet {
    let words = limited(limit);
    plan(guests).up_through(&words.each_ref().map(String::as_str))
}

/// Waits until all guests run.
fn wait_for_all(fleet: &mut Fleet, guests: usize) {
    fleet.wait_for("work of every guest", |fleet| {
        let printed = fleet.printed();
        let runs = |number: usize| line_with(&printed, &[&format!("  guest{number} "), " running "]).is_some();
        (0..guests).all(runs).then_some(())
    });
}

fn end(fleet: &mut Fleet) {
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    assert_eq!(run.report()["violations"], 0, "{run}");
}

/// The supervisor raises its soft limit on open files.
#[test]
fn many_guests_run_under_a_low_soft_limit() {
    let mut fleet = up(GUESTS, "-Sn 64");
    wait_for_all(&mut fleet, GUESTS);
    end(&mut fleet);
}

#[test]
fn too_low_a_hard_limit_is_refused_before_the_first_start() {
    let run = up(GUESTS, "-n 128").wait_for_end(Duration::from_secs(30));
    run.expect_exit_code(2);
    // A run, its clients, four starts at the same time, and the guests.
    let needed = PER_RUN + CONTROL + 4 * PER_START + PER_GUEST * GUESTS as u64;
    let words = format!("it takes up to {needed} open files, and the limit is 128; raise it with `ulimit -n {needed}`");
    assert!(run.output.stderr.contains(&words), "{run}");
    assert_eq!(run.output.stderr.trim_end().lines().count(), 1, "{run}");
    assert!(!run.events.contains("started"), "{run}");
}

/// The number that the supervisor requires for a guest is the number that a guest takes.
#[test]
fn a_guest_takes_the_descriptors_that_are_counted_for_it() {
    let [few, many] = [4, 12].map(|guests| {
        let mut fleet = up(guests, "-Sn 64");
        wait_for_all(&mut fleet, guests);
        let descriptors = fleet.descriptors();
        end(&mut fleet);
        descriptors
    });
    assert_eq!((many - few) as u64, 8 * PER_GUEST);
    assert!(few <= 4 * usize::try_from(PER_GUEST).expect("a small number") + 48, "{few} descriptors for four guests");
}
