//! What a run publishes for clients: its latest status, and its latest events.
//!
//! The supervisor's thread writes through a [`Publisher`] and never waits: a lock is held for the
//! copy of some pointers only. Readers have clones of a [`Feed`]. One that is too slow loses the
//! oldest events and learns how many.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::supervisor::{Event, FleetStatus, Observer};

/// Events that are kept for readers that come late or are slow.
const KEPT: usize = 4096;
/// Events that a reader gets at a time.
const AT_A_TIME: usize = 256;

/// A status and when it was taken.
#[derive(Clone, Debug)]
pub struct Published {
    /// Counts statuses from 1.
    pub round: u64,
    /// By the host's clock, since 1970.
    pub unix_ms: u64,
    /// The status.
    pub status: FleetStatus,
}

/// An event with its number.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Counts events from 1.
    pub seq: u64,
    /// When it was published, by the host's clock, since 1970.
    pub unix_ms: u64,
    /// The event.
    pub event: Event,
}

/// The writing end: an observer of the run. Dropping it ends what follows the run.
#[derive(Debug)]
pub struct Publisher {
    round: u64,
    latest: watch::Sender<Option<Arc<Published>>>,
    events: Arc<Mutex<Ring>>,
    /// The number of the latest event.
    news: watch::Sender<u64>,
}

/// The reading end.
#[derive(Clone, Debug)]
pub struct Feed {
    latest: watch::Receiver<Option<Arc<Published>>>,
    events: Arc<Mutex<Ring>>,
    news: watch::Receiver<u64>,
}

/// Events that a reader has not seen.
#[derive(Debug, Default)]
pub struct Batch {
    /// Events before these that are not kept any more.
    pub lost: u64,
    /// The events.
    pub events: Vec<Arc<Recorded>>,
}

/// The run is over: nothing is published any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fleet has ended")]
pub struct RunEnded;

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Recorded>>,
    /// The number of the latest event.
    last: u64,
}

/// Creates both ends.
#[must_use]
pub fn publisher() -> (Publisher, Feed) {
    let (latest, status) = watch::channel(None);
    let (news, numbers) = watch::channel(0);
    let events = Arc::new(Mutex::default());
    let feed = Feed { latest: status, events: Arc::clone(&events), news: numbers };
    (Publisher { round: 0, latest, events, news }, feed)
}

impl Published {
    /// Returns the host's time of a moment that is given since the run began.
    #[must_use]
    pub fn unix_ms_at(&self, at: Duration) -> u64 {
        let ago = self.status.elapsed.saturating_sub(at);
        self.unix_ms.saturating_sub(milliseconds(ago))
    }
}

impl Observer for Publisher {
    fn on_event(&mut self, event: &Event) {
        let last = {
            let mut ring = lock(&self.events);
            ring.last += 1;
            if ring.events.len() == KEPT {
                ring.events.pop_front();
            }
            let recorded = Recorded { seq: ring.last, unix_ms: now_unix_ms(), event: event.clone() };
            ring.events.push_back(Arc::new(recorded));
            ring.last
        };
        self.news.send_replace(last);
    }

    fn on_poll(&mut self, status: &FleetStatus) {
        self.round += 1;
        let published = Published { round: self.round, unix_ms: now_unix_ms(), status: status.clone() };
        self.latest.send_replace(Some(Arc::new(published)));
    }
}

impl Feed {
    /// Returns the latest status, if there is one.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Published>> {
        self.latest.borrow().clone()
    }

    /// Returns the number of the latest event; 0 before the first.
    #[must_use]
    pub fn last_event(&self) -> u64 {
        lock(&self.events).last
    }

    /// Waits until a status satisfies `is_reached`, and returns it.
    ///
    /// # Errors
    ///
    /// [`RunEnded`].
    pub async fn wait_for(
        &mut self,
        mut is_reached: impl FnMut(&Published) -> bool,
    ) -> Result<Arc<Published>, RunEnded> {
        loop {
            let latest = self.latest.borrow_and_update().clone();
            if let Some(published) = latest.filter(|published| is_reached(published)) {
                return Ok(published);
            }
            self.latest.changed().await.map_err(|_| RunEnded)?;
        }
    }

    /// Returns events after the one with this number, as far as they are kept, and not too many.
    #[must_use]
    pub fn events_after(&self, seq: u64) -> Batch {
        let ring = lock(&self.events);
        let Some(oldest) = ring.events.front().map(|event| event.seq) else { return Batch::default() };
        let skipped = usize::try_from((seq + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        Batch {
            lost: oldest.saturating_sub(seq + 1),
            events: ring.events.iter().skip(skipped).take(AT_A_TIME).cloned().collect(),
        }
    }

    /// Waits until there is an event after the one with this number.
    ///
    /// # Errors
    ///
    /// [`RunEnded`]: there will be none.
    pub async fn wait_for_event(&mut self, seq: u64) -> Result<(), RunEnded> {
        self.news.wait_for(|last| *last > seq).await.map(drop).map_err(|_| RunEnded)
    }
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_unix_ms() -> u64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{AT_A_TIME, KEPT, RunEnded, publisher};
    use crate::supervisor::{Event, EventKind, FleetStatus, Observer};
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;
    use tokio::runtime::Builder;

    fn event(number: u64) -> Event {
        Event { at: Duration::ZERO, what: EventKind::Changed { what: number.to_string() } }
    }

    #[test]
    fn a_reader_gets_every_event_once_and_in_order() {
        let (mut publisher, feed) = publisher();
        assert!(feed.events_after(0).events.is_empty());
        (0..600).for_each(|number| publisher.on_event(&event(number)));
        let (mut seen, mut batches) = (0, 0);
        while seen < 600 {
            let batch = feed.events_after(seen);
            assert!(batch.lost == 0 && !batch.events.is_empty() && batch.events.len() <= AT_A_TIME);
            for recorded in batch.events {
                assert_eq!(recorded.seq, seen + 1);
                seen += 1;
            }
            batches += 1;
        }
        assert_eq!(batches, 3);
        assert!(feed.events_after(600).events.is_empty() && feed.events_after(u64::MAX - 1).events.is_empty());
    }

    #[test]
    fn a_slow_reader_learns_how_many_events_it_lost() {
        let (mut publisher, feed) = publisher();
        (0..KEPT as u64 + 10).for_each(|number| publisher.on_event(&event(number)));
        let batch = feed.events_after(3);
        assert_eq!((batch.lost, batch.events[0].seq), (7, 11));
        assert_eq!(feed.events_after(10).lost, 0);
    }

    #[test]
    fn a_reader_waits_for_a_status_and_learns_of_the_end() {
        let (mut publisher, mut feed) = publisher();
        let runtime = Builder::new_current_thread().build().unwrap();
        let status = |seconds| FleetStatus {
            elapsed: Duration::from_secs(seconds),
            ..FleetStatus::for_tests(FrameCount::from_mib(64))
        };
        let writer = std::thread::spawn(move || {
            (1..=5).for_each(|seconds| publisher.on_poll(&status(seconds)));
        });
        let published = runtime.block_on(feed.wait_for(|published| published.round >= 5)).unwrap();
        assert_eq!(published.status.elapsed, Duration::from_secs(5));
        assert_eq!(published.unix_ms_at(Duration::from_secs(3)), published.unix_ms - 2000);
        writer.join().unwrap();
        assert_eq!(runtime.block_on(feed.wait_for(|published| published.round > 5)).unwrap_err(), RunEnded);
        assert_eq!(runtime.block_on(feed.wait_for_event(0)), Err(RunEnded));
    }
}
