//! Aerostat's guests on the machines of QEMU, with its standard devices: they boot and end, and
//! their driver of the virtio-balloon does what QEMU asks for over QMP.
//!
//! Applications verify their memory and log what has changed. Without a balloon port nothing but
//! the log and QEMU's monitor says what a guest does.

use std::thread;
use std::time::Duration;

use aerostat_abi::exit::GuestExit;
use aerostat_tests::qmp::Qmp;
use aerostat_tests::{Guest, Machine, Plan, WayOut, resident_mib};
use rustix::process::Signal;
use serde_json::{Value, json};

const MACHINES: [Machine; 3] = [Machine::Qemu, Machine::Q35, Machine::Pc];
const MIB: u64 = 1 << 20;
/// The application walks through 64 MiB without end, and logs a line each second. How long QEMU
/// takes for something must not matter.
const WALK: &str = "phases=64M:1s repeat";
/// What QEMU calls the balloon device of a plan.
const BALLOON: &str = "/machine/peripheral/balloon0";

mod qemu {
    use super::*;

    /// 5 GiB has memory on both sides of the device hole.
    #[test]
    fn machines_of_all_sizes_boot_and_end() {
        for machine in MACHINES {
            for mib in [256, 1024, 5120] {
                let mut guest = Plan::app("hello").memory_mib(mib).boot(machine);
                guest.wait_for_line("hello from a guest of ");
                guest.expect_exit(GuestExit::Success);
            }
        }
    }

    /// The outcome is on the console, as no exit port takes it.
    #[test]
    fn machines_without_an_exit_port_end() {
        for machine in MACHINES {
            for (app, outcome) in
                [("hello", "the guest has ended: success"), ("memwalk", "the guest has ended: failure")]
            {
                let plan = Plan::app(app).command_line("words").way_out(WayOut::Machine);
                let mut guest = plan.boot(machine);
                let _status = guest.wait_for_end();
                guest.expect_logged(outcome);
            }
        }
    }

    /// Of each combination of features the guest uses what it knows and QEMU has.
    #[test]
    fn every_combination_of_balloon_features_works() {
        const FEATURES: [&str; 4] = ["deflate-on-oom", "free-page-reporting", "page-poison", "free-page-hint"];
        for combination in 0..1_usize << FEATURES.len() {
            let is_on = |bit: usize| combination >> bit & 1 == 1;
            let switch = |(bit, name): (usize, &&str)| format!("{name}={}", if is_on(bit) { "on" } else { "off" });
            let mut properties: Vec<String> = FEATURES.iter().enumerate().map(switch).collect();
            if is_on(3) {
                properties.push("iothread=hints".to_owned());
            }
            let machine = MACHINES[combination % MACHINES.len()];
            let mut walk = Walk::start(machine, 256, &properties.join(","), WALK);
            walk.resize(128);
            walk.resize(256);
            walk.expect_unharmed();
        }
    }

    #[test]
    fn a_guest_follows_many_targets_and_keeps_its_data() {
        for machine in MACHINES {
            for mib in [256, 1024, 5120] {
                let mut walk = Walk::start(machine, mib, "deflate-on-oom=on", WALK);
                for percent in [80, 60, 90, 50, 100, 70] {
                    walk.resize((mib * percent / 100).next_multiple_of(2));
                }
                walk.resize(mib);
                walk.expect_unharmed();
            }
        }
    }

    /// The latest target counts, however many came before the driver has seen any.
    #[test]
    fn the_latest_of_many_targets_counts() {
        let mut walk = Walk::start(Machine::Qemu, 256, "", WALK);
        for target in (0..200).map(|number| 96 + number * 37 % 160) {
            walk.ask(target);
        }
        walk.resize(128);
        walk.resize(256);
        walk.expect_unharmed();
    }

    /// QEMU asks for all memory but a byte. The guest keeps what it needs.
    #[test]
    fn a_target_below_what_the_guest_needs_does_not_harm_it() {
        let mut walk = Walk::start(Machine::Q35, 256, "", WALK);
        walk.qmp.execute("balloon", &json!({ "value": 1 })).expect("QEMU takes any size");
        walk.guest.wait_for("a smaller guest", |_| (actual(&mut walk.qmp) < 160 * MIB).then_some(()));
        walk.resize(256);
        walk.expect_unharmed();
    }

    /// Free memory goes back to the host, though the balloon stays empty.
    #[test]
    fn free_memory_is_reported() {
        for machine in MACHINES {
            let plan = Plan::app("memwalk").memory_mib(512).balloon("free-page-reporting=on");
            let mut guest = plan.command_line("phases=384M:1s,8M:3600s").boot(machine);
            guest.wait_for_line("8 MiB in use of 8 MiB");
            let pid = guest.pid();
            guest.wait_for("memory that is no longer resident", |_| {
                resident_mib(pid).is_ok_and(|mib| mib < 192.0).then_some(())
            });
            assert_eq!(actual(&mut guest.qmp()), 512 * MIB, "the balloon is empty");
        }
    }

    /// The application grows by memory that is in the balloon. With the feature the driver deflates
    /// below the target for it, and without it the application gets nothing.
    #[test]
    fn the_balloon_deflates_rather_than_fail_an_allocation() {
        const GROWING: &str = "phases=32M:3s,160M:3s repeat";
        let mut walk = Walk::start(Machine::Pc, 256, "deflate-on-oom=on", GROWING);
        walk.resize(96);
        walk.guest.wait_for("deflation", |_| (actual(&mut walk.qmp) > 150 * MIB).then_some(()));
        walk.expect_unharmed();
        let mut walk = Walk::start(Machine::Pc, 256, "deflate-on-oom=off", GROWING);
        walk.resize(96);
        walk.guest.wait_for_line("160 MiB in use of 160 MiB");
        walk.wait_for_phases(2);
        assert_eq!(actual(&mut walk.qmp), 96 * MIB, "the target holds");
        walk.expect_unharmed();
    }

    #[test]
    fn a_host_that_stops_in_the_middle_of_an_inflation_is_waited_for() {
        let mut walk = Walk::start(Machine::Q35, 1024, "", WALK);
        walk.ask(256);
        walk.guest.wait_for("a part of the balloon", |_| (actual(&mut walk.qmp) < 1000 * MIB).then_some(()));
        walk.guest.signal(Signal::STOP);
        thread::sleep(Duration::from_secs(3));
        walk.guest.signal(Signal::CONT);
        walk.resize(256);
        walk.resize(1024);
        walk.expect_unharmed();
    }

    /// A reset boots the image again, and all of the balloon with it.
    #[test]
    fn a_machine_that_is_reset_boots_again() {
        let plan = Plan::app("memwalk").memory_mib(256).balloon("free-page-reporting=on").way_out(WayOut::Reboot);
        let mut guest = plan.command_line("phases=32M:3600s").boot(Machine::Q35);
        let mut qmp = guest.qmp();
        for boots in 1..=3 {
            guest.wait_for("one more boot", |guest| {
                (guest.log().matches("32 MiB in use of 32 MiB").count() == boots).then_some(())
            });
            resize(&mut guest, &mut qmp, 128);
            qmp.execute("system_reset", &json!({})).expect("a machine can be reset");
            guest.wait_for("an empty balloon", |_| (actual(&mut qmp) == 256 * MIB).then_some(()));
        }
    }

    #[test]
    fn statistics_are_the_guests_own() {
        let plan = Plan::app("memwalk").memory_mib(256).balloon("deflate-on-oom=on");
        let mut guest = plan.command_line("phases=96M:3600s").boot(Machine::Q35);
        guest.wait_for_line("96 MiB in use of 96 MiB");
        let mut qmp = guest.qmp();
        let interval = json!({ "path": BALLOON, "property": "guest-stats-polling-interval", "value": 1 });
        qmp.execute("qom-set", &interval).expect("the device has the property");
        let mut within = |what: &str, wanted: std::ops::Range<u64>, name: &str| {
            let is_wanted = |value: &u64| wanted.contains(&(value / MIB));
            guest.wait_for(what, |_| statistic(&mut qmp, name).filter(is_wanted))
        };
        let total = within("the memory of the machine", 248..257, "stat-total-memory");
        let free = within("what 96 MiB leave free", 100..160, "stat-free-memory");
        let available = within("what can be allocated", 100..161, "stat-available-memory");
        // What the kernel keeps for itself is free and not available.
        assert!(free.abs_diff(available) < 8 * MIB && available < total, "{free} {available} {total}");
        within("no page of a file", 0..1, "stat-disk-caches");
        assert_eq!(statistic(&mut qmp, "stat-htlb-pgalloc"), None, "there is no pool of huge pages");
        resize(&mut guest, &mut qmp, 192);
        let mut less = |what: &str, limit: u64, name: &str| {
            guest.wait_for(what, |_| statistic(&mut qmp, name).filter(|&value| value < limit))
        };
        less("less free memory", free - 48 * MIB, "stat-free-memory");
    }

    /// The disk serves no more than so many requests, so evicted pages are slow to come back.
    #[test]
    fn a_slow_swap_disk_delays_and_harms_nothing() {
        let plan = Plan::app("memwalk").memory_mib(128).balloon("deflate-on-oom=off").swap_mib(256).swap_iops(400);
        let mut guest = plan.command_line("phases=96M:1s repeat").boot(Machine::Q35);
        guest.wait_for_line("96 MiB in use of 96 MiB");
        let qmp = guest.qmp();
        let mut walk = Walk { guest, qmp };
        walk.resize(96);
        walk.expect_unharmed();
    }
}

/// A guest that walks through memory, and the connection to its machine.
struct Walk {
    guest: Guest,
    qmp: Qmp,
}

impl Walk {
    /// Boots the guest and waits until it walks.
    #[track_caller]
    fn start(machine: Machine, mib: u64, properties: &str, phases: &str) -> Self {
        let plan = Plan::app("memwalk").memory_mib(mib).balloon(properties).command_line(phases);
        let mut guest = plan.boot(machine);
        guest.wait_for_line(" MiB in use of ");
        let qmp = guest.qmp();
        Self { guest, qmp }
    }

    /// Sets the target.
    #[track_caller]
    fn ask(&mut self, mib: u64) {
        ask(&mut self.qmp, mib);
    }

    /// Sets the target, and waits until the guest has that size.
    #[track_caller]
    fn resize(&mut self, mib: u64) {
        resize(&mut self.guest, &mut self.qmp, mib);
    }

    /// Waits until so many more phases have begun.
    #[track_caller]
    fn wait_for_phases(&mut self, count: usize) {
        let phases = |guest: &Guest| guest.log().matches(" MiB in use of ").count();
        let begun = phases(&self.guest);
        self.guest.wait_for("another phase", |guest| (phases(guest) >= begun + count).then_some(()));
    }

    /// Waits until the application has walked through its memory again; it must find no error.
    #[track_caller]
    fn expect_unharmed(mut self) {
        self.wait_for_phases(2);
        let log = self.guest.log();
        self.guest.check(!log.contains(" have changed"), "its memory has changed");
    }
}

#[track_caller]
fn ask(qmp: &mut Qmp, mib: u64) {
    qmp.execute("balloon", &json!({ "value": mib * MIB })).unwrap_or_else(|error| panic!("{mib} MiB: {error:#}"));
}

#[track_caller]
fn resize(guest: &mut Guest, qmp: &mut Qmp, mib: u64) {
    ask(qmp, mib);
    guest.wait_for(&format!("a size of {mib} MiB"), |_| (actual(qmp) == mib * MIB).then_some(()));
}

/// Returns the guest's size in bytes, as its driver has reported it.
#[track_caller]
fn actual(qmp: &mut Qmp) -> u64 {
    let answer = qmp.execute("query-balloon", &json!({})).expect("the machine has a balloon");
    answer["actual"].as_u64().expect("a size is a number")
}

/// Returns one of the guest's statistics; `None` unless the guest reports it.
fn statistic(qmp: &mut Qmp, name: &str) -> Option<u64> {
    let read = json!({ "path": BALLOON, "property": "guest-stats" });
    let answer: Value = qmp.execute("qom-get", &read).ok()?;
    answer["stats"][name].as_u64().filter(|&value| value != u64::MAX)
}
