//! Fleet files, good and bad.

use super::{
    Attachment, DetachRule, Fleet, GuestSpec, IdleTax, IgnoredTarget, Limits, Machine, OveruseRule, Shares,
    Subscription,
};
use crate::host::disk::{DiskMode, Disks};
use aerostat_abi::units::FrameCount;
use proptest::proptest;
use std::fs;

const GOOD: &str = r#"
pool = "768M"

[[guest]]
name = "alpha"
image = "image"
min = "64M"
max = "512M"
command_line = "phases=64M:3s repeat"
disk = "data.img"
disk_mode = "read-write"
swap = "512M"

[[guest]]
name = "beta"
image = "image"
min = "64M"
max = "1G"
"#;

/// Loads a file of this text that lies beside a file named `image`. An error is returned
/// without the directory's path.
fn load(text: &str) -> Result<Fleet, String> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("image"), "").unwrap();
    let path = directory.path().join("fleet.toml");
    fs::write(&path, text).unwrap();
    Fleet::load(&path).map_err(|error| error.to_string().replace(&format!("{}/", directory.path().display()), ""))
}

#[test]
fn shares_reservation_and_tax_are_optional() {
    let fleet = load(GOOD).unwrap();
    assert_eq!(fleet.idle_tax, IdleTax::default());
    assert_eq!(fleet.guests[0].subscription, Subscription::default());
    let text = GOOD
        .replacen("swap =", "shares = \"high\"\nreservation = \"128M\"\nswap =", 1)
        .replace("max = \"1G\"", "max = \"1G\"\nshares = 1500")
        .replace("pool =", "idle_tax = 50\npool =");
    let fleet = load(&text).unwrap();
    assert_eq!(fleet.idle_tax.percent(), 50);
    let alpha = Subscription { shares: Shares::HIGH, reservation: FrameCount::from_mib(128) };
    assert_eq!(fleet.guests[0].subscription, alpha);
    assert_eq!(fleet.guests[1].subscription.shares.count(), 1500);
}

#[test]
fn a_good_file_is_a_fleet() {
    let fleet = load(GOOD).unwrap();
    assert_eq!(fleet.pool, FrameCount::from_mib(768));
    let [alpha, beta] = &fleet.guests[..] else { panic!("two guests") };
    assert_eq!((alpha.name.as_str(), beta.name.as_str()), ("alpha", "beta"));
    assert!(alpha.image.is_absolute() && alpha.image.ends_with("image"));
    assert_eq!(alpha.command_line, "phases=64M:3s repeat");
    assert_eq!(beta.limits.max, FrameCount::from_mib(1024));
    assert_eq!(beta.command_line, "");
    let disk = alpha.disks.data.as_ref().unwrap();
    assert!(disk.path.is_absolute() && disk.path.ends_with("data.img") && disk.mode == DiskMode::ReadWrite);
    assert_eq!(alpha.disks.swap.as_ref().unwrap().size, FrameCount::from_mib(512));
    assert_eq!(beta.disks, Disks::default());
    let read_only = load(&GOOD.replace("disk_mode = \"read-write\"", "")).unwrap();
    assert_eq!(read_only.guests[0].disks.data.as_ref().unwrap().mode, DiskMode::ReadOnly);
}

#[test]
fn a_file_has_one_path_wherever_the_path_starts() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    fs::create_dir(place("fleets")).unwrap();
    fs::write(place("image"), "").unwrap();
    fs::write(place("fleets/fleet.toml"), GOOD.replace("image = \"image\"", "image = \"../image\"")).unwrap();
    std::os::unix::fs::symlink(place("fleets"), place("linked")).unwrap();
    let images = ["fleets", "linked"].map(|folder| {
        let fleet = Fleet::load(&place(folder).join("fleet.toml")).unwrap().with_absolute_paths();
        fleet.guests[0].image.clone()
    });
    assert_eq!(images, [fs::canonicalize(place("image")).unwrap(), fs::canonicalize(place("image")).unwrap()]);
}

#[test]
fn an_ignored_target_has_consequences_and_a_machine_of_another_program_few() {
    let rules = |text: &str| load(text).unwrap().guests.iter().map(|guest| guest.ignored_target).collect::<Vec<_>>();
    assert_eq!(rules(GOOD), [IgnoredTarget::Page; 2]);
    let strict = GOOD.replace("pool =", "ignored_target = \"kill\"\npool =");
    assert_eq!(rules(&strict), [IgnoredTarget::Kill; 2]);
    let mixed = strict.replace("swap =", "ignored_target = \"pause\"\nswap =");
    assert_eq!(rules(&mixed), [IgnoredTarget::Pause, IgnoredTarget::Kill]);
    let attached = |rule: &str| {
        let guest = "[[guest]]\nname = \"vm\"\nattach = { qmp = \"vm.sock\" }\nmin = \"64M\"\nmax = \"128M\"";
        format!("ignored_target = \"kill\"\npool = \"512M\"\n{guest}\n{rule}\n")
    };
    assert_eq!(rules(&attached("")), [IgnoredTarget::Page], "the fleet's rule is for machines that it starts");
    assert_eq!(rules(&attached("ignored_target = \"pause\"")), [IgnoredTarget::Pause]);
    let refused = load(&attached("ignored_target = \"kill\"")).unwrap_err().to_string();
    assert!(refused.contains("a machine that is attached is not ended; take \"page\" or \"pause\""), "{refused}");
}

#[test]
fn a_guest_overrides_the_overuse_policy_of_its_fleet() {
    let rules = |text: &str| load(text).unwrap().guests.iter().map(|guest| guest.overuse).collect::<Vec<_>>();
    assert_eq!(rules(GOOD), [OveruseRule::Kill; 2]);
    let mild = GOOD.replace("pool =", "overuse = \"warn\"\npool =");
    assert_eq!(rules(&mild), [OveruseRule::Warn; 2]);
    let mixed = mild.replace("swap =", "overuse = \"cap\"\nswap =");
    assert_eq!(rules(&mixed), [OveruseRule::Cap, OveruseRule::Warn]);
}

#[test]
fn every_error_is_reported_in_one_line() {
    let mistakes = [
        ("768M", "768", "line 2: \"768\" is not a size"),
        ("\"768M\"", "768", "line 2: invalid type: integer `768`, expected a size in quotes such as \"512M\""),
        (
            "768M",
            "767M",
            "pool is 767M, not a multiple of 2M; guest memory is dealt in blocks of 2 MiB, take 766M or 768M",
        ),
        ("768M", "0M", "pool is 0"),
        ("768M", "96M", "the minima of the guests add up to 128.0 MiB and the pool has 96.0 MiB"),
        ("768M", "99999999999G", "line 2: \"99999999999G\" is too large a size"),
        ("pool =", "pools =", "line 2: unknown field `pools`"),
        ("pool =", "pool", "line 2: "),
        ("beta", "alpha", "two guests are named \"alpha\""),
        ("beta", "Alpha", "the names \"alpha\" and \"Alpha\" differ only in upper and lower case"),
        ("beta", "events", "the name \"events\" belongs to the list of events in the log directory; choose another"),
        ("beta", "Events", "the name \"Events\" belongs to the list of events in the log directory; choose another"),
        ("beta", "", "a guest has an empty name"),
        ("beta", "../beta", "the name \"../beta\" can't be used"),
        ("beta", ".beta", "the name \".beta\" can't be used"),
        ("max = \"512M\"", "max = \"0M\"", "guest \"alpha\": max is 0"),
        ("max = \"512M\"", "max = \"62M\"", "guest \"alpha\": min 64M is above max 62M"),
        ("max = \"512M\"", "max = \"513M\"", "guest \"alpha\": max is 513M, not a multiple of 2M"),
        ("min = \"64M\"", "min = \"2M\"", "guest \"alpha\": min 2M is too little for a kernel"),
        (
            "min = \"64M\"\nmax = \"512M\"",
            "min = \"48M\"\nmax = \"511G\"",
            "guest \"alpha\": min 48M is too little for a kernel to run on a machine of 511G; take at least 50M",
        ),
        ("min = \"64M\"", "min = \"0M\"", "guest \"alpha\": min 0K is too little for a kernel"),
        (
            "swap = \"512M\"",
            "swap = \"64G\"",
            "guest \"alpha\": min 64M is too little for the metadata of a swap disk of 64G; take at least 82M, or less swap",
        ),
        ("min = \"64M\"", "", "line 4: missing field `min`"),
        ("\"image\"", "\"nowhere\"", "guest \"alpha\": the image nowhere does not exist"),
        ("\"image\"", "\".\"", "guest \"alpha\": the image . is not a file"),
        ("repeat", "\\u0000", "guest \"alpha\": the command line has a control character"),
        ("read-write", "write", "line 11: unknown variant `write`, expected `read-only` or `read-write`"),
        ("disk = \"data.img\"", "", "guest \"alpha\": disk_mode says how a disk is used and there is no disk"),
        ("swap = \"512M\"", "swap = \"0M\"", "guest \"alpha\": swap is 0"),
        ("swap = \"512M\"", "swap = \"6K\"", "guest \"alpha\": swap is 6K, not a multiple of 4K"),
        ("swap = \"512M\"", "swap = 512", "line 12: invalid type: integer `512`, expected a size"),
        ("pool =", "overuse = \"ask\"\npool =", "line 2: unknown variant `ask`, expected one of `warn`, `cap`, `kill`"),
        ("swap =", "balloon_rate = \"9-2\"\nswap =", "guest \"alpha\": balloon_rate= is no range of MiB per second"),
        ("swap =", "restart = \"sometimes\"\nswap =", "line 12: unknown variant `sometimes`, expected one of `never`"),
        ("pool =", "idle_tax = 101\npool =", "an idle tax of 101 is no percentage; take 0 to 100"),
        ("swap =", "shares = \"most\"\nswap =", "guest \"alpha\": \"most\" is no number of shares; write low"),
        ("swap =", "shares = 0\nswap =", "guest \"alpha\": \"0\" is no number of shares"),
        ("swap =", "shares = 1.5\nswap =", "line 12: invalid shares, expected \"low\""),
        ("swap =", "reservation = \"3M\"\nswap =", "guest \"alpha\": reservation is 3M, not a multiple of 2M"),
        ("swap =", "reservation = \"1G\"\nswap =", "guest \"alpha\": reservation 1024.0 MiB is above max"),
        ("max = \"1G\"", "max = \"1G\"\nreservation = \"706M\"", "the minima and reservations of the guests add up"),
        ("command_line", "comand_line", "line 9: unknown field `comand_line`"),
    ];
    for (good, bad, expected) in mistakes {
        let message = load(&GOOD.replacen(good, bad, 1)).unwrap_err();
        assert!(message.starts_with(&format!("fleet.toml: {expected}")), "{good} -> {bad}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

/// A fleet of one attached machine, with more keys.
fn attached(keys: &str) -> Result<Fleet, String> {
    let guest = "name = \"vm\"\nattach = { qmp = \"vm.qmp\" }\nmin = \"256M\"\nmax = \"1G\"\n";
    load(&format!("pool = \"1G\"\n[[guest]]\n{guest}{keys}"))
}

#[test]
fn a_guest_names_its_machine() {
    let machines = |text: &str| load(text).unwrap().guests.into_iter().map(|guest| guest.machine).collect::<Vec<_>>();
    assert_eq!(machines(GOOD), [Machine::Aerostat, Machine::Aerostat]);
    let qemu = GOOD.replace("pool =", "machine = \"qemu\"\npool =");
    assert_eq!(machines(&qemu), [Machine::Qemu, Machine::Qemu]);
    assert_eq!(machines(&qemu.replace("swap =", "machine = \"aerostat\"\nswap =")), [Machine::Aerostat, Machine::Qemu]);
    let fleet = attached("shares = \"high\"").unwrap().under_qemu();
    let Machine::Attached(Attachment { qmp, on_detach }) = &fleet.guests[0].machine else { panic!("{fleet:?}") };
    assert!(qmp.is_absolute() && qmp.ends_with("vm.qmp") && *on_detach == DetachRule::Deflate);
    let small = attached("").map(|fleet| {
        fleet.guests[0]
            .with_limits(Limits { min: FrameCount::from_mib(2), max: FrameCount::from_mib(4) }, Subscription::default())
    });
    assert!(small.unwrap().is_ok(), "another kernel's needs are not known");
}

#[test]
fn a_machine_that_runs_is_described_by_its_socket() {
    for (keys, expected) in [
        ("image = \"image\"", "guest \"vm\": image belongs to a guest that is started, and attach names a machine"),
        ("command_line = \"x\"", "guest \"vm\": command_line belongs to"),
        ("disk = \"x\"", "guest \"vm\": disk belongs to"),
        ("swap = \"4K\"", "guest \"vm\": swap belongs to"),
        ("overuse = \"warn\"", "guest \"vm\": overuse belongs to"),
        ("machine = \"qemu\"", "guest \"vm\": machine belongs to"),
        ("machine = \"xen\"", "line 7: unknown variant `xen`, expected `aerostat` or `qemu`"),
        ("[[guest]]\nname = \"b\"\nmin = \"64M\"\nmax = \"64M\"", "guest \"b\": there is no image"),
        (
            "[[guest]]\nname = \"b\"\nattach = { qmp = \"vm.qmp\", on_detach = \"keep\" }\nmin = \"64M\"\nmax = \"64M\"",
            "guests \"vm\" and \"b\" attach the same socket vm.qmp; a machine is one guest",
        ),
        (
            "[[guest]]\nname = \"b\"\nattach = { qmp = \"\" }\nmin = \"64M\"\nmax = \"64M\"",
            "guest \"b\": attach.qmp is empty",
        ),
        (
            "[[guest]]\nname = \"b\"\nattach = { qpm = \"x\" }\nmin = \"64M\"\nmax = \"64M\"",
            "line 9: unknown field `qpm`, expected `qmp` or `on_detach`",
        ),
    ] {
        let message = attached(keys).unwrap_err();
        assert!(message.starts_with(&format!("fleet.toml: {expected}")), "{keys}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_fleet_needs_guests_and_a_file() {
    assert!(load("pool = \"64M\"").unwrap_err().contains("there is no [[guest]]"));
    let error = Fleet::load("nowhere.toml".as_ref()).unwrap_err().to_string();
    assert!(error.starts_with("nowhere.toml: can't read the fleet file: No such file"), "{error}");
}

#[test]
fn the_examples_are_valid_except_for_missing_images() {
    let example = |name| {
        let path = format!("{}/../fleets/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).unwrap();
        let images = ["memwalk", "balloon"].map(|app| format!("../target/x86_64-unknown-none/release/{app}"));
        load(&images.iter().fold(text, |text, image| text.replace(image, "image"))).unwrap()
    };
    let paced = example("balloon-app.toml").guests;
    assert_eq!(paced.iter().filter(|guest| guest.balloon_rate.is_some()).count(), 1, "one driver has no rate");
    let fleet = example("demo.toml");
    let sum = fleet.guests.iter().map(|guest| guest.limits.max.mib()).sum::<u64>();
    assert_eq!(sum, 2 * fleet.pool.mib(), "overcommitted twice");
    let swaps = |guest: &&GuestSpec| guest.disks.swap.is_some();
    assert_eq!(fleet.guests.iter().filter(swaps).count(), 1, "one guest can give up memory that is in use");
}

proptest! {
    #[test]
    fn no_text_panics(text: String) {
        let _ = Fleet::parse(&text, "".as_ref());
    }
}
