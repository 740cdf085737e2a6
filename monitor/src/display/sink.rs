//! Writing that never blocks the writer: each sink has a thread of its own, fed by a bounded queue.
//!
//! A terminal may be stopped, a pipe unread, a disk slow or full. The supervisor passes text to a
//! [`Sink`] and goes on. Text that finds the queue full is dropped, and the sink writes how many
//! messages are missing as soon as it can write again. Only [`Sink::finish`] waits, for as long as
//! something is still being written.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::queue::{Item, Queue};
use super::screen::{Output, Screen};

/// How long [`Sink::finish`] waits without anything being written.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes in one write, so that progress shows with a slow reader too.
const MOST_AT_ONCE: usize = 4096;

/// Why not everything was written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The output is not read.
    #[error("nothing could be written for {} s", PATIENCE.as_secs())]
    Stuck,
    /// The system refused a write.
    #[error(transparent)]
    Refused(#[from] io::Error),
}

/// One output and its thread. Dropping it does the same as [`Sink::finish`].
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
    patience: Duration,
    is_finished: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when the state has changed.
    changed: Condvar,
    /// Bytes written so far.
    written: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// No more text will be queued.
    is_closed: bool,
    /// The thread has finished with the output.
    is_done: bool,
    /// The first error.
    error: Option<io::Error>,
}

impl Sink {
    /// Creates a sink that writes to a copy of `descriptor`.
    ///
    /// # Errors
    ///
    /// Returns the system's error where it refuses a descriptor or a thread.
    pub fn to_descriptor(descriptor: impl AsFd) -> io::Result<Self> {
        Self::new(Descriptor(descriptor.as_fd().try_clone_to_owned()?))
    }

    /// Creates a sink that writes to `output`.
    ///
    /// # Errors
    ///
    /// Returns the system's error where it refuses a thread.
    pub fn new(output: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), written: AtomicU64::new(0) });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("sink".to_owned()).spawn(move || write_all(&theirs, output))?;
        Ok(Self { shared, patience: PATIENCE, is_finished: false })
    }

    /// Queues `text` also where the queue is full: for the end of a run.
    pub fn last_text(&self, text: String) {
        self.change(|state| state.queue.push_last(text));
    }

    /// Waits until all is written, or nothing has been written for a while. The output is not used
    /// afterwards.
    ///
    /// # Errors
    ///
    /// Fails with [`SinkError`] where something was not written.
    pub fn finish(mut self) -> Result<(), SinkError> {
        self.is_finished = true;
        self.wait_until_done()
    }

    fn wait_until_done(&self) -> Result<(), SinkError> {
        self.change(|state| state.is_closed = true);
        let mut state = self.shared.lock();
        let mut seen = self.shared.written.load(Ordering::Relaxed);
        while !state.is_done {
            let waited = self.shared.changed.wait_timeout(state, self.patience);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            let written = self.shared.written.load(Ordering::Relaxed);
            if timeout.timed_out() && !state.is_done && written == seen {
                return Err(SinkError::Stuck);
            }
            seen = written;
        }
        state.error.take().map_or(Ok(()), |error| Err(error.into()))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.lock();
        if !state.is_done {
            change(&mut state);
            self.shared.changed.notify_all();
        }
    }
}

impl Output for Sink {
    fn text(&mut self, text: String) {
        self.change(|state| state.queue.push(text));
    }

    fn frame(&mut self, lines: Vec<String>) {
        self.change(|state| state.queue.set_frame(lines));
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = self.wait_until_done();
        }
    }
}

impl Shared {
    /// Locks the state. The lock is never held during a write.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next item; returns `None` when the sink is closed and empty.
    fn next(&self) -> Option<Item> {
        let mut state = self.lock();
        loop {
            if let Some(item) = state.queue.pop() {
                return Some(item);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The life of a sink's thread.
fn write_all(shared: &Shared, output: impl Write) {
    let mut screen = Screen::new(Counted { output, written: &shared.written });
    let mut missing = 0;
    while let Some(item) = shared.next() {
        let Err(error) = write(&mut screen, &item, &mut missing) else { continue };
        let is_gone = error.kind() == ErrorKind::BrokenPipe;
        shared.lock().error.get_or_insert(error);
        if is_gone {
            break;
        }
    }
    // The cursor is shown again before the end is announced.
    drop(screen);
    let mut state = shared.lock();
    state.queue.clear();
    state.is_done = true;
    shared.changed.notify_all();
}

/// Writes an item, after the number of texts that are missing before it. Text that can't be written
/// is missing before the next one.
fn write(screen: &mut Screen<impl Write>, item: &Item, missing: &mut u64) -> io::Result<()> {
    match item {
        Item::Missing(count) => {
            *missing += count;
            write_missing(screen, missing)
        }
        Item::Frame(lines) => screen.write_frame(lines),
        Item::Text(text) => {
            let written = write_missing(screen, missing).and_then(|()| screen.write_text(text));
            *missing += u64::from(written.is_err());
            written
        }
    }
}

fn write_missing(screen: &mut Screen<impl Write>, missing: &mut u64) -> io::Result<()> {
    if *missing > 0 {
        screen.write_text(&format!("({missing} messages are missing here, since they could not be written)\n"))?;
        *missing = 0;
    }
    Ok(())
}

/// A descriptor that may be non-blocking: another process that has it open may have made it so.
struct Descriptor(OwnedFd);

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An output that counts the bytes that it accepts.
struct Counted<'a, W> {
    output: W,
    written: &'a AtomicU64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(&bytes[..bytes.len().min(MOST_AT_ONCE)])?;
        self.written.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{Sink, SinkError};
    use crate::display::queue::CAPACITY;
    use crate::display::screen::Output;
    use std::io::{self, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    /// A sink that writes to a stream; what is written can be read from the other end.
    fn streamed() -> (Sink, UnixStream) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        (Sink::new(theirs).unwrap(), ours)
    }

    /// Takes each write as the test says.
    struct Judged {
        verdicts: Receiver<io::Result<()>>,
        taken: Sender<String>,
    }

    impl Write for Judged {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.verdicts.recv().unwrap_or(Ok(()))?;
            self.taken.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_unread_output_blocks_no_writer_and_later_says_what_is_missing() {
        let (mut sink, mut reader) = streamed();
        let (line, pushed) = ("x".repeat(99) + "\n", 3 * CAPACITY / 100);
        // Far more than the socket and the queue hold together; a sink that blocks never gets past
        // this.
        (0..pushed).for_each(|_| sink.text(line.clone()));
        sink.last_text("the end\n".into());
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        sink.finish().unwrap();
        let text = read.join().unwrap().unwrap();
        let (kept, others): (Vec<_>, Vec<_>) = text.lines().partition(|text| *text == &line[..99]);
        let [notes @ .., "the end"] = &others[..] else { panic!("{others:?}") };
        let missing = notes.iter().map(|note| {
            assert!(note.ends_with(" messages are missing here, since they could not be written)"), "{note}");
            note[1..].split(' ').next().unwrap().parse::<usize>().unwrap()
        });
        let missing = missing.sum::<usize>();
        assert!(missing > 0);
        assert_eq!(kept.len() + missing, pushed);
    }

    #[test]
    fn an_output_that_is_never_read_is_given_up() {
        let (mut sink, _reader) = streamed();
        sink.patience = Duration::from_millis(20);
        (0..CAPACITY / 100).for_each(|_| sink.text("x".repeat(100)));
        assert!(matches!(sink.finish(), Err(SinkError::Stuck)));
    }

    #[test]
    fn a_disk_that_was_full_for_a_while_has_gaps_with_their_sizes() {
        let (verdicts, judge) = channel();
        let (taken, written) = channel();
        let mut sink = Sink::new(Judged { verdicts: judge, taken }).unwrap();
        for verdict in [Ok(()), Err(io::ErrorKind::StorageFull.into()), Err(io::ErrorKind::StorageFull.into())] {
            verdicts.send(verdict).unwrap();
        }
        drop(verdicts);
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            sink.text(line.into());
        }
        assert!(matches!(sink.finish(), Err(SinkError::Refused(_))));
        let note = "(2 messages are missing here, since they could not be written)\n";
        assert_eq!(written.iter().collect::<Vec<_>>(), ["one\n", note, "four\n"]);
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_writing() {
        let (mut sink, reader) = streamed();
        drop(reader);
        (0..100_000).for_each(|_| sink.text("x".repeat(100)));
        assert!(matches!(sink.finish(), Err(SinkError::Refused(error)) if error.kind() == io::ErrorKind::BrokenPipe));
    }
}
