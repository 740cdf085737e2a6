//! The thread of one guest under QEMU: owns the connection, carries out what the supervisor wants,
//! and publishes what is known. The supervisor's thread never waits for QEMU: it takes one of two
//! locks for the copy of a few words.
//!
//! A connection that is lost is made again, after growing pauses. What was published last stays
//! meanwhile, and the guest counts as silent after a while.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::units::FrameCount;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::Pid;

use super::connection::{Connection, Socket};
use super::memory::{StatusFile, own_memory};
use super::qmp::ShutdownCause;
use super::tracker::{Motion, Tracker};
use crate::clock::Moment;
use crate::fleet::DetachRule;
use crate::host::{GuestEvent, Observation, log_file};

/// Pauses before a connection is made again: the first, and the longest. They double.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long leaving a machine may take.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);
/// How often QEMU's own memory is measured.
const MEASURE: Duration = Duration::from_secs(2);
/// Bytes of a log in one generation.
const LONGEST_LOG: u64 = 16 << 20;
/// Events that may wait for the supervisor.
const MOST_EVENTS: usize = 64;

/// How the supervisor ends its part in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// The machine runs on, with the balloon as the rule says.
    Detach(DetachRule),
    /// The machine is ended.
    Quit,
    /// Nothing is said to the machine any more.
    HangUp,
}

/// What the thread and the handle share.
#[derive(Debug)]
pub(super) struct Desk {
    orders: Mutex<Orders>,
    /// Rings for the thread.
    bell: OwnedFd,
    published: Mutex<Published>,
    /// Rings for the supervisor.
    news: OwnedFd,
}

#[derive(Debug, Default)]
struct Orders {
    target: Option<(FrameCount, Epoch)>,
    motion: Option<Motion>,
    parting: Option<Parting>,
}

/// What the thread has found.
#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    pub(super) observation: Observation,
    pub(super) events: Vec<GuestEvent>,
    /// Why the machine has shut down, if it has.
    pub(super) shutdown: Option<ShutdownCause>,
    /// Memory that QEMU has of its own.
    pub(super) own: FrameCount,
    /// Whether the thread has ended: it has parted from the machine.
    pub(super) has_parted: bool,
    /// Whether the connection is lost.
    pub(super) is_cut_off: bool,
}

impl Desk {
    pub(super) fn new(observation: Observation) -> std::io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            orders: Mutex::default(),
            bell: eventfd(0, flags)?,
            published: Mutex::new(Published { observation, ..Published::default() }),
            news: eventfd(0, flags)?,
        })
    }

    /// Has the thread send a target.
    pub(super) fn order(&self, target: FrameCount, epoch: Epoch) {
        lock(&self.orders).target = Some((target, epoch));
        ring(&self.bell);
    }

    /// Has the thread stop the machine's processors, or let them go on.
    pub(super) fn set_motion(&self, motion: Motion) {
        lock(&self.orders).motion = Some(motion);
        ring(&self.bell);
    }

    /// Has the thread part from the machine. What was asked for first counts, except that hanging
    /// up is always obeyed.
    pub(super) fn part(&self, how: Parting) {
        let mut orders = lock(&self.orders);
        if orders.parting.is_none() || how == Parting::HangUp {
            orders.parting = Some(how);
        }
        drop(orders);
        ring(&self.bell);
    }

    /// Returns a descriptor that is readable when the thread has news.
    pub(super) fn news_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Silences the descriptor until there are further news.
    pub(super) fn hear(&self) {
        let _ = rustix::io::read(&self.news, &mut [0; 8]);
    }

    pub(super) fn published(&self) -> MutexGuard<'_, Published> {
        lock(&self.published)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ring(bell: &OwnedFd) {
    // Full only where it was written 2^64 times, and readable then.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

/// How a turn has left the contact with QEMU.
#[derive(Debug)]
enum Contact {
    Established,
    AsBefore,
    /// Why.
    Lost(String),
}

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) socket: Socket,
    /// The process behind the socket. Another one is another machine.
    pub(super) process: Option<Pid>,
    pub(super) tracker: Tracker,
    pub(super) desk: Arc<Desk>,
    pub(super) status: Option<Arc<StatusFile>>,
    /// The log that QEMU writes for us.
    pub(super) log: Option<PathBuf>,
}

impl Worker {
    /// Starts the thread, with a connection over which the machine was found out about.
    pub(super) fn start(mut self, connection: Connection) -> std::io::Result<()> {
        thread::Builder::new().name("qemu".to_owned()).spawn(move || self.run(connection)).map(drop)
    }

    fn run(&mut self, connection: Connection) {
        let mut connection = Some(connection);
        let mut pause = FIRST_PAUSE;
        let mut measured = Moment::default();
        let mut deadline = None;
        loop {
            let now = Moment::now();
            if let Some(parting) = self.take_orders() {
                let cut_off = connection.as_ref().is_none_or(|connection| !connection.is_ready());
                if parting == Parting::HangUp || (cut_off && parting != Parting::Quit) {
                    break;
                }
                let until = *deadline.get_or_insert_with(|| {
                    match parting {
                        Parting::Detach(rule) => self.tracker.part(rule),
                        Parting::Quit | Parting::HangUp => self.tracker.quit(),
                    }
                    now.after(FAREWELL_PATIENCE)
                });
                if self.tracker.has_left() || now >= until {
                    break;
                }
            }
            if now.since(measured) >= MEASURE {
                measured = now;
                self.measure();
                // A log that can't be cut only grows.
                let _ = self.log.as_deref().map(|log| log_file::cut(log, LONGEST_LOG));
            }
            let until = deadline.unwrap_or(measured.after(MEASURE));
            let result = match &mut connection {
                Some(open) => {
                    let result = open.turn(&mut self.tracker, Some(self.desk.bell.as_fd()), until);
                    if open.is_ready() {
                        pause = FIRST_PAUSE;
                    }
                    result.map_err(|error| error.to_string())
                }
                None => {
                    wait(&self.desk.bell, pause);
                    pause = LONGEST_PAUSE.min(2 * pause);
                    self.reconnect().map(|open| connection = Some(open))
                }
            };
            let contact = match result {
                Ok(()) if connection.as_ref().is_some_and(Connection::is_ready) => Contact::Established,
                Ok(()) => Contact::AsBefore,
                Err(why) => Contact::Lost(why),
            };
            if matches!(contact, Contact::Lost(_)) {
                connection = None;
                self.tracker.disconnected();
            }
            self.publish(contact);
        }
        self.desk.published().has_parted = true;
        ring(&self.desk.news);
    }

    /// Takes in what the supervisor wants.
    fn take_orders(&mut self) -> Option<Parting> {
        let _ = rustix::io::read(&self.desk.bell, &mut [0; 8]);
        let mut orders = lock(&self.desk.orders);
        if let Some((target, epoch)) = orders.target.take() {
            self.tracker.order(target, epoch);
        }
        if let Some(motion) = orders.motion.take() {
            self.tracker.set_motion(motion);
        }
        orders.parting
    }

    fn reconnect(&self) -> Result<Connection, String> {
        let connection = self.socket.connect(Moment::now()).map_err(|error| format!("its QMP socket {error}"))?;
        match (self.process, connection.peer()) {
            (Some(before), Some(now)) if before != now && matches!(self.socket, Socket::At(_)) => {
                Err("its QMP socket belongs to another process now".into())
            }
            _ => Ok(connection),
        }
    }

    /// Publishes what is known. A loss of the connection is reported once, however many attempts to
    /// make it again fail.
    fn publish(&mut self, contact: Contact) {
        let mut published = self.desk.published();
        let page_tables = published.observation.page_tables;
        published.observation = Observation { page_tables, ..self.tracker.observation() };
        published.shutdown = self.tracker.shutdown();
        let mut events = self.tracker.take_events();
        let was_cut_off = published.is_cut_off;
        match contact {
            Contact::Established => published.is_cut_off = false,
            Contact::AsBefore => {}
            Contact::Lost(why) => {
                published.is_cut_off = true;
                // A machine that shuts down closes the connection, and that is no problem.
                if !was_cut_off && self.tracker.shutdown().is_none() {
                    events.push(GuestEvent::Problem(format!("{why}; trying again")));
                }
            }
        }
        let is_news = !events.is_empty() || published.is_cut_off != was_cut_off;
        let room = MOST_EVENTS.saturating_sub(published.events.len());
        published.events.extend(events.into_iter().take(room));
        drop(published);
        if is_news {
            ring(&self.desk.news);
        }
    }

    /// Measures what QEMU has of its own.
    fn measure(&self) {
        let Some(memory) = self.status.as_ref().and_then(|status| status.read()) else { return };
        let own = self.process.zip(self.tracker.machine()).and_then(|(process, machine)| own_memory(process, machine));
        let mut published = self.desk.published();
        published.own = own.unwrap_or_default();
        published.observation.page_tables = Some(memory.page_tables);
    }
}

fn wait(bell: &OwnedFd, patience: Duration) {
    let mut sources = [PollFd::new(bell, PollFlags::IN)];
    let _ = poll(&mut sources, Timespec::try_from(patience).ok().as_ref());
}
