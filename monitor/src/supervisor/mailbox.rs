//! How commands reach the supervisor's thread: a bounded queue, and a descriptor that says when
//! there is one.
//!
//! The supervisor never waits for a client: an answer is passed to a closure, which must not block.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use rustix::event::{EventfdFlags, eventfd};

use super::command::{Answer, Command, CommandError};

/// Commands that may wait. The supervisor takes them all at each round of its loop.
const CAPACITY: usize = 256;

/// What receives the answer to a command, on the supervisor's thread.
pub type Reply = Box<dyn FnOnce(Result<Answer, CommandError>) + Send>;

/// A command and what receives its answer.
pub struct Request {
    /// The command.
    pub command: Command,
    /// Called once. Dropped without a call where the run ends first.
    pub reply: Reply,
}

/// The clients' end. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Mailbox {
    requests: SyncSender<Request>,
    bell: Arc<OwnedFd>,
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Inbox {
    requests: Receiver<Request>,
    bell: Arc<OwnedFd>,
}

/// Why a command can't be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// Too many commands wait.
    #[error("too many commands wait; try again")]
    Full,
    /// The run is over.
    #[error("the fleet has ended")]
    Closed,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("command", &self.command).finish_non_exhaustive()
    }
}

/// Creates a queue.
///
/// # Errors
///
/// Returns the system's error where it refuses a descriptor.
pub fn mailbox() -> io::Result<(Mailbox, Inbox)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = sync_channel(CAPACITY);
    Ok((Mailbox { requests: sender, bell: Arc::clone(&bell) }, Inbox { requests: receiver, bell }))
}

impl Mailbox {
    /// Queues a command; never blocks.
    ///
    /// # Errors
    ///
    /// [`MailboxError`]; `reply` is dropped then.
    pub fn send(&self, command: Command, reply: Reply) -> Result<(), MailboxError> {
        self.requests.try_send(Request { command, reply }).map_err(|error| match error {
            TrySendError::Full(_) => MailboxError::Full,
            TrySendError::Disconnected(_) => MailboxError::Closed,
        })?;
        // Full only where it was written 2^64 times, and readable then.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        Ok(())
    }
}

impl Inbox {
    /// Returns a descriptor that is readable when there may be a command.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Returns the next command, if there is one; never blocks.
    pub fn take(&mut self) -> Option<Request> {
        // Cleared first: a command that comes later makes it readable again.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        self.requests.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, MailboxError, mailbox};
    use crate::supervisor::command::{Answer, Command, Version};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::sync::mpsc::channel;

    #[test]
    fn a_command_rings_and_its_answer_comes_back() {
        let (mailbox, mut inbox) = mailbox().unwrap();
        let is_rung = |inbox: &super::Inbox| {
            let mut bell = [PollFd::from_borrowed_fd(inbox.fd(), PollFlags::IN)];
            poll(&mut bell, Some(&Timespec::default())).unwrap() == 1
        };
        assert!(!is_rung(&inbox));
        let (sender, answers) = channel();
        mailbox.send(Command::Shutdown, Box::new(move |answer| sender.send(answer).unwrap())).unwrap();
        assert!(is_rung(&inbox));
        let request = inbox.take().unwrap();
        (request.reply)(Ok(Answer::Done(Version(7))));
        assert_eq!(answers.recv().unwrap(), Ok(Answer::Done(Version(7))));
        assert!(inbox.take().is_none() && !is_rung(&inbox));
    }

    #[test]
    fn a_full_or_closed_queue_refuses() {
        let (mailbox, inbox) = mailbox().unwrap();
        let send = || mailbox.send(Command::Shutdown, Box::new(|_| ()));
        (0..CAPACITY).for_each(|_| send().unwrap());
        assert_eq!(send(), Err(MailboxError::Full));
        drop(inbox);
        assert_eq!(send(), Err(MailboxError::Closed));
    }
}
