//! Mistakes of users: the command refuses each of them before any guest starts, with exit code 2
//! and one line that names the mistake.
//!
//! Needs no machine.

use std::fs;
use std::path::Path;

use aerostat_tests::command::{self, Output};
use aerostat_tests::environment::guest_image;
use aerostat_tests::image::{Flaw, broken};
use aerostat_tests::skip;
use aerostat_tests::without_kvm::{KvmFlaw, wrapper};
use tempfile::TempDir;

/// A valid fleet of one guest. The tests replace a part of it.
const FLEET: &str = r#"
pool = "256M"

[[guest]]
name = "alpha"
image = "IMAGE"
min = "64M"
max = "128M"
"#;

/// The line of the fleet that tests append lines to.
const MAX: &str = r#"max = "128M""#;

#[test]
fn a_missing_fleet_file_is_refused() {
    expect_refusal(&command::run(["up", "nowhere.toml"]), &["nowhere.toml", "can't read"]);
}

#[test]
fn a_malformed_fleet_file_is_refused() {
    refuse_with("pool =", "pool", &["line 2"]);
}

#[test]
fn an_unknown_key_is_refused() {
    refuse_with("pool =", "pools =", &["pools"]);
}

#[test]
fn a_size_without_a_unit_is_refused() {
    refuse_with("256M", "256", &["256", "not a size"]);
}

#[test]
fn a_min_above_max_is_refused() {
    refuse_with("64M", "192M", &["alpha", "min 192M", "max 128M"]);
}

#[test]
fn a_max_of_zero_is_refused() {
    refuse_with("128M", "0M", &["alpha", "max is 0"]);
}

#[test]
fn a_pool_below_the_sum_of_minima_is_refused() {
    refuse_with("256M", "32M", &["64", "32", "pool"]);
}

#[test]
fn a_missing_image_is_refused() {
    refuse_with("IMAGE", "nowhere", &["alpha", "nowhere", "does not exist"]);
}

#[test]
fn an_image_that_is_not_elf_is_refused() {
    refuse_image(Flaw::NotElf, &["not an ELF file"]);
}

#[test]
fn a_truncated_image_is_refused() {
    refuse_image(Flaw::Truncated, &["cut short"]);
}

#[test]
fn an_image_for_another_processor_is_refused() {
    refuse_image(Flaw::WrongMachine, &["another processor"]);
}

#[test]
fn an_image_without_notes_is_refused() {
    refuse_image(Flaw::WithoutNotes, &["note"]);
}

#[test]
fn an_image_larger_than_memory_is_refused() {
    refuse_image(Flaw::Oversized, &["larger than memory"]);
}

#[test]
fn a_missing_disk_is_refused() {
    refuse_with(MAX, "max = \"128M\"\ndisk = \"nowhere.img\"", &["alpha", "nowhere.img", "does not exist"]);
}

#[test]
fn an_empty_disk_is_refused() {
    refuse_disk(0, &["is empty", "at least one sector"]);
}

#[test]
fn a_disk_with_half_a_sector_is_refused() {
    refuse_disk(4096 + 256, &["4352 bytes", "not a multiple of 512"]);
}

#[test]
fn a_swap_size_of_zero_is_refused() {
    refuse_with(MAX, "max = \"128M\"\nswap = \"0M\"", &["alpha", "swap is 0"]);
}

#[test]
fn a_swap_size_with_half_a_page_is_refused() {
    refuse_with(MAX, "max = \"128M\"\nswap = \"6K\"", &["alpha", "swap is 6K", "not a multiple of 4K"]);
}

#[test]
fn an_unknown_option_is_refused() {
    let output = command::run(["up", "--no-such-option"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("--no-such-option"), "{output:?}");
}

#[test]
fn a_host_without_kvm_is_refused() {
    refuse_host(KvmFlaw::Missing, &["there is no /dev/kvm", "enable virtualization"]);
}

#[test]
fn a_kvm_that_must_not_be_opened_is_refused() {
    refuse_host(KvmFlaw::NotPermitted, &["/dev/kvm may not be opened", "add this user to the group"]);
}

/// Asserts that a valid fleet is refused on a host that has `flaw`.
#[track_caller]
fn refuse_host(flaw: KvmFlaw, words: &[&str]) {
    let Some(wrapper) = wrapper(flaw) else {
        return skip("this machine allows no mount namespaces, so /dev/kvm can't be hidden");
    };
    let folder = fresh_folder();
    let fleet = FLEET.replace("IMAGE", &guest_image("boot").display().to_string());
    let words = [words, &["--machine qemu", "machine = \"qemu\""]].concat();
    expect_refusal(&up_through(&wrapper, folder.path(), &fleet), &words);
}

/// Asserts that a fleet whose image has `flaw` is refused.
#[track_caller]
fn refuse_image(flaw: Flaw, words: &[&str]) {
    let folder = fresh_folder();
    let image = broken(&guest_image("boot"), flaw, folder.path());
    let named = image.display().to_string();
    let words = [words, &["alpha", &named]].concat();
    expect_refusal(&up(folder.path(), &FLEET.replace("IMAGE", &named)), &words);
}

/// Asserts that a fleet whose disk has so many bytes is refused.
#[track_caller]
fn refuse_disk(bytes: u64, words: &[&str]) {
    let folder = fresh_folder();
    let disk = folder.path().join("disk.img");
    let made = fs::File::create(&disk).and_then(|file| file.set_len(bytes));
    made.expect("a file can be made in a fresh temporary folder");
    let words = [words, &["alpha", "disk.img"]].concat();
    refuse_with(MAX, &format!("max = \"128M\"\ndisk = {disk:?}"), &words);
}

/// Asserts that the fleet with `bad` in place of `good` is refused.
#[track_caller]
fn refuse_with(good: &str, bad: &str, words: &[&str]) {
    let folder = fresh_folder();
    let fleet = FLEET.replacen(good, bad, 1);
    assert_ne!(fleet, FLEET, "{good:?} is part of the fleet");
    let fleet = fleet.replace("IMAGE", &guest_image("boot").display().to_string());
    expect_refusal(&up(folder.path(), &fleet), words);
}

fn fresh_folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// Writes a fleet file with this text and runs it.
fn up(folder: &Path, fleet: &str) -> Output {
    up_through(&[], folder, fleet)
}

/// Does the same by way of another command.
fn up_through(wrapper: &[&str], folder: &Path, fleet: &str) -> Output {
    let file = folder.join("fleet.toml");
    fs::write(&file, fleet).expect("a file can be made in a fresh temporary folder");
    let options = ["--headless", "--seconds", "1"].map(AsRef::as_ref);
    command::run_through(wrapper, [&["up".as_ref(), file.as_os_str()], &options[..]].concat())
}

/// Asserts exit code 2 and one line that contains all `words`.
#[track_caller]
fn expect_refusal(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(output.stderr.trim_end().lines().count(), 1, "not one line: {output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is missing: {output:?}");
    }
}
