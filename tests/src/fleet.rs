//! A fleet that `aerostat up` runs: starts it, waits for what it prints, and reads its report and
//! logs.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{self, Output, Reader, Running};
use crate::environment::aerostat;
use crate::guest::{DEADLINE, POLL};
use crate::process::Vmm;

/// A fleet file that a test writes.
#[derive(Clone, Debug)]
pub struct FleetPlan {
    text: String,
}

/// One guest of a fleet.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its image.
    pub image: PathBuf,
    /// Memory that it always has, in MiB.
    pub min_mib: u64,
    /// Memory of its machine, in MiB.
    pub max_mib: u64,
    /// The command line of its application.
    pub command_line: &'a str,
}

/// The processes that get a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The supervisor's process.
    Supervisor,
    /// All processes of its group, as when a key is pressed on a terminal.
    Group,
}

impl FleetPlan {
    /// Makes a plan for a fleet that shares so much memory and has no guests yet.
    #[must_use]
    pub fn pool_mib(mib: u64) -> Self {
        Self { text: format!("pool = \"{mib}M\"\n") }
    }

    /// Sets the tax on idle memory.
    #[must_use]
    pub fn with_idle_tax(self, percent: u8) -> Self {
        Self { text: format!("idle_tax = {percent}\n{}", self.text) }
    }

    /// Takes QEMU as the machine of all guests that are started.
    #[must_use]
    pub fn under_qemu(self) -> Self {
        Self { text: format!("machine = \"qemu\"\n{}", self.text) }
    }

    /// Adds a machine that runs, by its QMP socket; its limits are in MiB.
    #[must_use]
    pub fn with_attached(self, name: &str, socket: &str, min_mib: u64, max_mib: u64) -> Self {
        let guest = format!(
            "[[guest]]\nname = \"{name}\"\nattach = {{ qmp = \"{socket}\" }}\nmin = \"{min_mib}M\"\nmax = \"{max_mib}M\"\n"
        );
        Self { text: self.text + &guest }
    }

    /// Adds a guest.
    #[must_use]
    pub fn with(self, member: &Member<'_>) -> Self {
        let Member { name, image, min_mib, max_mib, command_line } = member;
        let image = image.display();
        let guest = format!(
            "[[guest]]\nname = \"{name}\"\nimage = \"{image}\"\nmin = \"{min_mib}M\"\nmax = \"{max_mib}M\"\n\
             command_line = \"{command_line}\"\n"
        );
        Self { text: self.text + &guest }
    }

    /// Adds a key to the last guest, such as a disk.
    #[must_use]
    pub fn with_key(self, key: &str, value: &str) -> Self {
        Self { text: format!("{}{key} = \"{value}\"\n", self.text) }
    }

    /// Starts the fleet, which runs until all guests have ended or until `limit`.
    ///
    /// # Panics
    /// When the command can't be started.
    #[must_use]
    #[track_caller]
    pub fn up(&self, limit: Option<Duration>) -> Fleet {
        self.up_with(limit, Reader::Files)
    }

    /// Starts the fleet like [`Self::up`], but its output goes to a full pipe that is not read.
    ///
    /// # Panics
    /// When the command can't be started.
    #[must_use]
    #[track_caller]
    pub fn up_unread(&self, limit: Option<Duration>) -> Fleet {
        self.up_with(limit, Reader::FullPipe)
    }

    /// Starts the fleet by way of the command `wrapper`, which must execute the command that its
    /// last arguments name.
    ///
    /// # Panics
    /// When the command can't be started.
    #[must_use]
    #[track_caller]
    pub fn up_through(&self, wrapper: &[&str]) -> Fleet {
        self.start(wrapper.iter().map(OsString::from).collect(), None, Reader::Files)
    }

    #[track_caller]
    fn up_with(&self, limit: Option<Duration>, reader: Reader) -> Fleet {
        self.start(Vec::new(), limit, reader)
    }

    #[track_caller]
    fn start(&self, mut words: Vec<OsString>, limit: Option<Duration>, reader: Reader) -> Fleet {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| folder.path().join(name);
        self.write(&path("fleet.toml"));
        words.extend([aerostat().into(), "up".into(), path("fleet.toml").into(), "--headless".into()]);
        words.extend(["--report".into(), path("report.json").into_os_string()]);
        words.extend(["--plot".into(), path("plot.svg").into_os_string()]);
        words.extend(["--log-dir".into(), path("logs").into_os_string()]);
        words.extend(["--run-dir".into(), path("run").into_os_string()]);
        words.extend(limit.iter().flat_map(|limit| ["--seconds".into(), OsString::from(limit.as_secs().to_string())]));
        Fleet { running: Running::start_with(&words, reader), words, folder }
    }

    fn write(&self, path: &Path) {
        fs::write(path, &self.text).expect("a file can be made in a temporary folder");
    }
}

/// A running fleet. It is ended when the value is dropped.
#[derive(Debug)]
pub struct Fleet {
    running: Running,
    /// The command.
    words: Vec<OsString>,
    folder: TempDir,
}

/// The result of a fleet's run.
#[derive(Debug)]
pub struct Run {
    /// What the command printed, and its exit code.
    pub output: Output,
    /// All events, changes of targets included, a line each.
    pub events: String,
    /// The plot, as the text of an SVG file.
    pub plot: String,
    report: String,
}

impl Fleet {
    /// Returns what the command has printed so far.
    #[must_use]
    pub fn printed(&self) -> String {
        self.running.stdout()
    }

    /// Returns all events so far, changes of targets included, a line each.
    #[must_use]
    pub fn events(&self) -> String {
        fs::read_to_string(self.folder.path().join("logs/events.log")).unwrap_or_default()
    }

    /// Returns what the guest `name` has logged so far.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("logs/{name}.log"))).unwrap_or_default()
    }

    /// Counts the descriptors that the supervisor has open.
    ///
    /// # Panics
    /// When the supervisor has ended.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.running.pid());
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}")).count()
    }

    /// Applies another plan to the fleet, as a user does who has edited the fleet's file.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn apply(&self, plan: &FleetPlan) {
        let path = self.folder.path().join("fleet.toml");
        plan.write(&path);
        self.ask(&["apply", path.to_str().expect("temporary paths are text")]);
    }

    /// Returns the status of the guest `name`, as the control interface has it; `None` while the
    /// fleet is starting.
    ///
    /// # Panics
    /// When the status is not JSON.
    #[must_use]
    #[track_caller]
    pub fn status(&self, name: &str) -> Option<Value> {
        let output = self.command(&["stats", name, "--json"]);
        let read = || serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        output.status.success().then(read)
    }

    /// Returns the status of the fleet itself, as [`Self::status`] does that of a guest.
    ///
    /// # Panics
    /// When the status is not JSON.
    #[must_use]
    #[track_caller]
    pub fn fleet_status(&self) -> Option<Value> {
        let output = self.command(&["stats", "--json"]);
        let read = || serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        output.status.success().then(read)
    }

    /// Returns the number of the supervisor's process.
    #[must_use]
    pub fn supervisor(&self) -> u32 {
        self.running.pid().as_raw_nonzero().get().unsigned_abs()
    }

    /// Returns the folder for run directories.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Returns the path of the control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir().join("fleet/control.sock")
    }

    /// Runs a command on the fleet that succeeds; returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> String {
        let output = self.command(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        output.stdout
    }

    fn command(&self, words: &[&str]) -> Output {
        let run_dir = self.folder.path().join("run");
        let words = words.iter().map(OsString::from).chain(["--run-dir".into(), run_dir.into_os_string()]);
        command::run(words)
    }

    /// Waits until `probe` finds something.
    ///
    /// # Panics
    /// When the deadline passes or the command ends first.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            // Before the probe, so that the probe sees all that was printed before the end.
            let output = self.running.output();
            if let Some(found) = probe(self) {
                return found;
            }
            let events = self.events();
            assert!(output.is_none(), "the run ended without {what}: {output:?}\nevents:\n{events}");
            let printed = self.printed();
            assert!(start.elapsed() < DEADLINE, "no {what} in time\nprinted:\n{printed}\nevents:\n{events}");
            thread::sleep(POLL);
        }
    }

    /// Waits for a printed line that contains all `words`; returns it.
    ///
    /// # Panics
    /// When the deadline passes or the command ends first.
    #[track_caller]
    pub fn wait_for_line(&mut self, words: &[&str]) -> String {
        self.wait_for(&format!("line with {words:?}"), |fleet| line_with(&fleet.printed(), words))
    }

    /// Waits until the VMM process of the guest `name` runs; returns it.
    ///
    /// # Panics
    /// When the deadline passes or the command ends first.
    #[track_caller]
    pub fn wait_for_vmm(&mut self, name: &str) -> Vmm {
        let supervisor = self.running.pid();
        self.wait_for("VMM process", |_| Vmm::children_of(supervisor).into_iter().find(|vmm| vmm.guest == name))
    }

    /// Waits until the application of the guest `name` reports what it does; returns the VMM
    /// process.
    ///
    /// # Panics
    /// When the deadline passes or the command ends first.
    #[track_caller]
    pub fn wait_for_guest(&mut self, name: &str) -> Vmm {
        self.wait_for_line(&[&format!("  {name} "), "MiB; "]);
        self.wait_for_vmm(name)
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the command has ended.
    pub fn signal(&self, receiver: Receiver, signal: Signal) {
        match receiver {
            Receiver::Supervisor => self.running.signal(signal),
            Receiver::Group => self.running.signal_group(signal),
        }
    }

    /// Kills the supervisor and starts another one with the same command. What the first one
    /// printed is gone.
    ///
    /// # Panics
    /// When the command has ended before.
    #[track_caller]
    pub fn replace_supervisor(&mut self) {
        self.kill_supervisor();
        self.start_again();
    }

    /// Starts another supervisor with the same command, once the first one is gone.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.running = Running::start_with(&self.words, Reader::Files);
    }

    /// Kills the supervisor, and waits until it is gone.
    ///
    /// # Panics
    /// When it has ended before by itself.
    #[track_caller]
    pub fn kill_supervisor(&mut self) {
        let ended = self.running.output();
        assert!(ended.is_none(), "the run has ended: {ended:?}\nevents:\n{}", self.events());
        self.signal(Receiver::Supervisor, Signal::KILL);
        self.wait_for_end(DEADLINE);
    }

    /// Waits at most `patience` for the end of the command; returns the result.
    ///
    /// # Panics
    /// When the command does not end in time.
    #[track_caller]
    pub fn wait_for_end(&mut self, patience: Duration) -> Run {
        let start = Instant::now();
        let output = loop {
            if let Some(output) = self.running.output() {
                break output;
            }
            let (printed, events) = (self.printed(), self.events());
            assert!(
                start.elapsed() < patience,
                "the command did not end within {patience:?}\nprinted:\n{printed}\nevents:\n{events}"
            );
            thread::sleep(POLL);
        };
        let written = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        Run { output, events: self.events(), plot: written("plot.svg"), report: written("report.json") }
    }
}

impl Run {
    /// Returns the report.
    ///
    /// # Panics
    /// When there is no report, or it is not valid JSON.
    #[must_use]
    #[track_caller]
    pub fn report(&self) -> Value {
        serde_json::from_str(&self.report).unwrap_or_else(|error| panic!("{error}: {:?}\n{self}", self.report))
    }

    /// Returns the part of the report about the guest `name`.
    ///
    /// # Panics
    /// When there is no such part.
    #[must_use]
    #[track_caller]
    pub fn guest(&self, name: &str) -> Value {
        let report = self.report();
        let guests = report["guests"].as_array().unwrap_or_else(|| panic!("no guests\n{self}"));
        guests.iter().find(|guest| guest["name"] == name).unwrap_or_else(|| panic!("no guest {name}\n{self}")).clone()
    }

    /// Asserts that the guest `name`, whose application verifies its memory, found no error and
    /// ended in order.
    ///
    /// # Panics
    /// When it found an error, verified nothing or ended otherwise.
    #[track_caller]
    pub fn expect_unharmed(&self, name: &str) {
        let guest = self.guest(name);
        let app = &guest["app"];
        assert_eq!(app["errors"], 0, "{name} found errors\n{self}");
        assert!(app["verified_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{name} verified nothing\n{self}");
        let exit = &guest["exit"];
        assert!(exit == "stopped" || exit == "success", "{name} did not end in order: {exit}\n{self}");
    }

    /// Asserts that the summary has `words` in its lines about the guest `name`.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn expect_in_summary(&self, name: &str, words: &str) {
        let (_, summary) = self.output.stdout.split_once("ran for").unwrap_or_else(|| panic!("no summary\n{self}"));
        // A guest's row begins with its name. Indented lines below it explain how the guest ended.
        let mut lines = summary.lines().skip_while(|line| !line.starts_with(&format!("{name} ")));
        let row = lines.next().unwrap_or_else(|| panic!("no row for {name}\n{self}"));
        let mut block = [row].into_iter().chain(lines.take_while(|line| line.starts_with(' ')));
        assert!(block.any(|line| line.contains(words)), "{name}: no {words:?} in the summary\n{self}");
    }

    /// Asserts that the command ended with this exit code.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn expect_exit_code(&self, code: i32) {
        assert_eq!(self.output.status.code(), Some(code), "\n{self}");
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Output { status, stdout, stderr } = &self.output;
        write!(f, "{status}\nprinted:\n{stdout}\nerrors:\n{stderr}\nevents:\n{}", self.events)
    }
}

/// Returns the first whole line of `text` that contains all `words`.
#[must_use]
pub fn line_with(text: &str, words: &[&str]) -> Option<String> {
    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.find(|line| words.iter().all(|word| line.contains(word))).map(|line| line.trim_end().to_owned())
}
