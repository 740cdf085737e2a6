//! Asking a guest that hangs where it is: its processor and its threads.

use aerostat_tests::{Guest, Machine, Plan};

/// More than the code of the functions that are looked for.
const FUNCTION_BYTES: u64 = 96;

/// Two threads compute for ever: one has the processor, and the other was interrupted. Two more
/// wait.
#[test]
fn threads_that_hang_are_found_where_they_are() {
    let mut guest = Plan::test_guest("hang").boot(Machine::Kvm);
    let places = guest.wait_for_line("hang: main 0x");
    guest.wait_for_line("hang: begins");
    for _ in 0..3 {
        let lines = guest.inspect();
        expect_in(&guest, &lines, "main", number_after(&places, "main "));
        expect_in(&guest, &lines, "spinner", number_after(&places, "spinner "));
        for (name, activity) in [
            ("idle", "ready to run"),
            ("waiter", "waits for an event at 0x"),
            ("sleeper", "waits for the timer, until ["),
            ("balloon", "waits for work at 0x"),
        ] {
            let thread = thread(&guest, &lines, name);
            guest.check(thread.activity.starts_with(activity), &format!("{name} {thread:?}\n{lines:#?}"));
            guest.check(thread.addresses.len() > 2, &format!("{name} has no backtrace: {thread:?}"));
        }
    }
}

/// A thread that waits for memory that the host does not grant.
#[test]
fn a_thread_that_waits_for_memory_is_shown_as_such() {
    let mut guest = Plan::test_guest("waiting").grant_mib(24).boot(Machine::Kvm);
    guest.wait_until_memory_is_wanted();
    let lines = guest.inspect();
    let main = thread(&guest, &lines, "main");
    guest.check(main.activity.starts_with("waits for memory at 0x"), &format!("{main:?}\n{lines:#?}"));
}

/// What an answer says of a thread.
#[derive(Debug)]
struct Thread {
    activity: String,
    /// Where it goes on, and return addresses.
    addresses: Vec<u64>,
}

#[track_caller]
fn thread(guest: &Guest, lines: &[String], name: &str) -> Thread {
    let is_header = |line: &String| line.split_once(' ').is_some() && line.contains(&format!(" {name}: "));
    let place = lines.iter().position(is_header);
    guest.check(place.is_some(), &format!("there is no thread {name:?}: {lines:#?}"));
    let place = place.unwrap_or_default();
    let activity = lines[place].split_once(": ").map(|(_, activity)| activity.to_owned()).unwrap_or_default();
    let below = lines.get(place + 1).filter(|line| line.starts_with("    "));
    let addresses = below.map(|line| line.split_whitespace().filter_map(number).collect()).unwrap_or_default();
    Thread { activity, addresses }
}

/// Asserts that a thread is in the function that begins at `start`.
#[track_caller]
fn expect_in(guest: &Guest, lines: &[String], name: &str, start: u64) {
    let Thread { activity, addresses } = thread(guest, lines, name);
    let (what, addresses) = if activity == "runs, with the registers above" {
        let from = lines.iter().position(|line| line == "backtrace:").unwrap_or_default() + 1;
        let backtrace = lines[from..].iter().map_while(|line| line.strip_prefix("  "));
        ("runs", backtrace.filter_map(number).collect())
    } else {
        guest.check(activity == "ready to run", &format!("{name} is {activity:?}: {lines:#?}"));
        ("was interrupted", addresses)
    };
    let function = start..start + FUNCTION_BYTES;
    let is_there = addresses.iter().any(|address| function.contains(address));
    guest.check(is_there, &format!("{name}, which {what}, is not in {function:#x?}: {lines:#?}"));
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[track_caller]
fn number_after(line: &str, word: &str) -> u64 {
    let text = line.split_once(word).and_then(|(_, rest)| rest.split_whitespace().next());
    text.and_then(number).unwrap_or_else(|| panic!("no address after {word:?}: {line}"))
}
