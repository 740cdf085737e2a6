//! One end of the link: a `SOCK_SEQPACKET` socket, one JSON message a packet.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recv, recvmsg, sendmsg, shutdown, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The longest message that either side accepts.
const MOST_BYTES: usize = 64 << 10;
/// Descriptors that a message may carry.
const MOST_DESCRIPTORS: usize = 18;

/// Why a message did not get through.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The other side is gone.
    #[error("the other side of the link is gone")]
    Closed,
    /// Nothing to receive, or no room to send, right now.
    #[error("the link would block")]
    WouldBlock,
    /// The packet is too long or not a valid message.
    #[error("the link carried a message that makes no sense")]
    Garbled,
    /// The packet has descriptors where none may be. It is still in the link.
    #[error("the link carried descriptors, which it must not")]
    Descriptors,
    /// Anything else.
    #[error("the link failed: {0}")]
    Io(io::Error),
}

impl From<Errno> for LinkError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::AGAIN => Self::WouldBlock,
            // A peer that closed with messages unread resets the connection.
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            error => Self::Io(error.into()),
        }
    }
}

/// One end of a link.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until the message is through.
    Wait,
    /// Not at all: [`LinkError::WouldBlock`].
    DoNotWait,
}

impl Link {
    /// Creates both ends of a new link.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// Takes this descriptor as an end of a link.
    pub const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends a message, with descriptors that the other side gets copies of.
    pub fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
        patience: Patience,
    ) -> Result<(), LinkError> {
        let bytes = serde_json::to_vec(message).map_err(|_| LinkError::Garbled)?;
        if bytes.len() > MOST_BYTES {
            return Err(LinkError::Garbled);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(LinkError::Garbled);
        }
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::DONTWAIT, patience == Patience::DoNotWait);
        rustix::io::retry_on_intr(|| sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, flags))?;
        Ok(())
    }

    /// Receives a message from a VMM process: one without descriptors.
    ///
    /// A packet with descriptors is left where it is. A process that receives it has to close them,
    /// wanted or not, and the last close of some files takes as long as their peer likes. For the
    /// same reason the supervisor's reaper drops the link's end.
    pub fn receive_plain<M: DeserializeOwned>(&self, patience: Patience) -> Result<M, LinkError> {
        self.receive_sized(patience).map(|(message, _)| message)
    }

    /// Does the same, and returns also how many bytes the message had.
    pub fn receive_sized<M: DeserializeOwned>(&self, patience: Patience) -> Result<(M, usize), LinkError> {
        let mut flags = RecvFlags::empty();
        flags.set(RecvFlags::DONTWAIT, patience == Patience::DoNotWait);
        let peeking = flags | RecvFlags::PEEK | RecvFlags::TRUNC;
        let peek = || {
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut [0])], &mut RecvAncillaryBuffer::default(), peeking)
                .map(|next| (next.bytes, next.flags.contains(ReturnFlags::CTRUNC)))
        };
        let (length, has_descriptors) = match rustix::io::retry_on_intr(peek) {
            // Reported once, for a peer that left messages unread; what it sent before is still
            // there.
            Err(Errno::CONNRESET) => rustix::io::retry_on_intr(peek),
            peeked => peeked,
        }?;
        if has_descriptors {
            return Err(LinkError::Descriptors);
        }
        if length == 0 {
            return Err(if self.is_hung_up()? { LinkError::Closed } else { LinkError::Garbled });
        }
        if length > MOST_BYTES {
            return Err(LinkError::Garbled);
        }
        let mut bytes = vec![0; length];
        rustix::io::retry_on_intr(|| recv(&self.0, &mut bytes[..], flags))?;
        let message = serde_json::from_slice(&bytes).map_err(|_| LinkError::Garbled)?;
        Ok((message, length))
    }

    /// Returns whether the other side is gone; what it sent before can still be received.
    pub fn is_hung_up(&self) -> Result<bool, LinkError> {
        let mut end = [PollFd::new(&self.0, PollFlags::RDHUP)];
        rustix::io::retry_on_intr(|| poll(&mut end, Some(&Timespec::default())))?;
        Ok(!end[0].revents().is_empty())
    }

    /// Closes the link for both sides, also where other descriptors of this end are open.
    pub fn hang_up(self) {
        // It fails where the other side has done so already.
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    /// Receives a message from the supervisor and the descriptors that came with it.
    pub fn receive<M: DeserializeOwned>(&self, patience: Patience) -> Result<(M, Vec<OwnedFd>), LinkError> {
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        flags.set(RecvFlags::DONTWAIT, patience == Patience::DoNotWait);
        // Packets have any length up to the limit and most are short: find out how long the next
        // one is.
        let peek = flags | RecvFlags::PEEK | RecvFlags::TRUNC;
        let (_, length) = rustix::io::retry_on_intr(|| recv(&self.0, &mut [0_u8; 1][..], peek))?;
        let mut bytes = vec![0; length.min(MOST_BYTES)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            rustix::io::retry_on_intr(|| recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))?;
        let descriptors = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        if received.bytes == 0 {
            return Err(LinkError::Closed);
        }
        // A packet beyond the limit was cut, and the rest of it is not valid JSON.
        let message = serde_json::from_slice(&bytes[..received.bytes]).map_err(|_| LinkError::Garbled)?;
        Ok((message, descriptors))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::{Link, LinkError, Patience};
    use crate::disk::{DiskFaults, DiskMode, DiskRole};
    use crate::message::{
        Ending, FromVmm, Reason, Start, StartDescriptors, StartDisk, StartHostSwap, SuccessionDescriptors, ToVmm,
    };
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::fd::{AsFd, OwnedFd};
    use std::time::Duration;

    fn pair() -> (Link, Link) {
        let (ours, theirs) = Link::pair().unwrap();
        (ours, Link::new(theirs))
    }

    fn fd() -> OwnedFd {
        tempfile::tempfile().unwrap().into()
    }

    #[test]
    fn messages_carry_descriptors() {
        let (ours, theirs) = pair();
        let disk = |role| StartDisk { role, mode: DiskMode::ReadOnly, faults: DiskFaults::default() };
        let start = Start {
            memory_frames: 1,
            initial_frames: 1,
            command_line: String::new(),
            features: Vec::new(),
            disks: vec![disk(DiskRole::Data), disk(DiskRole::Swap)],
            host_swap: Some(StartHostSwap { faults: DiskFaults::default() }),
            lease: Some(Duration::from_secs(1)),
            namespaces: 5,
        };
        for log in [None, Some(fd())] {
            let has_log = log.is_some();
            let previous_log = log.as_ref().map(|_| fd());
            let (registers, doorbell, image, disks) = (fd(), fd(), fd(), vec![fd(), fd()]);
            let succession = Some(SuccessionDescriptors { listener: fd(), ended: fd() });
            let host_swap = Some(fd());
            let namespaces = (0..5).map(|_| fd()).collect();
            let sent = StartDescriptors {
                registers,
                doorbell,
                image,
                disks,
                host_swap,
                succession,
                namespaces,
                log,
                previous_log,
            };
            ours.send(&ToVmm::Stop, &sent.borrowed(), Patience::Wait).unwrap();
            let (message, descriptors) = theirs.receive::<ToVmm>(Patience::Wait).unwrap();
            assert!(matches!(message, ToVmm::Stop));
            let received = StartDescriptors::from_received(descriptors, &start).unwrap();
            assert_eq!((received.disks.len(), received.namespaces.len()), (2, 5));
            assert!(received.host_swap.is_some() && received.succession.is_some());
            assert_eq!(received.log.is_some(), has_log);
            assert_eq!(received.previous_log.is_some(), has_log);
        }
        assert!(StartDescriptors::from_received(vec![fd(), fd(), fd(), fd()], &start).is_none());
    }

    #[test]
    fn an_empty_link_would_block_and_a_closed_one_is_closed() {
        let (ours, theirs) = pair();
        assert!(matches!(ours.receive_plain::<FromVmm>(Patience::DoNotWait), Err(LinkError::WouldBlock)));
        theirs.send(&FromVmm::Pressure, &[], Patience::DoNotWait).unwrap();
        drop(theirs);
        assert!(matches!(ours.receive_plain::<FromVmm>(Patience::DoNotWait), Ok(FromVmm::Pressure)));
        assert!(matches!(ours.receive_plain::<FromVmm>(Patience::DoNotWait), Err(LinkError::Closed)));
        assert!(matches!(ours.send(&ToVmm::Stop, &[], Patience::Wait), Err(LinkError::Closed)));
    }

    #[test]
    fn last_messages_of_a_side_that_left_others_unread_arrive() {
        let (ours, theirs) = pair();
        ours.send(&ToVmm::ReclaimBallooned, &[], Patience::Wait).unwrap();
        theirs.send(&FromVmm::Pressure, &[], Patience::Wait).unwrap();
        drop(theirs);
        assert!(matches!(ours.receive_plain::<FromVmm>(Patience::DoNotWait), Ok(FromVmm::Pressure)));
        assert!(matches!(ours.receive_plain::<FromVmm>(Patience::DoNotWait), Err(LinkError::Closed)));
    }

    #[test]
    fn a_full_link_would_block() {
        let (ours, _theirs) = pair();
        let error = (0..1_000_000).find_map(|_| ours.send(&FromVmm::Pressure, &[], Patience::DoNotWait).err());
        assert!(matches!(error, Some(LinkError::WouldBlock)));
    }

    #[test]
    fn invalid_messages_are_reported_as_garbled() {
        for garbage in [&b"{\"Ended\":"[..], &[b' '; 100_000], b""] {
            let (ours, theirs) = pair();
            rustix::net::send(theirs.as_fd(), garbage, rustix::net::SendFlags::empty()).unwrap();
            assert!(matches!(ours.receive_plain::<FromVmm>(Patience::Wait), Err(LinkError::Garbled)));
        }
    }

    #[test]
    fn descriptors_are_refused_and_left_unclosed() {
        let (ours, theirs) = pair();
        let (kept, passed) = rustix::pipe::pipe().unwrap();
        theirs.send(&FromVmm::Pressure, &[passed.as_fd()], Patience::Wait).unwrap();
        drop(passed);
        for _ in 0..2 {
            assert!(matches!(ours.receive_plain::<FromVmm>(Patience::Wait), Err(LinkError::Descriptors)));
        }
        let is_closed = |timeout: Option<Timespec>| {
            let mut end = [PollFd::new(&kept, PollFlags::IN)];
            poll(&mut end, timeout.as_ref()).unwrap();
            end[0].revents().contains(PollFlags::HUP)
        };
        assert!(!is_closed(Some(Timespec::default())));
        drop(ours);
        assert!(is_closed(None), "the link's end closes it");
    }

    #[test]
    fn endings_survive_serialization() {
        let (ours, theirs) = pair();
        for reason in [
            Reason::Exited(0x12),
            Reason::Stopped,
            Reason::Fault("triple fault".into()),
            Reason::Failed("no KVM".into()),
        ] {
            let ending = Ending { reason, details: vec!["line".into()] };
            theirs.send(&FromVmm::Ended(ending.clone()), &[], Patience::Wait).unwrap();
            let received = ours.receive_plain::<FromVmm>(Patience::Wait);
            assert!(matches!(&received, Ok(FromVmm::Ended(received)) if *received == ending), "{received:?}");
        }
    }
}
