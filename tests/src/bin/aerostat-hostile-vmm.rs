//! `aerostat-hostile-vmm`: behaves as a VMM process that a guest has taken over.
//!
//! Supervisors in `tests/tests/hostile_vmm.rs` start it as they start `aerostat-vmm NAME BUILD`,
//! with the link as its standard input. The name says what it does. It writes to the link without
//! the monitor's code, since that code can't send what no honest process sends.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Write};
use std::mem::{MaybeUninit, forget};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, ptr, thread};

use aerostat_abi::registers::{Epoch, Facts, RegisterPage};
use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::{FRAME_SIZE, FrameCount};
use anyhow::{Context, Result, bail};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    Shutdown, recvmsg, send, sendmsg, shutdown, sockopt,
};
use rustix::process::{Signal, set_parent_process_death_signal};

const PRESSURE: &[u8] = b"\"Pressure\"";
const SUCCESS: &[u8] = br#"{"Ended":{"reason":{"Exited":16},"details":[]}}"#;
const STOPPED: &[u8] = br#"{"Ended":{"reason":"Stopped","details":[]}}"#;
/// Seconds for which closing the socket may block. A test waits for less.
const LINGER: u64 = 600;
/// How long it reports a high demand, and then a low one. The scheduler lowers a target sooner.
const DEMAND_LASTS: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    let deed = env::args().nth(1).unwrap_or_default();
    match act(&deed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile VMM {deed:?}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(deed: &str) -> Result<()> {
    // No process stays behind when a test fails.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let stdin = io::stdin();
    let link = stdin.as_fd();
    if deed == "ends_unstarted" {
        return say(link, STOPPED);
    }
    let mut descriptors = receive_start(link)?.into_iter();
    let page = map_page(&descriptors.next().context("no register page")?)?;
    let doorbell = descriptors.next().context("no doorbell")?;
    page.set_balloon_facts(&Facts { size: page.target(), ..Facts::default() });
    match deed {
        "silent" => stay(),
        "presses" => loop {
            say(link, PRESSURE)?;
        },
        "ends_without_end" => loop {
            say(link, SUCCESS)?;
        },
        "ends_twice_and_stays" => {
            say(link, SUCCESS)?;
            let _ = say(link, STOPPED);
            stay()
        }
        "garbles" => say(link, b"\0\xff{}").map(|()| stay()),
        "says_half" => say(link, &SUCCESS[..20]).map(|()| stay()),
        "says_nothing_at_length" => say(link, &[b' '; 100_000]).map(|()| stay()),
        "says_nothing" => say(link, b"").map(|()| stay()),
        "hangs_up" => {
            shutdown(link, Shutdown::Both)?;
            stay()
        }
        "passes_descriptors" => {
            for _ in 0..4 {
                pass_lingering_socket(link, PRESSURE)?;
            }
            stay()
        }
        "ends_and_passes_descriptors" => {
            say(link, SUCCESS)?;
            let _ = pass_lingering_socket(link, SUCCESS);
            stay()
        }
        "acknowledges_the_future" => {
            page.acknowledge(Epoch(1000));
            stay()
        }
        "blocks_the_doorbell" => block(&doorbell, page),
        _ => bail!("there is no such deed"),
    }
}

/// Sleeps for ever.
fn stay() -> ! {
    loop {
        thread::park();
    }
}

fn say(link: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    send(link, bytes, SendFlags::NOSIGNAL).map(drop).context("sending")
}

/// Receives the supervisor's first message; returns the descriptors that came with it.
fn receive_start(link: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
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

fn map_page(file: &OwnedFd) -> Result<&'static RegisterPage> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let place = unsafe { mmap(ptr::null_mut(), FRAME_SIZE, access, MapFlags::SHARED, file, 0) }?;
    // SAFETY: the page is mapped for good, aligned and of its size; every bit pattern is valid for
    // atomics.
    Ok(unsafe { &*place.cast() })
}

/// Sends `bytes` and a TCP socket with unsent data whose last close waits for the peer, which does
/// not read.
fn pass_lingering_socket(link: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
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
    let rights = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&rights)) {
        bail!("no room for a descriptor");
    }
    sendmsg(link, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    // The message holds the socket now. If it is never received, the last close happens when this
    // process ends.
    Ok(())
}

/// Fills the doorbell, so that ringing it would block, and makes the supervisor ring it again and
/// again by a demand that rises and falls.
fn block(doorbell: &OwnedFd, page: &RegisterPage) -> Result<()> {
    fcntl_setfl(doorbell, OFlags::empty())?;
    // An eventfd's counter is full at this value; a socket takes it as bytes.
    let _ = rustix::io::write(doorbell, &(u64::MAX - 1).to_ne_bytes());
    let total = FrameCount::from_mib(128);
    for used in [FrameCount::from_mib(120), FrameCount::from_mib(16)].into_iter().cycle() {
        let statistics = Statistics {
            total_memory_bytes: total.bytes(),
            free_memory_bytes: total.saturating_sub(used).bytes(),
            committable_bytes: total.saturating_sub(used).bytes(),
            ..Statistics::default()
        };
        page.set_statistics(&statistics.encode());
        page.acknowledge(page.target_epoch());
        thread::sleep(DEMAND_LASTS);
    }
    Ok(())
}
