//! What a process sends over the link, written without the monitor's code, which can't send what no
//! honest process sends.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Write};
use std::mem::{MaybeUninit, forget};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, send, sendmsg, sockopt,
};

pub(crate) const PRESSURE: &[u8] = b"\"Pressure\"";
pub(crate) const SUCCESS: &[u8] = br#"{"Ended":{"reason":{"Exited":16},"details":[]}}"#;
pub(crate) const STOPPED: &[u8] = br#"{"Ended":{"reason":"Stopped","details":[]}}"#;
/// The longest message that a supervisor accepts.
const MOST_BYTES: usize = 64 << 10;
/// Seconds for which closing the socket may block. A test waits for less.
const LINGER: u64 = 600;

pub(crate) fn say(link: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    send(link, bytes, SendFlags::NOSIGNAL).map(drop).context("sending")
}

/// Sends a message again and again, until the supervisor closes the link.
pub(crate) fn flood(link: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    loop {
        say(link, bytes)?;
    }
}

/// Sends a message often enough to be a burden, and more seldom than what counts as a flood.
pub(crate) fn drizzle(link: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    loop {
        say(link, bytes)?;
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the message with this beginning and end that is as long as it may be, of many parts.
pub(crate) fn longest(begin: &str, part: &str, end: &str) -> Vec<u8> {
    let parts = (MOST_BYTES - begin.len() - end.len()) / part.len();
    format!("{begin}{}{end}", part.repeat(parts)).into_bytes()
}

/// Receives the supervisor's first message; returns the descriptors that came with it.
pub(crate) fn receive_start(link: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut bytes = vec![0; 1 << 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(link, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    Ok(rights.flatten().collect())
}

/// Sends `bytes` and a TCP socket with unsent data whose last close waits for the peer, which does
/// not read.
pub(crate) fn pass_lingering_socket(link: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    forget(listener.accept()?);
    sockopt::set_socket_linger(&socket, Some(Duration::from_secs(LINGER)))?;
    socket.set_nonblocking(true)?;
    loop {
        match socket.write(&[0; 65536]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    pass(link, bytes, &[socket.as_fd()])?;
    // The message holds the socket now. If it is never received, the last close happens when this
    // process ends.
    Ok(())
}

/// Sends `bytes` and the link itself, so that it holds a reference to itself.
pub(crate) fn pass_itself(link: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    pass(link, bytes, &[link])
}

fn pass(link: BorrowedFd<'_>, bytes: &[u8], rights: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(rights)) {
        bail!("no room for a descriptor");
    }
    sendmsg(link, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Sends to the doorbell, on which only the supervisor may send.
pub(crate) fn ring_back(doorbell: &OwnedFd) -> Result<()> {
    match send(doorbell, &[1; 4096], SendFlags::NOSIGNAL) {
        Err(rustix::io::Errno::PIPE) => Ok(()),
        Err(error) => Err(io::Error::from(error).into()),
        Ok(_) => bail!("the supervisor's end takes rings"),
    }
}
