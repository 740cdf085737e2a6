//! Applications whose data exceeds their memory. Their results are compared with the host's.

use std::path::Path;

use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::Facts;
use aerostat_abi::units::FrameCount;
use aerostat_tests::environment::app_image;
use aerostat_tests::fleet::{FleetPlan, Member};
use aerostat_tests::text::{pack, verify};
use aerostat_tests::{DEADLINE, Machine, Plan};

#[test]
fn sorted_records_have_the_checksum_that_the_host_computes() {
    const RECORDS: u64 = (24 << 20) / 16;
    let mut guest = Plan::app("sort").command_line("size=24M repeat=2").boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    for round in [1, 2] {
        guest.expect_logged(&format!("{RECORDS} records, 0 wrong, checksum {:016x}", checksum(RECORDS, round)));
    }
}

#[test]
fn records_beyond_memory_are_sorted_with_a_swap_disk() {
    const RECORDS: u64 = (96 << 20) / 16;
    let sort = Member {
        name: "sort",
        image: app_image("sort"),
        min_mib: 48,
        max_mib: 48,
        command_line: "size=96M reclaim=generations",
    };
    let mut fleet = FleetPlan::pool_mib(48).with(&sort).with_key("swap", "256M").up(None);
    let run = fleet.wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    run.expect_unharmed("sort");
    let log = fleet.log("sort");
    let expected = format!("{RECORDS} records, 0 wrong, checksum {:016x}", checksum(RECORDS, 1));
    assert!(log.contains(&expected), "not logged: {expected}\n{log}\n{run}");
}

/// The text is on a mapped disk, and memory holds only a part of it at a time.
#[test]
fn an_index_of_a_mapped_text_equals_the_one_that_the_host_builds() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let archive = folder.path().join("text.tar");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let parts = ["abi", "apps", "docs", "guest-kernel", "monitor", "tests", "xtask"].map(|part| repository.join(part));
    pack(&parts, None, &archive).expect("this repository can be packed");
    let disk = DataDisk { path: archive.clone(), mode: DiskMode::ReadOnly, faults: DiskFaults::default() };
    let plan = Plan::app("index").memory_mib(20).disk(disk).swap_mib(64).command_line("repeat=2 queries=500");
    let mut guest = plan.boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    let verified = verify(&archive, &guest.log());
    guest.check(verified.is_ok(), &format!("{verified:?}"));
}

/// Without a swap disk the array exceeds the commit limit, and the application says so.
#[test]
fn records_beyond_memory_and_swap_are_refused() {
    let mut guest = Plan::app("sort").command_line("size=1G").boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Failure);
    guest.expect_logged("there is no memory for 1024 MiB of records");
}

/// The guest has no swap: the balloon gets the memory that the cache drops, and the cache grows
/// again when the target rises.
#[test]
fn a_cache_follows_the_target_of_its_guest() {
    const ITEMS_MIB: u64 = 160;
    let mut guest = Plan::app("cache").memory_mib(256).command_line("items=160").boot(Machine::Kvm);
    let is_full = |facts: &Facts| facts.resident >= FrameCount::from_mib(ITEMS_MIB);
    guest.wait_for_facts("a full cache", is_full);
    let small = FrameCount::from_mib(96);
    guest.set_target_mib(96);
    guest.wait_for_facts("a size of 96 MiB", |facts| facts.size == small && facts.resident <= small);
    guest.wait_for_line("pressure: ");
    guest.set_target_mib(256);
    guest.wait_for_facts("a cache that is full again", is_full);
    let statistics = guest.registers().statistics();
    guest.check(statistics.app_errors == 0 && statistics.verified_bytes > 0, "not every answer was right");
    guest.check(statistics.evictions == 0, "pages were evicted");
}

/// The cache could use more memory than its guest has, so the pressure comes from the guest itself.
#[test]
fn a_cache_answers_all_requests_with_less_memory_than_it_could_use() {
    let mut guest = Plan::app("cache").memory_mib(48).command_line("items=96 requests=3000").boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("3000 answers right, 0 wrong");
    guest.expect_logged("Low pressure: ");
}

#[test]
fn the_cache_refuses_words_that_it_does_not_know() {
    for words in ["items=0", "items=64 rquests=5"] {
        let mut guest = Plan::app("cache").command_line(words).boot(Machine::Kvm);
        guest.expect_exit(GuestExit::Failure);
        guest.expect_logged("is not understood: expected items=N [requests=N]");
    }
}

/// Returns the checksum that `sort` logs for so many records, as `docs/applications.md` defines it.
fn checksum(records: u64, round: u64) -> u64 {
    let mut keys: Vec<u64> = (0..records).map(|number| mixed(number ^ (round << 48))).collect();
    keys.sort_unstable();
    (0_u64..).zip(keys).fold(0, |sum, (place, key)| sum.wrapping_add(key.wrapping_mul(place)))
}

/// Returns SplitMix64's number for a state (Steele, Lea, Flood, OOPSLA 2014).
fn mixed(state: u64) -> u64 {
    let mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
