//! One machine under QEMU: what is known of it, and what to ask or tell it next. Pure.
//!
//! After each connection the tracker asks what the machine is: whether it runs, its memory, its
//! balloon device. Then it asks for the guest's size and statistics, often while the guest moves
//! and else once a second, and sends targets and farewells in between.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::units::FrameCount;
use serde_json::Value;

use super::qmp::{Command, CommandError, QmpEvent, ShutdownCause};
use super::statistics::BalloonStatistics;
use super::target::{Departure, Target};
use super::usage::{Sizes, UsageWatch};
use crate::clock::Moment;
use crate::fleet::DetachRule;
use crate::host::{GuestEvent, Observation, Reports};

/// How often the size is asked for while the guest moves to its target.
const MOVING: Duration = Duration::from_millis(200);
/// The same while it stands still. Drivers report once a second at most.
const AT_REST: Duration = Duration::from_secs(1);
/// How often QEMU is to ask the driver for statistics, in seconds: as often as it can.
const STATISTICS_S: u64 = 1;
/// How long a guest may run without reporting anything before it counts as one of fixed size.
const SPEECHLESS: Duration = Duration::from_secs(10);
/// Where QEMU keeps devices that have a name, and those that have none.
const DEVICES: [&str; 2] = ["/machine/peripheral", "/machine/peripheral-anon"];
const STATISTICS: &str = "guest-stats";
const INTERVAL: &str = "guest-stats-polling-interval";

/// Who has started the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This program, and its guest starts with the first target.
    Us {
        /// The target.
        first: FrameCount,
    },
    /// Another program. The guest keeps its size until it is told another.
    Others,
}

/// What is known of the machine's balloon device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Device {
    #[default]
    Unknown,
    None,
    At(String),
}

/// Whether the machine's processors are to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Motion {
    Stopped,
    Running,
}

impl Motion {
    const fn command(self) -> Command {
        match self {
            Self::Stopped => Command::Stop,
            Self::Running => Command::Continue,
        }
    }
}

/// A machine.
#[derive(Debug)]
pub(super) struct Tracker {
    owner: Owner,
    /// Commands to be sent before others.
    queue: VecDeque<Command>,
    /// Answers of the first questions that have not come.
    unanswered: usize,
    /// Whether all of those have come, over one connection or more.
    is_known: bool,
    /// Whether a poll waits for its answers.
    is_polling: bool,
    next_poll: Moment,
    machine: Option<FrameCount>,
    device: Device,
    size: Option<FrameCount>,
    target: Target,
    usage: UsageWatch,
    /// What was ordered last of the machine's processors.
    motion: Option<Motion>,
    /// Whether QEMU was told that over this connection.
    is_motion_sent: bool,
    /// How often QEMU asked the driver for statistics before.
    interval_before: Option<u64>,
    /// Since when the machine has run, if it runs.
    running: Option<Moment>,
    /// When it ran for the first time.
    began: Option<Moment>,
    /// The last sign of life while it ran.
    last_heard: Option<Moment>,
    shutdown: Option<ShutdownCause>,
    /// Whether it was reported that the guest's size is fixed.
    is_fixed: bool,
    /// Answers that the farewell still needs; `None` before it.
    farewell: Option<usize>,
    events: Vec<GuestEvent>,
}

impl Tracker {
    pub(super) fn new(owner: Owner) -> Self {
        let first = match owner {
            Owner::Us { first } => Some(first),
            Owner::Others => None,
        };
        Self {
            owner,
            queue: VecDeque::new(),
            unanswered: 0,
            is_known: false,
            is_polling: false,
            next_poll: Moment::default(),
            machine: None,
            device: Device::Unknown,
            size: None,
            target: Target::new(first),
            usage: UsageWatch::default(),
            motion: None,
            is_motion_sent: false,
            interval_before: None,
            running: None,
            began: None,
            last_heard: None,
            shutdown: None,
            is_fixed: false,
            farewell: None,
            events: Vec::new(),
        }
    }

    /// Records that QEMU accepts commands.
    pub(super) fn connected(&mut self) {
        self.queue.clear();
        self.queue.extend([Command::QueryStatus, Command::QueryMemorySize]);
        self.queue.extend(DEVICES.map(|path| Command::List { path: path.to_owned() }));
        self.device = Device::Unknown;
        self.unanswered = self.queue.len();
        self.is_polling = false;
        self.next_poll = Moment::default();
    }

    /// Records that the connection was lost.
    pub(super) fn disconnected(&mut self) {
        self.queue.clear();
        self.target.disconnected();
        self.is_motion_sent = false;
    }

    /// Stops the machine's processors, or lets them go on.
    pub(super) fn set_motion(&mut self, motion: Motion) {
        (self.motion, self.is_motion_sent) = (Some(motion), false);
    }

    /// Sets the size that the guest is to have.
    pub(super) fn order(&mut self, target: FrameCount, epoch: Epoch) {
        self.target.order(target, epoch);
    }

    /// Begins to leave the machine; [`Self::has_left`] says when that is done.
    pub(super) fn part(&mut self, rule: DetachRule) {
        self.queue.clear();
        if self.motion == Some(Motion::Stopped) {
            self.queue.push_back(Command::Continue);
        }
        let Device::At(path) = &self.device else {
            self.farewell = Some(self.queue.len());
            return;
        };
        if let (DetachRule::Deflate, Some(machine)) = (rule, self.machine) {
            self.queue.push_back(Command::Balloon(machine));
        }
        if let Some(value) = self.interval_before {
            self.queue.push_back(Command::Set { path: path.clone(), property: INTERVAL, value });
        }
        self.farewell = Some(self.queue.len());
    }

    /// Ends the machine.
    pub(super) fn quit(&mut self) {
        self.queue.clear();
        self.queue.push_back(Command::Quit);
    }

    /// Returns whether all is done for leaving the machine.
    pub(super) fn has_left(&self) -> bool {
        self.farewell == Some(0)
    }

    /// Returns the next command to be sent, which counts as sent.
    pub(super) fn next_command(&mut self, now: Moment) -> Option<Command> {
        if let Some(command) = self.queue.pop_front() {
            return Some(command);
        }
        if self.unanswered > 0 || self.farewell.is_some() {
            return None;
        }
        if let Some(motion) = self.motion.filter(|_| !self.is_motion_sent) {
            self.is_motion_sent = true;
            return Some(motion.command());
        }
        if let Some(target) = self.target.take(now) {
            if let Device::At(_) = self.device {
                return Some(Command::Balloon(target));
            }
            self.target.set(target);
        }
        if self.is_polling || now < self.next_poll {
            return None;
        }
        self.is_polling = true;
        match &self.device {
            Device::At(path) => {
                self.queue.push_back(Command::Get { path: path.clone(), property: STATISTICS });
                Some(Command::QueryBalloon)
            }
            Device::None | Device::Unknown => Some(Command::QueryStatus),
        }
    }

    /// Returns when [`Self::next_command`] returns something, if nothing is received before.
    pub(super) fn due(&self) -> Option<Moment> {
        let poll = (!self.is_polling && self.unanswered == 0).then_some(self.next_poll);
        [poll, self.target.due()].into_iter().flatten().min()
    }

    /// Records an answer.
    pub(super) fn answered(&mut self, command: &Command, result: Result<Value, CommandError>, now: Moment) {
        if let Some(left) = &mut self.farewell {
            *left = left.saturating_sub(1);
            return;
        }
        if self.running.is_some() {
            self.last_heard = Some(now);
        }
        match (command, result) {
            (Command::QueryStatus, Ok(status)) => self.note_status(&status, now),
            (Command::QueryMemorySize, Ok(sizes)) => self.note_memory(&sizes),
            (Command::List { path }, Ok(children)) => self.note_devices(path, &children),
            (Command::QueryBalloon, Ok(balloon)) => self.note_balloon(&balloon, now),
            (Command::Get { property: INTERVAL, path }, Ok(interval)) => {
                let path = path.clone();
                self.note_interval(path, &interval);
            }
            (Command::Get { property: STATISTICS, .. }, Ok(statistics)) => self.note_statistics(&statistics),
            (Command::Balloon(target), Ok(_)) => self.target.set(*target),
            (Command::Balloon(target), Err(error)) => {
                self.target.set(*target);
                self.report(format!("QEMU does not set the size: {error}"));
            }
            // The device was unplugged, or has no driver: its size is the machine's.
            (Command::QueryBalloon, Err(error)) if error.class == "DeviceNotActive" => self.device = Device::None,
            (_, _) => {}
        }
        self.count_answer(command, now);
    }

    /// Records an event.
    pub(super) fn heard(&mut self, event: QmpEvent, now: Moment) {
        match event {
            QmpEvent::BalloonChange(size) => self.note_size(size, now),
            QmpEvent::Shutdown(cause) => self.shutdown = Some(cause),
            QmpEvent::Reset => self.usage.forget(),
            QmpEvent::Stop => self.running = None,
            QmpEvent::Resume => self.runs(now),
            QmpEvent::GuestPanicked => self.report("the guest's kernel has panicked".to_owned()),
            QmpEvent::Powerdown => {}
        }
    }

    /// Returns whether it is known what the machine is.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Returns all memory of the machine.
    pub(super) fn machine(&self) -> Option<FrameCount> {
        self.machine
    }

    /// Returns the guest's size.
    pub(super) fn size(&self) -> Option<FrameCount> {
        self.size
    }

    /// Returns why the machine has shut down, if it has.
    pub(super) fn shutdown(&self) -> Option<ShutdownCause> {
        self.shutdown
    }

    /// Returns what is known.
    pub(super) fn observation(&self) -> Observation {
        let size = self.published_size();
        let balloon = self.machine.zip(size).map(|(machine, size)| machine.saturating_sub(size));
        let report = self.usage.report();
        Observation {
            acknowledged: Some(self.target.acknowledged()),
            size,
            balloon,
            last_call: self.last_heard,
            running: self.began,
            statistics: report.map(|report| report.to_report(balloon.unwrap_or_default())),
            reports: match self.usage.usage() {
                Some(usage) => Reports::Derived(usage),
                None if self.is_fixed => Reports::Never,
                None => Reports::Awaited,
            },
            ..Observation::default()
        }
    }

    /// Returns the events since the last call.
    pub(super) fn take_events(&mut self) -> Vec<GuestEvent> {
        std::mem::take(&mut self.events)
    }

    /// Returns the size, once it means something: the driver of a guest that has just been started
    /// has not inflated its balloon yet, and what the guest uses is what is resident.
    fn published_size(&self) -> Option<FrameCount> {
        let has_driver = self.usage.report().is_some() || self.size != self.machine;
        match self.owner {
            Owner::Us { .. } if !has_driver && !self.is_fixed => None,
            Owner::Us { .. } | Owner::Others => self.size,
        }
    }

    fn note_status(&mut self, status: &Value, now: Moment) {
        match status.get("running").and_then(Value::as_bool) {
            Some(true) => self.runs(now),
            _ => self.running = None,
        }
    }

    fn runs(&mut self, now: Moment) {
        self.running.get_or_insert(now);
        self.began.get_or_insert(now);
        self.last_heard = Some(now);
    }

    fn note_memory(&mut self, sizes: &Value) {
        let bytes = |key: &str| sizes.get(key).and_then(Value::as_u64);
        if let Some(base) = bytes("base-memory") {
            let all = base.saturating_add(bytes("plugged-memory").unwrap_or_default());
            self.machine = Some(FrameCount::from_bytes_floor(all));
        }
    }

    fn note_devices(&mut self, path: &str, children: &Value) {
        let text = |child: &Value, key: &str| child.get(key).and_then(Value::as_str).map(str::to_owned);
        let is_balloon = |child: &&Value| text(child, "type").is_some_and(|kind| kind.contains("<virtio-balloon"));
        let found = children.as_array().into_iter().flatten().find(is_balloon);
        if let Some(name) = found.and_then(|child| text(child, "name")) {
            let path = format!("{path}/{name}");
            self.device = Device::At(path.clone());
            self.queue.push_back(Command::Get { path, property: INTERVAL });
            self.queue.push_back(Command::QueryBalloon);
            self.unanswered += 2;
        }
    }

    /// Has QEMU ask the driver for statistics, unless another program has set that to be done
    /// often.
    fn note_interval(&mut self, path: String, interval: &Value) {
        let Some(seconds) = interval.as_u64() else { return };
        if seconds != STATISTICS_S {
            self.interval_before.get_or_insert(seconds);
            self.queue.push_back(Command::Set { path, property: INTERVAL, value: STATISTICS_S });
        }
    }

    fn note_balloon(&mut self, balloon: &Value, now: Moment) {
        if let Some(bytes) = balloon.get("actual").and_then(Value::as_u64) {
            self.note_size(FrameCount::from_bytes_floor(bytes), now);
        }
    }

    fn note_size(&mut self, size: FrameCount, now: Moment) {
        let size = self.machine.map_or(size, |machine| size.min(machine));
        self.size = Some(size);
        if let Some(Departure { target, size }) = self.target.observe(size, now) {
            self.report(format!(
                "the guest has left its target {target} for {size}: another program sets its balloon, or it lacked \
                 memory; the target is not sent again before it changes, or 30 s have passed"
            ));
        }
    }

    fn note_statistics(&mut self, statistics: &Value) {
        let Some(report) = BalloonStatistics::decode(statistics) else { return };
        if let (Some(machine), Some(size)) = (self.machine, self.size) {
            self.usage.observe(report, Sizes { machine, size });
        }
        self.is_fixed &= self.usage.usage().is_none();
    }

    /// Counts an answer to the first questions or to a poll.
    fn count_answer(&mut self, command: &Command, now: Moment) {
        let is_first = matches!(
            command,
            Command::QueryMemorySize
                | Command::List { .. }
                | Command::QueryStatus
                | Command::QueryBalloon
                | Command::Get { property: INTERVAL, .. }
        );
        if self.unanswered > 0 {
            self.unanswered -= usize::from(is_first);
            if self.unanswered == 0 {
                self.conclude_first_questions(now);
            }
            return;
        }
        let ends_poll = match &self.device {
            Device::At(_) => matches!(command, Command::Get { property: STATISTICS, .. }),
            Device::None | Device::Unknown => *command == Command::QueryStatus || *command == Command::QueryBalloon,
        };
        if ends_poll {
            self.is_polling = false;
            self.next_poll = now.after(if self.target.is_moving() { MOVING } else { AT_REST });
            self.check_reports(now);
        }
    }

    fn conclude_first_questions(&mut self, now: Moment) {
        if self.device == Device::Unknown {
            self.device = Device::None;
        }
        self.is_known = self.machine.is_some();
        self.check_reports(now);
    }

    /// Finds out that the size of the guest is fixed.
    fn check_reports(&mut self, now: Moment) {
        if self.device == Device::None {
            self.size = self.machine;
        }
        let is_speechless = self.usage.usage().is_none() && self.running.is_some_and(|at| now.since(at) >= SPEECHLESS);
        let why = match (&self.device, self.usage.report()) {
            (Device::None, _) => "the machine has no virtio-balloon device",
            (_, None) if is_speechless => {
                "the guest reports no memory statistics: it has no balloon driver, or one that does not report"
            }
            (_, Some(_)) if is_speechless => {
                "the guest's statistics say too little: neither what is available nor free"
            }
            _ => return,
        };
        if !std::mem::replace(&mut self.is_fixed, true) {
            let size = self.size.unwrap_or_default();
            self.report(format!("{why}; it counts as a guest of fixed size, {size}"));
        }
    }

    fn report(&mut self, what: String) {
        self.events.push(GuestEvent::Problem(what));
    }
}
