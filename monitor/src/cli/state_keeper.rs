//! Writes the fleet's state to its run directory, on a thread of its own: the supervisor's loop
//! never waits for a disk.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::host::run_directory::RunDirectory;
use crate::supervisor::SavedFleet;

/// The file's name.
const STATE: &str = "state.json";

/// The thread, as the supervisor's thread sees it. Dropping this waits until all is written.
#[derive(Debug)]
pub(super) struct StateKeeper {
    /// `None` only while this is dropped.
    states: Option<Sender<State>>,
    thread: Option<JoinHandle<()>>,
}

/// A state to be written, and what to call then.
struct State {
    fleet: SavedFleet,
    then: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

impl StateKeeper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Returns the system's error where it refuses a thread.
    pub(super) fn start(directory: Arc<RunDirectory>) -> io::Result<Self> {
        let (states, queue) = channel();
        let thread = thread::Builder::new().name("state keeper".into());
        let thread = thread.spawn(move || write_all(&queue, &directory))?;
        Ok(Self { states: Some(states), thread: Some(thread) })
    }

    /// Has a state written; `then` is called afterwards, also where it could not be written.
    pub(super) fn keep(&self, fleet: SavedFleet, then: Box<dyn FnOnce() + Send>) {
        if let Some(states) = &self.states {
            // The thread outlives this value.
            let _ = states.send(State { fleet, then });
        }
    }
}

impl Drop for StateKeeper {
    fn drop(&mut self) {
        self.states = None;
        // A panic of the thread has been reported.
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// Reads what an earlier supervisor has kept, if that can be read.
pub(super) fn read(directory: &RunDirectory) -> Option<SavedFleet> {
    serde_json::from_slice(&directory.read(STATE).ok().flatten()?).ok()
}

/// The life of the thread. Of states that wait, the last one has all changes.
fn write_all(queue: &Receiver<State>, directory: &RunDirectory) {
    while let Ok(first) = queue.recv() {
        let mut waiting = vec![first];
        waiting.extend(queue.try_iter());
        let written = waiting.last().map(|latest| write(&latest.fleet, directory));
        if let Some(Err(error)) = written {
            super::complain(&format!("aerostat: the state of fleet {} can't be kept: {error}\n", directory.fleet()));
        }
        waiting.into_iter().for_each(|state| (state.then)());
    }
}

fn write(fleet: &SavedFleet, directory: &RunDirectory) -> io::Result<()> {
    directory.write_atomically(STATE, &serde_json::to_vec(fleet)?)
}

#[cfg(test)]
mod tests {
    use super::{StateKeeper, read};
    use crate::fleet::GuestSpec;
    use crate::host::run_directory::{FleetName, RunDirectory};
    use crate::scheduler::IdleTax;
    use crate::supervisor::{SavedFleet, SavedGuest, Wanted};
    use aerostat_abi::units::FrameCount;
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    fn saved(pool_mib: u64) -> SavedFleet {
        let guest = SavedGuest {
            spec: GuestSpec::for_tests("alpha"),
            version: 2,
            pinned_bytes: None,
            starts: 1,
            wanted: Wanted::Up,
        };
        let pool = FrameCount::from_mib(pool_mib);
        SavedFleet { pool, idle_tax: IdleTax::default(), version: 3, guests: vec![guest] }
    }

    #[test]
    fn a_state_is_written_before_its_clients_are_answered() {
        let base = tempfile::tempdir().unwrap();
        let directory = RunDirectory::open(Some(&base.path().join("run")), &FleetName::new("web").unwrap()).unwrap();
        let directory = Arc::new(directory);
        assert_eq!(read(&directory), None);
        let keeper = StateKeeper::start(Arc::clone(&directory)).unwrap();
        let (told, answers) = channel();
        for pool in [64, 128] {
            let (told, directory) = (told.clone(), Arc::clone(&directory));
            keeper.keep(saved(pool), Box::new(move || told.send(read(&directory)).unwrap()));
        }
        let states: Vec<_> = answers.iter().take(2).map(|state| state.unwrap().pool.mib()).collect();
        assert!(states[0] >= 64 && states[1] == 128, "{states:?}");
    }
}
