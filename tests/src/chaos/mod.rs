//! Chaos: a fleet under load while processes are killed, stopped and throttled at random.
//!
//! Two *steady* guests verify every byte of their memory all the time. They are never killed; their
//! VMM processes are stopped and throttled, and their supervisors killed. Two *victims* and a guest
//! that swaps to a disk that is too small for it are killed as well, and start again. At the end
//! the steady guests have lost nothing, the pool was never overdrawn by physical measure, and
//! nothing is left behind.
//!
//! The length of a run is a number of steps, and a seed decides them all, so a run can be repeated.
//! What happens between two steps still depends on the host. The clock is not stepped: it is the
//! whole machine's.

mod footprint;
mod quota;
mod small_disk;
mod step;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aerostat::host::cgroup::{Location, MemoryGroup};
use rustix::process::Signal;

use self::footprint::Footprint;
use self::quota::Quota;
use self::small_disk::SmallDisk;
use self::step::{Step, Steps};
use crate::environment::app_image;
use crate::fleet::{Fleet, FleetPlan, Member, Run};
use crate::guest::{DEADLINE, POLL};
use crate::process::Vmm;

/// How long a fleet may take to end.
const END_PATIENCE: Duration = Duration::from_secs(30);
/// Clients that connect at a time and say nothing that makes sense.
const CLIENTS: usize = 80;
/// The disk of the guest that swaps has so much room, and the guest a swap disk of more.
const SMALL_DISK_MIB: u64 = 48;
/// What a squeezed process may use more than it does: the kernel refuses a limit below the charge.
const SLACK: u64 = 512 << 10;
/// Steps after which processes have all that they need, and before which they are not measured.
const WARM_UP: u64 = 30;
/// The longest own time of a round of the last supervisor.
const MOST_OF_A_ROUND_MS: f64 = 50.0;

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many steps.
    Steps(u64),
    /// As many steps as fit.
    Time(Duration),
}

/// Runs a fleet under chaos.
///
/// # Panics
/// When something does not hold.
#[track_caller]
pub fn run(seed: u64, length: Length) {
    println!("chaos: seed {seed}, {length:?}");
    let mut chaos = Chaos::begin();
    let mut steps = Steps::new(seed);
    let began = Instant::now();
    for number in 1.. {
        let is_over = match length {
            Length::Steps(most) => number > most,
            Length::Time(time) => began.elapsed() >= time,
        };
        if is_over {
            println!("chaos: {} steps in {:.0} s", number - 1, began.elapsed().as_secs_f64());
            break;
        }
        chaos.take(steps.next(), number);
    }
    chaos.end();
}

/// A fleet, and what is known of it.
struct Chaos {
    fleet: Fleet,
    names: Names,
    steady: [Vmm; 2],
    /// What the processes of the steady guests and the present supervisor have needed at first.
    steady_at_first: Option<[Footprint; 2]>,
    supervisor_at_first: Option<Footprint>,
    /// The step at which the present supervisor began.
    supervisor_since: u64,
    /// All supervisors so far.
    supervisors: Vec<u32>,
    victims: Vec<u32>,
    disk: Option<SmallDisk>,
    /// How often each kind of step had an effect.
    done: BTreeMap<&'static str, u64>,
}

/// The guests' names, which no other test has.
struct Names {
    steady: [String; 2],
    victims: [String; 3],
}

impl Names {
    fn new() -> Self {
        let unique = |name: &str| format!("{name}-{}", std::process::id());
        Self { steady: ["ebb", "flow"].map(unique), victims: ["victim", "prey", "swapper"].map(unique) }
    }
}

impl Chaos {
    fn begin() -> Self {
        let names = Names::new();
        let disk = SmallDisk::mount(SMALL_DISK_MIB);
        let mut fleet = start(&names, disk.as_ref());
        let steady = [0, 1].map(|which| fleet.wait_for_guest(&names.steady[which]));
        let supervisors = vec![fleet.supervisor()];
        Self {
            fleet,
            names,
            steady,
            steady_at_first: None,
            supervisor_at_first: None,
            supervisor_since: 0,
            supervisors,
            victims: Vec::new(),
            disk,
            done: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: Step, number: u64) {
        match step {
            Step::Rest(time) => thread::sleep(time),
            Step::Kill { victim } => {
                if let Some(vmm) = self.victim(victim) {
                    self.victims.push(vmm.pid());
                    vmm.signal_if_alive(Signal::KILL);
                    self.count("killed");
                }
            }
            Step::Stop { guest, time } => {
                if let Some(vmm) = self.guest(guest) {
                    vmm.signal_if_alive(Signal::STOP);
                    thread::sleep(time);
                    vmm.signal_if_alive(Signal::CONT);
                    self.count("stopped");
                }
            }
            Step::Throttle { guest, time } => {
                if self.guest(guest).is_some_and(|vmm| throttle(vmm.pid(), time)) {
                    self.count("throttled");
                }
            }
            Step::Squeeze { victim } => {
                if self.victim(victim).is_some_and(|vmm| squeeze(&vmm)) {
                    self.count("squeezed");
                }
            }
            Step::KillSupervisor => self.replace_supervisor(number),
            Step::StopSupervisor(time) => {
                self.fleet.signal(crate::fleet::Receiver::Supervisor, Signal::STOP);
                thread::sleep(time);
                self.fleet.signal(crate::fleet::Receiver::Supervisor, Signal::CONT);
            }
            Step::ThrottleSupervisor(time) => {
                if throttle(self.fleet.supervisor(), time) {
                    self.count("throttled supervisor");
                }
            }
            Step::Clients => self.annoy(),
            Step::Check => self.check(number),
        }
        for vmm in &self.steady {
            assert!(vmm.is_alive(), "step {number}, {step:?}: {vmm:?} has ended\n{}", self.fleet.events());
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// Returns the process of a guest that may be killed, if it has one.
    fn victim(&self, place: usize) -> Option<Vmm> {
        Vmm::of_guest(&self.names.victims[place % self.names.victims.len()])
    }

    /// Returns the process of any guest.
    fn guest(&self, place: usize) -> Option<Vmm> {
        let steady = self.steady.get(place % (self.steady.len() + self.names.victims.len()));
        steady.cloned().or_else(|| self.victim(place))
    }

    /// Kills the supervisor, and has the next one take the guests over.
    fn replace_supervisor(&mut self, number: u64) {
        self.expect_no_growth(number);
        self.fleet.replace_supervisor();
        self.supervisors.push(self.fleet.supervisor());
        (self.supervisor_at_first, self.supervisor_since) = (None, number);
        self.count("killed supervisor");
        self.fleet.wait_for("supervisor that answers", |fleet| fleet.fleet_status());
    }

    /// Connects more clients than are served, which say what makes no sense.
    fn annoy(&self) {
        let socket = self.fleet.control_socket();
        let clients = (0..CLIENTS).filter_map(|client| {
            let mut stream = UnixStream::connect(&socket).ok()?;
            let _ = stream.write_all(&b"GET / HTTP/9\r\n\0\xff: :\r\n"[client % 20..]);
            Some(stream)
        });
        let clients: Vec<_> = clients.collect();
        thread::sleep(POLL);
        drop(clients);
    }

    /// Checks the accounts by the supervisor's own report.
    fn check(&mut self, number: u64) {
        let fleet = self.fleet.wait_for("status of the fleet", |fleet| fleet.fleet_status());
        assert_eq!(fleet["violations"], 0, "step {number}: {fleet}\n{}", self.fleet.events());
        let bytes = |key: &str| fleet[key].as_u64().unwrap_or_else(|| panic!("no {key} in {fleet}"));
        assert!(bytes("granted_bytes") <= bytes("pool_bytes"), "step {number}: {fleet}");
        if number >= WARM_UP && self.steady_at_first.is_none() {
            self.steady_at_first = Some([0, 1].map(|which| Footprint::of(self.steady[which].pid())));
        }
        if number >= self.supervisor_since + WARM_UP && self.supervisor_at_first.is_none() {
            self.supervisor_at_first = Some(Footprint::of(self.fleet.supervisor()));
        }
    }

    /// Checks that no process has collected descriptors, threads or memory.
    fn expect_no_growth(&self, number: u64) {
        if let Some(before) = &self.supervisor_at_first {
            let now = Footprint::of(self.fleet.supervisor());
            before.expect_no_growth(&now, &format!("supervisor, steps {} to {number}", self.supervisor_since));
        }
        for (vmm, before) in self.steady.iter().zip(self.steady_at_first.iter().flatten()) {
            before.without_memory().expect_no_growth(&Footprint::of(vmm.pid()), &format!("{vmm:?}, step {number}"));
        }
    }

    /// Ends the fleet, and checks all that has to hold then.
    fn end(mut self) {
        println!("chaos: {:?}", self.done);
        self.replace_supervisor(u64::MAX);
        for name in &self.names.steady {
            self.fleet.wait_for_line(&[&format!("  {name} "), "MiB; "]);
        }
        let pids = [&self.supervisors[..], &self.victims].concat();
        let all: Vec<Vmm> =
            self.names.steady.iter().chain(&self.names.victims).filter_map(|n| Vmm::of_guest(n)).collect();
        self.fleet.ask(&["down"]);
        let run = self.fleet.wait_for_end(END_PATIENCE);
        self.expect_right_report(&run);
        all.iter().for_each(Vmm::wait_until_gone);
        let left = sockets_below(&self.fleet.run_dir());
        assert!(left.is_empty(), "sockets are left: {left:?}");
        wait_until_no_group_is_left(&pids);
        drop(self.disk);
    }

    #[track_caller]
    fn expect_right_report(&self, run: &Run) {
        let report = run.report();
        assert_eq!(report["violations"], 0, "{run}");
        self.names.steady.iter().for_each(|name| run.expect_unharmed(name));
        let longest = report["supervisor"]["longest_own_round_ms"].as_f64();
        assert!(longest.is_some_and(|ms| ms < MOST_OF_A_ROUND_MS), "a round took {longest:?} ms\n{run}");
        assert!(!run.output.stderr.contains("panicked"), "{run}");
    }
}

fn start(names: &Names, disk: Option<&SmallDisk>) -> Fleet {
    let guest = |name, min_mib, max_mib, command_line| Member {
        name,
        image: app_image("memwalk"),
        min_mib,
        max_mib,
        command_line,
    };
    let [ebb, flow] = &names.steady;
    let [victim, prey, swapper] = &names.victims;
    let plan = FleetPlan::pool_mib(768)
        .with(&guest(ebb, 48, 384, "phases=224M:400ms,16M:400ms repeat"))
        .with(&guest(flow, 48, 384, "phases=16M:400ms,224M:400ms repeat"))
        .with(&guest(victim, 48, 256, "phases=160M:300ms,16M:500ms repeat"))
        .with_key("restart", "always")
        .with(&guest(prey, 32, 256, "phases=24M:200ms,200M:200ms repeat"))
        .with_key("restart", "always")
        .with(&Member { image: app_image("torture"), ..guest(swapper, 48, 64, "seconds=100000 threads=4") })
        .with_key("restart", "always")
        .with_key("swap", &format!("{}M", 4 * SMALL_DISK_MIB));
    let folder = disk.map(|disk| format!("TMPDIR={}", disk.folder().display()));
    plan.up_through(&["env"].into_iter().chain(folder.as_deref()).collect::<Vec<_>>())
}

/// Gives a process hardly any processor time for a while; returns whether that is permitted.
fn throttle(pid: u32, time: Duration) -> bool {
    let quota = Quota::set(pid);
    let is_set = quota.is_some();
    if is_set {
        thread::sleep(time);
    }
    is_set
}

/// Lowers the limit of a process's memory control group to what it uses, where it has a group of
/// its own: when it grows, the kernel ends that process alone. Returns whether it has one.
fn squeeze(vmm: &Vmm) -> bool {
    let Ok(Location { folder, .. }) = Location::of_process(vmm.pid()) else { return false };
    let is_alone = fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|pids| pids.lines().count() == 1);
    let is_ours = folder.file_name().is_some_and(|name| name.to_string_lossy().contains(&vmm.guest));
    let lower = |(charge, limit): &(&str, &str)| {
        let used = fs::read_to_string(folder.join(charge)).ok()?.trim().parse::<u64>().ok()?;
        fs::write(folder.join(limit), (used + SLACK).to_string()).ok()
    };
    let files = [("memory.usage_in_bytes", "memory.limit_in_bytes"), ("memory.current", "memory.max")];
    is_alone && is_ours && files.iter().any(|files| lower(files).is_some())
}

/// Returns all sockets in a folder and below it.
fn sockets_below(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sockets_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "sock" || extension == "qmp") {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Waits until no memory control group is left that one of these processes has made.
#[track_caller]
fn wait_until_no_group_is_left(pids: &[u32]) {
    // Making a group removes those of processes that are gone.
    let Ok(group) = MemoryGroup::create() else { return };
    let parent = group.folder().parent().expect("a group has a parent").to_owned();
    let left = || -> Vec<String> {
        let names = fs::read_dir(&parent).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| pids.iter().any(|pid| name.contains(&format!("aerostat-{pid}-")))).collect()
    };
    let start = Instant::now();
    while !left().is_empty() {
        assert!(start.elapsed() < DEADLINE, "control groups are left: {:?}", left());
        thread::sleep(POLL);
    }
}
