//! A fleet run by `aerostat up`, the waits of a test on what it prints, and what it leaves behind.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Output, Reader, Running};
use crate::environment::aerostat;
use crate::guest::{DEADLINE, POLL};
use crate::process::Vmm;

/// What to run: a fleet file in the making.
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
    /// What it always keeps, in MiB.
    pub min_mib: u64,
    /// All the memory it has, in MiB.
    pub max_mib: u64,
    /// What its application is told.
    pub command_line: &'a str,
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The supervisor's process.
    Supervisor,
    /// All processes of its group, as with a key on a terminal.
    Zspage,
}

impl FleetPlan {
    /// A fleet without guests that shares so much.
    #[must_use]
    pub fn pool_mib(mib: u64) -> Self {
        Self { text: format!("pool = \"{mib}M\"\n") }
    }

    /// The same with one guest more.
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

    /// The same with a further key for the last guest, such as a disk.
    #[must_use]
    pub fn with_key(self, key: &str, value: &str) -> Self {
        Self { text: format!("{}{key} = \"{value}\"\n", self.text) }
    }

    /// Runs it until it is over, or until `limit`.
    ///
    /// # Panics
    /// When the command can't be started.
    #[must_use]
    #[track_caller]
    pub fn up(&self, limit: Option<Duration>) -> Fleet {
        self.up_with(limit, Reader::Files)
    }

    /// Runs it like [`Self::up`], but nobody reads what it prints, and nothing more can be written
    /// where it prints to.
    ///
    /// # Panics
    /// When the command can't be started.
    #[must_use]
    #[track_caller]
    pub fn up_unread(&self, limit: Option<Duration>) -> Fleet {
        self.up_with(limit, Reader::Nobody)
    }

    /// Runs it by way of the command `wrapper`, which is to become the command that its last
    /// arguments name.
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
        fs::write(path("fleet.toml"), &self.text).expect("a file can be made in a fresh temporary folder");
        words.extend([aerostat().into(), "up".into(), path("fleet.toml").into(), "--headless".into()]);
        words.extend(["--report".into(), path("report.json").into_os_string()]);
        words.extend(["--log-dir".into(), path("logs").into_os_string()]);
        words.extend(limit.iter().flat_map(|limit| ["--seconds".into(), OsString::from(limit.as_secs().to_string())]));
        Fleet { running: Running::start_with(&words, reader), folder }
    }
}

/// A fleet that runs. Ended when dropped.
#[derive(Debug)]
pub struct Fleet {
    running: Running,
    folder: TempDir,
}

/// A fleet's run, once it is over.
#[derive(Debug)]
pub struct Run {
    /// What the command printed, and its exit code.
    pub output: Output,
    /// All that happened, target changes included, a line each.
    pub events: String,
    report: String,
}

impl Fleet {
    /// What the command has printed so far.
    #[must_use]
    pub fn printed(&self) -> String {
        self.running.stdout()
    }

    /// All that has happened so far, target changes included, a line each.
    #[must_use]
    pub fn events(&self) -> String {
        fs::read_to_string(self.folder.path().join("logs/events.log")).unwrap_or_default()
    }

    /// What the guest `name` has logged so far.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("logs/{name}.log"))).unwrap_or_default()
    }

    /// How many descriptors the supervisor has open.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.running.pid());
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}")).count()
    }

    /// Waits until `probe` finds something.
    ///
    /// # Panics
    /// When the deadline passes, or the command ends without it.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            // The end is looked for first, so that what was printed last is seen in the same round.
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
    /// When the deadline passes, or the command ends without it.
    #[track_caller]
    pub fn wait_for_line(&mut self, words: &[&str]) -> String {
        self.wait_for(&format!("line with {words:?}"), |fleet| line_with(&fleet.printed(), words))
    }

    /// Waits until the VMM process of the guest `name` is there; returns it.
    ///
    /// # Panics
    /// When the deadline passes, or the command ends before.
    #[track_caller]
    pub fn wait_for_vmm(&mut self, name: &str) -> Vmm {
        let supervisor = self.running.pid();
        self.wait_for("VMM process", |_| Vmm::children_of(supervisor).into_iter().find(|vmm| vmm.guest == name))
    }

    /// Waits until the application of the guest `name` says what it does; returns the VMM process.
    ///
    /// # Panics
    /// When the deadline passes, or the command ends before.
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
            Receiver::Zspage => self.running.signal_group(signal),
        }
    }

    /// Waits for the end of the command, which is due within `patience`.
    ///
    /// # Panics
    /// When it does not end so soon.
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
                "it did not end within {patience:?}\nprinted:\n{printed}\nevents:\n{events}"
            );
            thread::sleep(POLL);
        };
        let report = fs::read_to_string(self.folder.path().join("report.json")).unwrap_or_default();
        Run { output, events: self.events(), report }
    }
}

impl Run {
    /// The report.
    ///
    /// # Panics
    /// When there is none, or it is no JSON.
    #[must_use]
    #[track_caller]
    pub fn report(&self) -> Value {
        serde_json::from_str(&self.report).unwrap_or_else(|error| panic!("{error}: {:?}\n{self}", self.report))
    }

    /// The report of the guest `name`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn guest(&self, name: &str) -> Value {
        let report = self.report();
        let guests = report["guests"].as_array().unwrap_or_else(|| panic!("no guests\n{self}"));
        guests.iter().find(|guest| guest["name"] == name).unwrap_or_else(|| panic!("no guest {name}\n{self}")).clone()
    }

    /// Expects that the guest `name`, an application that verifies its memory, found no error and
    /// ended well.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn expect_unharmed(&self, name: &str) {
        let guest = self.guest(name);
        let app = &guest["app"];
        assert_eq!(app["errors"], 0, "{name} found errors\n{self}");
        assert!(app["verified_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{name} verified nothing\n{self}");
        let exit = &guest["exit"];
        assert!(exit == "stopped" || exit == "success", "{name} did not end well: {exit}\n{self}");
    }

    /// Expects that the summary says of the guest `name` what `words` are.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn expect_in_summary(&self, name: &str, words: &str) {
        let (_, summary) = self.output.stdout.split_once("ran for").unwrap_or_else(|| panic!("no summary\n{self}"));
        // A guest's row begins with its name, and what helps to understand its end is indented
        // below.
        let mut lines = summary.lines().skip_while(|line| !line.starts_with(&format!("{name} ")));
        let row = lines.next().unwrap_or_else(|| panic!("no row for {name}\n{self}"));
        let mut block = [row].into_iter().chain(lines.take_while(|line| line.starts_with(' ')));
        assert!(block.any(|line| line.contains(words)), "{name}: no {words:?} in the summary\n{self}");
    }

    /// Expects this exit code.
    ///
    /// # Panics
    /// When it is another.
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

/// The first whole line of `text` that contains all `words`.
#[must_use]
pub fn line_with(text: &str, words: &[&str]) -> Option<String> {
    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.find(|line| words.iter().all(|word| line.contains(word))).map(|line| line.trim_end().to_owned())
}
