//! The doorbell: how the supervisor wakes a VMM process when it has set a target.
//!
//! It is a socket pair and not an eventfd. Both sides share an eventfd's file description, so a VMM
//! process could make it blocking, fill the counter, and make the supervisor wait for ever. A
//! socket has a description at each end, and each send says whether it may wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown, socketpair,
};

/// Rings that are received at once; where there are more, the doorbell stays readable.
const RINGS_AT_ONCE: usize = 64;

/// The supervisor's end.
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

impl Doorbell {
    /// Creates a doorbell, and the end that becomes readable when it is rung.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // This end never receives: an unread message might carry descriptors that take long to
        // close.
        shutdown(&ours, Shutdown::Read)?;
        Ok((Self(ours), theirs))
    }

    /// Rings; never blocks. Where the other side is behind, it still has unread rings, and one of
    /// them is enough.
    pub fn ring(&self) {
        let _ = send(&self.0, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// Receives the rings that are there: several count as one.
pub fn answer(bell: impl AsFd) {
    let mut ring = [0_u8; 1];
    for _ in 0..RINGS_AT_ONCE {
        if !matches!(recv(&bell, &mut ring[..], RecvFlags::DONTWAIT), Ok((1, _))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Doorbell, answer};
    use rustix::fs::{OFlags, fcntl_setfl};
    use rustix::io::Errno;
    use rustix::net::{SendFlags, send};

    fn is_readable(bell: &rustix::fd::OwnedFd) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&Timespec::default())) == Ok(1)
    }

    #[test]
    fn rings_are_heard_once() {
        let (doorbell, bell) = Doorbell::pair().unwrap();
        assert!(!is_readable(&bell));
        doorbell.ring();
        doorbell.ring();
        assert!(is_readable(&bell));
        answer(&bell);
        assert!(!is_readable(&bell));
    }

    #[test]
    fn ringing_never_blocks_on_a_side_that_does_not_answer() {
        let (doorbell, bell) = Doorbell::pair().unwrap();
        fcntl_setfl(&bell, OFlags::empty()).unwrap();
        (0..100_000).for_each(|_| doorbell.ring());
        (0..100_000 / super::RINGS_AT_ONCE).for_each(|_| answer(&bell));
        assert!(!is_readable(&bell));
        drop(bell);
        doorbell.ring();
    }

    #[test]
    fn nothing_can_be_sent_back() {
        let (_doorbell, bell) = Doorbell::pair().unwrap();
        assert_eq!(send(&bell, b"x", SendFlags::NOSIGNAL), Err(Errno::PIPE));
    }
}
