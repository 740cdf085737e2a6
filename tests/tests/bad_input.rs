//! What a user may get wrong: each mistake is refused before anything starts, in one line that
//! names it, with exit code 2.
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

/// A fleet of one guest; the tests replace a part of it.
const FLEET: &str = r#"
pool = "256M"

[[guest]]
name = "alpha"
image = "IMAGE"
min = "64M"
max = "128M"
"#;

/// A line of the fleet that others may follow.
const MAX: &str = r#"max = "128M""#;

#[test]
fn missing_fleet_file() {
    expect_refusal(&command::run(["up", "nowhere.toml"]), &["nowhere.toml", "can't read"]);
}

#[test]
fn malformed_fleet_file() {
    refuse_with("pool =", "pool", &["line 2"]);
}

#[test]
fn unknown_key() {
    refuse_with("pool =", "pools =", &["pools"]);
}

#[test]
fn size_without_a_unit() {
    refuse_with("256M", "256", &["256", "not a size"]);
}

#[test]
fn min_above_max() {
    refuse_with("64M", "192M", &["alpha", "min 192M", "max 128M"]);
}

#[test]
fn max_zero() {
    refuse_with("128M", "0M", &["alpha", "max is 0"]);
}

#[test]
fn minima_beyond_the_pool() {
    refuse_with("256M", "32M", &["64", "32", "pool"]);
}

#[test]
fn missing_image() {
    refuse_with("IMAGE", "nowhere", &["alpha", "nowhere", "does not exist"]);
}

#[test]
fn image_that_is_no_elf_file() {
    refuse_image(Flaw::NotElf, &["not an ELF file"]);
}

#[test]
fn truncated_image() {
    refuse_image(Flaw::Truncated, &["cut short"]);
}

#[test]
fn image_for_another_machine() {
    refuse_image(Flaw::WrongMachine, &["another processor"]);
}

#[test]
fn image_without_the_note() {
    refuse_image(Flaw::WithoutNotes, &["note"]);
}

#[test]
fn image_larger_than_memory() {
    refuse_image(Flaw::Oversized, &["larger than memory"]);
}

#[test]
fn missing_disk() {
    refuse_with(MAX, "max = \"128M\"\ndisk = \"nowhere.img\"", &["alpha", "nowhere.img", "does not exist"]);
}

#[test]
fn disk_without_sectors() {
    refuse_disk(0, &["is empty", "at least one sector"]);
}

#[test]
fn disk_with_half_a_sector() {
    refuse_disk(4096 + 256, &["4352 bytes", "not a multiple of 512"]);
}

#[test]
fn swap_of_no_size() {
    refuse_with(MAX, "max = \"128M\"\nswap = \"0M\"", &["alpha", "swap is 0"]);
}

#[test]
fn swap_with_half_a_page() {
    refuse_with(MAX, "max = \"128M\"\nswap = \"6K\"", &["alpha", "swap is 6K", "not a multiple of 4K"]);
}

#[test]
fn unknown_option() {
    let output = command::run(["up", "--no-such-option"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("--no-such-option"), "{output:?}");
}

#[test]
fn no_kvm() {
    refuse_host(KvmFlaw::Missing, &["there is no /dev/kvm", "enable virtualization"]);
}

#[test]
fn kvm_for_others_only() {
    refuse_host(KvmFlaw::NotPermitted, &["/dev/kvm may not be opened", "add this user to the group"]);
}

/// Expects a good fleet to be refused on a host that has `flaw`.
#[track_caller]
fn refuse_host(flaw: KvmFlaw, words: &[&str]) {
    let Some(wrapper) = wrapper(flaw) else {
        return skip("this machine allows no mount namespaces, so /dev/kvm can't be hidden");
    };
    let folder = fresh_folder();
    let fleet = FLEET.replace("IMAGE", &guest_image("boot").display().to_string());
    let words = [words, &["`cargo xtask test --no-kvm`", "QEMU"]].concat();
    expect_refusal(&up_through(&wrapper, folder.path(), &fleet), &words);
}

/// Expects the fleet with an image that has `flaw` to be refused.
#[track_caller]
fn refuse_image(flaw: Flaw, words: &[&str]) {
    let folder = fresh_folder();
    let image = broken(&guest_image("boot"), flaw, folder.path());
    let named = image.display().to_string();
    let words = [words, &["alpha", &named]].concat();
    expect_refusal(&up(folder.path(), &FLEET.replace("IMAGE", &named)), &words);
}

/// Expects the fleet with a disk of so many bytes to be refused.
#[track_caller]
fn refuse_disk(bytes: u64, words: &[&str]) {
    let folder = fresh_folder();
    let disk = folder.path().join("disk.img");
    let made = fs::File::create(&disk).and_then(|file| file.set_len(bytes));
    made.expect("a file can be made in a fresh temporary folder");
    let words = [words, &["alpha", "disk.img"]].concat();
    refuse_with(MAX, &format!("max = \"128M\"\ndisk = {disk:?}"), &words);
}

/// Expects the fleet with `bad` in place of `good` to be refused.
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

/// Runs a fleet from a file of this text.
fn up(folder: &Path, fleet: &str) -> Output {
    up_through(&[], folder, fleet)
}

/// The same by way of another command.
fn up_through(wrapper: &[&str], folder: &Path, fleet: &str) -> Output {
    let file = folder.join("fleet.toml");
    fs::write(&file, fleet).expect("a file can be made in a fresh temporary folder");
    let options = ["--headless", "--seconds", "1"].map(AsRef::as_ref);
    command::run_through(wrapper, [&["up".as_ref(), file.as_os_str()], &options[..]].concat())
}

/// Expects exit code 2 and one line that contains all `words`.
#[track_caller]
fn expect_refusal(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(output.stderr.trim_end().lines().count(), 1, "one line says what is wrong: {output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is missing: {output:?}");
    }
}
