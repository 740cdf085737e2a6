//! A fake supervisor that serves the mailbox and publishes, and a server in front of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

use super::super::accept::{Limits, Peers};
use super::super::host_checks::{HostChecks, Starts};
use super::super::{MetricsListener, Server, ServerOptions};
use crate::control::client::Client;
use crate::control::publisher::publisher;
use crate::fleet::Fleet;
use crate::supervisor::{
    Answer, ApplyMode, Command, CommandError, Event, EventKind, FleetStatus, GuestState, GuestStatus, Inbox, Mailbox,
    Observer, Plan, Step, Version, mailbox,
};

/// What the test and the fake supervisor share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) guests: Vec<GuestStatus>,
    pub(super) version: u64,
    /// Events that are still to be published.
    pub(super) events: Vec<EventKind>,
    /// Whether guests that wait for memory get it.
    pub(super) has_memory: bool,
    /// Whether guests answer when they are inspected.
    pub(super) is_silent: bool,
    /// Commands that were carried out.
    pub(super) done: Vec<String>,
    /// Whether commands stay in the mailbox.
    pub(super) is_deaf: bool,
    pub(super) is_over: bool,
}

/// A server with a fake supervisor.
pub(super) struct Fixture {
    pub(super) directory: TempDir,
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) mailbox: Mailbox,
    server: Option<Server>,
    supervisor: Option<JoinHandle<()>>,
}

/// What a fixture is made with.
pub(super) struct Setup {
    pub(super) peers: Peers,
    pub(super) limits: Limits,
    pub(super) metrics: Option<MetricsListener>,
    /// What the host refuses.
    pub(super) refusal: Option<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { peers: Peers::of_this_process(), limits: Limits::default(), metrics: None, refusal: None }
    }
}

#[derive(Debug)]
struct FakeHost(Option<&'static str>);

impl HostChecks for FakeHost {
    fn check_pool(&self, _: &FleetStatus, _: FrameCount) -> Result<(), String> {
        self.0.map_or(Ok(()), |why| Err(why.into()))
    }

    fn check_fleet(&self, _: &FleetStatus, _: &Fleet, _: &Starts) -> Result<(), String> {
        self.0.map_or(Ok(()), |why| Err(why.into()))
    }
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(super) fn with(setup: Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("logs")).unwrap();
        let (mailbox, inbox) = mailbox().unwrap();
        let (publisher, feed) = publisher();
        let guests = ["web", "db"].map(|name| GuestStatus::for_tests(name, FrameCount::from_mib(512)));
        let shared = Shared { guests: guests.into(), version: 1, has_memory: true, ..Shared::default() };
        let shared = Arc::new(Mutex::new(shared));
        let theirs = Arc::clone(&shared);
        let supervisor = thread::spawn(move || supervise(&theirs, inbox, publisher));
        let options = ServerOptions {
            fleet: "demo".into(),
            listener: UnixListener::bind(directory.path().join("control.sock")).unwrap(),
            metrics: setup.metrics,
            mailbox: mailbox.clone(),
            feed,
            log_dir: Some(directory.path().join("logs")),
        };
        let host = Arc::new(FakeHost(setup.refusal));
        let server = Server::start_with(options, setup.peers, setup.limits, host).unwrap();
        Self { directory, shared, mailbox, server: Some(server), supervisor: Some(supervisor) }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Shared)) {
        change(&mut self.shared.lock().unwrap());
    }

    pub(super) fn done(&self) -> Vec<String> {
        self.shared.lock().unwrap().done.clone()
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    pub(super) fn log(&self, guest: &str) -> PathBuf {
        self.directory.path().join("logs").join(format!("{guest}.log"))
    }

    pub(super) fn client(&self) -> Client {
        let socket = self.socket();
        Client::new(move || UnixStream::connect(&socket))
    }

    pub(super) fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).unwrap()
    }

    /// Sends a request as it is, and returns all that comes until the connection ends.
    pub(super) fn raw(&self, request: &str) -> String {
        let mut stream = self.connect();
        // A server that has refused already does not read.
        let _ = stream.write_all(request.as_bytes());
        read_to_end(&mut stream)
    }

    /// Sends a request with a body.
    pub(super) fn send(&self, line: &str, body: &str) -> String {
        let length = body.len();
        self.raw(&format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"))
    }

    pub(super) fn end_run(&mut self) {
        self.change(|shared| shared.is_over = true);
        self.supervisor.take().unwrap().join().unwrap();
    }

    pub(super) fn stop_server(&mut self) {
        self.server.take().unwrap().stop();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.change(|shared| shared.is_over = true);
    }
}

/// Reads until the connection ends, in whatever way.
pub(super) fn read_to_end(stream: &mut UnixStream) -> String {
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(count) = stream.read(&mut part) {
        if count == 0 {
            break;
        }
        text.extend_from_slice(&part[..count]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The life of the fake supervisor.
fn supervise(shared: &Mutex<Shared>, mut inbox: Inbox, mut publisher: impl Observer) {
    loop {
        let pause = Timespec::try_from(Duration::from_millis(2)).unwrap();
        let _ = poll(&mut [PollFd::from_borrowed_fd(inbox.fd(), PollFlags::IN)], Some(&pause));
        let mut shared = shared.lock().unwrap();
        while let Some(request) = if shared.is_deaf { None } else { inbox.take() } {
            let answer = shared.execute(request.command);
            (request.reply)(answer);
        }
        let has_memory = shared.has_memory;
        for guest in shared.guests.iter_mut().filter(|guest| guest.state == GuestState::Queued && has_memory) {
            guest.state = GuestState::Running;
        }
        for what in std::mem::take(&mut shared.events) {
            publisher.on_event(&Event { at: Duration::from_secs(1), what });
        }
        let status = FleetStatus {
            version: Version(shared.version),
            guests: shared.guests.clone(),
            ..FleetStatus::for_tests(FrameCount::from_mib(512))
        };
        publisher.on_poll(&status);
        if shared.is_over {
            return;
        }
    }
}

impl Shared {
    fn guest(&mut self, name: &str) -> Result<&mut GuestStatus, CommandError> {
        let unknown = || CommandError::NoSuchGuest(name.to_owned());
        self.guests.iter_mut().find(|guest| guest.name == name).ok_or_else(unknown)
    }

    fn execute(&mut self, command: Command) -> Result<Answer, CommandError> {
        let name = format!("{command:?}");
        let answer = match command {
            Command::Start { guest, .. } | Command::Restart { guest } => {
                let guest = self.guest(&guest)?;
                if guest.state == GuestState::Running {
                    return Err(CommandError::WrongState { guest: guest.name.clone(), state: "runs already" });
                }
                guest.state = GuestState::Queued;
                guest.service.starts += 1;
                Answer::Starting(guest.service.starts)
            }
            Command::End { guest, .. } => {
                let guest = self.guest(&guest)?;
                guest.state = GuestState::Ended;
                Answer::Done(guest.service.version)
            }
            Command::Change { guest, change, expected } => {
                let guest = self.guest(&guest)?;
                let current = guest.service.version;
                if let Some(expected) = expected.filter(|expected| *expected != current) {
                    return Err(CommandError::Conflict { expected, current });
                }
                guest.limits.min = change.min.unwrap_or(guest.limits.min);
                guest.service.version.0 += 1;
                Answer::Done(guest.service.version)
            }
            Command::Target { guest, target } => {
                let guest = self.guest(&guest)?;
                if target.is_some_and(|target| target > guest.limits.max) {
                    return Err(CommandError::Invalid("the target is above max".into()));
                }
                guest.service.pinned = target;
                Answer::Done(guest.service.version)
            }
            Command::Pool { .. } => {
                self.version += 1;
                Answer::Done(Version(self.version))
            }
            Command::Apply { fleet, mode, .. } => {
                let present: BTreeSet<_> = self.guests.iter().map(|guest| guest.name.clone()).collect();
                let new = fleet.guests.iter().filter(|guest| !present.contains(&guest.name));
                let steps = new.map(|guest| Step::Add { guest: guest.name.clone() }).collect();
                self.done.push(match mode {
                    ApplyMode::DryRun => "plan".into(),
                    ApplyMode::CarryOut => "carry out".into(),
                });
                return Ok(Answer::Plan(Plan { steps }));
            }
            Command::Inspect { guest } => {
                self.guest(&guest)?;
                if !self.is_silent {
                    let line = |line: &str| EventKind::Inspected { guest: guest.clone(), line: line.into() };
                    self.events.extend([line("RIP 0x1000"), line("\x1b[2J 0x2000")]);
                }
                Answer::Done(Version(1))
            }
            Command::Shutdown | Command::HandOver => {
                self.is_over = true;
                Answer::Done(Version(self.version))
            }
        };
        self.done.push(name);
        Ok(answer)
    }
}
