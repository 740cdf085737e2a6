//! Moves memory between guest and host: ballooned memory is released on the host, it returns when
//! the target rises, and a bad batch harms neither side.

use std::thread;
use std::time::Duration;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::{Guest, Machine, Plan};
use rustix::process::Signal;

/// The memory that the guests `inflate` and `deflate` touch and free.
const TOUCHED_MIB: u64 = 256;
/// The lowered target.
const SMALL_MIB: u64 = 64;
/// Just enough for both, so that the balloon can be filled only with memory that was touched.
/// Frames that the host never backed would free nothing.
const MEMORY_MIB: u64 = SMALL_MIB + TOUCHED_MIB;

#[test]
fn inflate() {
    let mut guest = Plan::test_guest("inflate").memory_mib(MEMORY_MIB).boot(Machine::Kvm);
    guest.wait_for_line("inflate: freed");
    let before = guest
        .wait_for_facts("all touched memory resident", |facts| facts.resident >= FrameCount::from_mib(TOUCHED_MIB));
    shrink(&mut guest);
    guest.wait_for_facts("98 % of the inflated memory released", |facts| {
        let inflated = facts.inflated.saturating_sub(before.inflated).0;
        before.resident.saturating_sub(facts.resident).0 * 100 >= inflated * 98
    });
    let facts = guest.facts();
    guest.check(facts.all_refused_entries() == 0, "the monitor refused entries of a well-behaved driver");
    guest.check(
        facts.size.saturating_add(facts.balloon) == FrameCount::from_mib(MEMORY_MIB),
        "size + balloon is not the memory",
    );
}

#[test]
fn deflate() {
    let mut guest = Plan::test_guest("deflate").memory_mib(MEMORY_MIB).boot(Machine::Kvm);
    guest.wait_for_line("deflate: freed");
    shrink(&mut guest);
    guest.wait_for_line("deflate: shrunk");
    guest.set_target_mib(MEMORY_MIB);
    guest.wait_for_line("deflate: ok");
    guest.expect_exit(GuestExit::Success);
}

/// The host reclaims free memory that the guest offers, though the guest does not read its target
/// any more.
#[test]
fn offers() {
    let mut guest = Plan::test_guest("offers").memory_mib(MEMORY_MIB).boot(Machine::Kvm);
    guest.wait_for_line("offers: freed");
    let before = guest.facts();
    shrink(&mut guest);
    let facts = guest.wait_for_facts("all but the size and a little released", |facts| {
        facts.resident <= facts.size.saturating_add(FrameCount::from_mib(2))
    });
    guest.check(
        facts.host_reclaimed == facts.inflated && facts.inflated > FrameCount::ZERO,
        "the guest inflated something itself",
    );
    guest.check(facts.port_calls == before.port_calls, "the guest has made a call");
}

/// A thread of the guest ends the session again and again. Ballooned memory stays ballooned, and
/// still returns when the target rises.
#[test]
fn begin_anew() {
    let mut guest = Plan::test_guest("begin_anew").memory_mib(MEMORY_MIB).boot(Machine::Kvm);
    guest.wait_for_line("begin anew: freed");
    shrink(&mut guest);
    guest.wait_for_line("begin anew: shrunk");
    let facts = guest.facts();
    guest.check(facts.balloon == FrameCount::from_mib(TOUCHED_MIB), "the balloon has changed");
    guest.set_target_mib(MEMORY_MIB);
    guest.wait_for_line("begin anew: ok");
    guest.expect_exit(GuestExit::Success);
}

/// A guest that starts with a part of its memory finds the rest in its balloon, and can deflate it.
#[test]
fn initial_balloon() {
    let mut guest = Plan::test_guest("inflate").memory_mib(4 * MEMORY_MIB).grant_mib(SMALL_MIB).boot(Machine::Kvm);
    let small = guest.wait_for_facts("a size within the first grant", |facts| {
        facts.size > FrameCount::ZERO && facts.size <= FrameCount::from_mib(SMALL_MIB)
    });
    guest.check(small.resident <= FrameCount::from_mib(SMALL_MIB), "more memory is resident than was granted");
    guest.set_target_mib(4 * MEMORY_MIB);
    guest.wait_for_line("inflate: freed");
}

/// Single frames of a huge frame that was inflated as a whole return alone. The host does not back
/// those that stay in the balloon.
#[test]
fn single_frames() {
    let mut guest = Plan::test_guest("single_frames").boot(Machine::Kvm);
    guest.wait_for_line("single frames: touched");
    let facts = guest.facts();
    guest.check(facts.deflated > FrameCount::ZERO, "nothing was deflated");
    let tolerated = facts.size.saturating_add(FrameCount::from_mib(1));
    guest.check(facts.resident <= tolerated, &format!("{} are resident of a size of {}", facts.resident, facts.size));
}

#[test]
fn malformed_batches() {
    let mut guest = Plan::test_guest("malformed_batches").memory_mib(SMALL_MIB).boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("malformed batches: ok");
}

/// Longer than a guest waits for memory from its host.
const LONG_PAUSE: Duration = Duration::from_secs(3);
/// Shorter than a guest waits for memory from its host.
const SHORT_PAUSE: Duration = Duration::from_millis(1200);

/// The time in which the VMM process is stopped does not count as waiting, so memory that arrives
/// afterwards still arrives in time.
#[test]
fn a_paused_guest_goes_on_waiting_for_memory() {
    let mut guest = Plan::test_guest("waiting").grant_mib(24).boot(Machine::Kvm);
    guest.wait_until_memory_is_wanted();
    guest.signal(Signal::STOP);
    thread::sleep(LONG_PAUSE);
    guest.signal(Signal::CONT);
    // The guest runs for a while before the host raises the target.
    thread::sleep(SHORT_PAUSE / 4);
    guest.set_target_mib(64);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("waiting: ok");
}

/// The host takes longer than a guest waits, but makes progress in between.
#[test]
fn a_guest_waits_for_a_host_that_grants_memory_slowly() {
    let mut guest = Plan::test_guest("waiting").grant_mib(24).boot(Machine::Kvm);
    guest.wait_until_memory_is_wanted();
    for mib in [28, 32, 36, 64] {
        thread::sleep(SHORT_PAUSE);
        guest.set_target_mib(mib);
    }
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("waiting: ok");
}

/// The log says what was missing, how much came, and what would help.
#[test]
fn a_guest_stops_waiting_for_a_host_that_grants_nothing() {
    let mut guest = Plan::test_guest("waiting").grant_mib(24).boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Failure);
    guest.expect_logged("32.0 MiB were asked for and ");
    guest.expect_logged(" are missing after 2.0 s; meanwhile the host gave 0.0 MiB and raised the target by 0.0 MiB");
    guest.expect_logged("the size is 24.0 MiB of 64.0 MiB and the target 24.0 MiB; ");
    guest.expect_logged("`aerostat explain` says why the target is no higher");
}

/// Lowers the target and waits until the guest has reached it.
fn shrink(guest: &mut Guest) {
    guest.set_target_mib(SMALL_MIB);
    guest.wait_for_facts(&format!("a size of {SMALL_MIB} MiB"), |facts| facts.size == FrameCount::from_mib(SMALL_MIB));
}

/// A balloon that needs more than is free evicts cold pages to the compressed pool. All of them
/// return unchanged.
#[test]
fn squeeze() {
    let mut guest = Plan::test_guest("squeeze").memory_mib(128).command_line("compressed_swap=128M").boot(Machine::Kvm);
    guest.wait_for_line("squeeze: filled");
    guest.set_target_mib(SMALL_MIB);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("squeeze: ok");
}

/// If no huge frame is whole, the balloon has pages moved together instead of allocating single
/// frames.
#[test]
fn scattered() {
    let mut guest = Plan::test_guest("scattered").memory_mib(256).command_line("log=debug").boot(Machine::Kvm);
    guest.wait_for_line("scattered: ready");
    guest.set_target_mib(96);
    guest.wait_for_line("scattered: shrunk");
    guest.set_target_mib(256);
    guest.expect_exit(GuestExit::Success);
    let line = guest.wait_for_line("scattered: ok");
    guest.check(!line.contains(" 0 pages moved"), "no page was moved");
}

/// A balloon that needs more than is free tells the application first, which drops its cache.
#[test]
fn pressure() {
    let plan = Plan::test_guest("pressure").memory_mib(128).command_line("compressed_swap=128M balloon");
    let mut guest = plan.boot(Machine::Kvm);
    guest.wait_for_line("pressure: filled");
    guest.set_target_mib(32);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("pressure: ok");
}

/// A guest whose target is below its working set detects that it is thrashing, and its driver does
/// not inflate until it has room again.
#[test]
fn thrash() {
    let mut guest = Plan::test_guest("thrash").memory_mib(128).command_line("compressed_swap=128M").boot(Machine::Kvm);
    guest.wait_for_line("thrash: filled");
    // A little less than the working set: pages that were evicted last are soon touched again.
    guest.set_target_mib(84);
    guest.wait_for_line("thrash: noticed");
    guest.set_target_mib(40);
    guest.wait_for_line("balloon: the guest is thrashing");
    guest.set_target_mib(128);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("thrash: ok");
}
