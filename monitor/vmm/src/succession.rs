//! What happens when the supervisor is gone: the process waits for the next one, for the time of
//! its lease.
//!
//! It listens on a named socket. A supervisor that connects is a *candidate*: it says hello, is
//! told the target that was published last, and hands over a new register page and doorbell. The
//! first to do so is the successor. A candidate that says nothing, or nothing that makes sense, is
//! dropped; it has cost a slot of time and changed nothing. Candidates are served one at a time,
//! the others wait in the socket's queue. While there is a supervisor, candidates are refused.
//!
//! The main thread never waits for a candidate.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use aerostat_link::clock::Moment;
use aerostat_link::handshake::{Answer, Hello, Verdict, Versions};
use aerostat_link::message::{FromVmm, Standing, TakeOverDescriptors, ToVmm};
use aerostat_link::{Link, LinkError, Patience, SharedPage};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{SocketFlags, accept_with, listen};
use rustix::process::{Uid, geteuid};

use super::BUILD_ID;

/// Candidates that may wait.
const BACKLOG: i32 = 16;
/// How long a candidate may take, as others wait for it. On a busy host it tries again.
const CANDIDATE_PATIENCE: Duration = Duration::from_secs(2);

/// The listening socket and who has come to it.
#[derive(Debug)]
pub(super) struct Succession {
    listener: OwnedFd,
    /// The supervisor's user, which this process has until it enters its jail.
    user: Uid,
    lease: Duration,
    vacancy: Option<Vacancy>,
    candidate: Option<Candidate>,
}

/// The time without a supervisor.
#[derive(Clone, Copy, Debug)]
struct Vacancy {
    standing: Standing,
    ends: Moment,
}

/// A supervisor that wants to take the process over.
#[derive(Debug)]
struct Candidate {
    link: Link,
    stage: Stage,
    deadline: Moment,
}

/// What is expected of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Hello,
    TakeOver,
}

/// A supervisor that takes the process over.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) link: Link,
    pub(super) registers: SharedPage,
    pub(super) doorbell: OwnedFd,
}

/// Whether [`Succession::fd`] is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    Readable,
    Silent,
}

/// What came of serving a candidate.
enum Served {
    /// It has said nothing yet.
    Waits,
    /// It may go on.
    GoesOn,
    /// It is of no use.
    Dropped,
    TakesOver(SharedPage, OwnedFd),
}

impl Succession {
    /// Listens on `listener`. From now on, who connects to it sees this process and its present
    /// user as the peer.
    pub(super) fn new(listener: OwnedFd, lease: Duration) -> io::Result<Self> {
        listen(&listener, BACKLOG)?;
        fcntl_setfl(&listener, fcntl_getfl(&listener)? | OFlags::NONBLOCK)?;
        Ok(Self { listener, user: geteuid(), lease, vacancy: None, candidate: None })
    }

    /// Begins the lease: the supervisor is gone, and the targets are as `standing` says.
    pub(super) fn begin(&mut self, standing: Standing, now: Moment) {
        self.vacancy = Some(Vacancy { standing, ends: now.after(self.lease) });
    }

    /// Returns whether the lease is over.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.vacancy.is_some_and(|vacancy| now >= vacancy.ends)
    }

    /// Returns the time until the process has something to do without being woken.
    pub(super) fn patience(&self, now: Moment) -> Option<Duration> {
        let ends = [self.vacancy.map(|vacancy| vacancy.ends), self.candidate.as_ref().map(|it| it.deadline)];
        ends.into_iter().flatten().min().map(|end| end.since(now))
    }

    /// Returns what becomes readable when there is something to do.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.candidate.as_ref().map_or(self.listener.as_fd(), |candidate| candidate.link.as_fd())
    }

    /// Serves the candidate; accepts the next one where there is none and the socket is readable.
    /// Returns the successor.
    pub(super) fn serve(&mut self, connection: Connection, now: Moment) -> Option<Successor> {
        if self.candidate.is_none() && connection == Connection::Readable {
            self.candidate = self.accept(now);
        }
        while let Some(candidate) = &mut self.candidate {
            match candidate.serve(self.vacancy.as_ref().map(|vacancy| &vacancy.standing)) {
                Served::GoesOn => {}
                Served::Waits if now < candidate.deadline => return None,
                Served::Waits | Served::Dropped => self.candidate = None,
                Served::TakesOver(registers, doorbell) => {
                    self.vacancy = None;
                    let link = self.candidate.take()?.link;
                    return Some(Successor { link, registers, doorbell });
                }
            }
        }
        None
    }

    /// Accepts a candidate of the supervisor's user.
    fn accept(&self, now: Moment) -> Option<Candidate> {
        let socket = accept_with(&self.listener, SocketFlags::CLOEXEC).ok()?;
        let user = peer_user(&socket)?;
        let link = Link::new(socket);
        (user == self.user).then_some(Candidate { link, stage: Stage::Hello, deadline: now.after(CANDIDATE_PATIENCE) })
    }
}

/// Returns the user of the process that has connected.
///
/// rustix's `socket_peercred` takes the number of that process for one that is never 0, which it
/// is: a process outside of this one's namespace has no number in it.
fn peer_user(socket: &OwnedFd) -> Option<Uid> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut bytes = libc::socklen_t::try_from(size_of_val(&peer)).ok()?;
    let place = (&raw mut peer).cast();
    // SAFETY: the kernel writes at most so many bytes there.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, place, &raw mut bytes) };
    (result == 0).then(|| Uid::from_raw(peer.uid))
}

impl Candidate {
    /// Handles the candidate's next message. `standing` is `None` while there is a supervisor.
    fn serve(&mut self, standing: Option<&Standing>) -> Served {
        let served = match self.stage {
            Stage::Hello => self.receive_hello(standing),
            Stage::TakeOver => self.receive_page(),
        };
        match served {
            Ok(served) => served,
            Err(LinkError::WouldBlock) => Served::Waits,
            Err(_) => Served::Dropped,
        }
    }

    fn receive_hello(&mut self, standing: Option<&Standing>) -> Result<Served, LinkError> {
        let hello: Hello = self.link.receive_plain(Patience::DoNotWait)?;
        let common = Versions::OURS.common(hello.versions);
        let verdict = match (standing, common) {
            (None, _) => Verdict::Supervised,
            (Some(_), None) => Verdict::NoCommonVersion,
            (Some(_), Some(version)) => Verdict::Welcome(version),
        };
        let answer = Answer { verdict, versions: Versions::OURS, build: BUILD_ID.to_owned() };
        self.link.send(&answer, &[], Patience::DoNotWait)?;
        let (Verdict::Welcome(_), Some(standing)) = (verdict, standing) else { return Ok(Served::Dropped) };
        self.link.send(&FromVmm::Standing(*standing), &[], Patience::DoNotWait)?;
        self.stage = Stage::TakeOver;
        Ok(Served::GoesOn)
    }

    fn receive_page(&self) -> Result<Served, LinkError> {
        let (message, descriptors) = self.link.receive::<ToVmm>(Patience::DoNotWait)?;
        let descriptors = TakeOverDescriptors::from_received(descriptors);
        let (ToVmm::TakeOver, Some(TakeOverDescriptors { registers, doorbell })) = (message, descriptors) else {
            return Ok(Served::Dropped);
        };
        Ok(SharedPage::map(registers).map_or(Served::Dropped, |page| Served::TakesOver(page, doorbell)))
    }
}

#[cfg(test)]
mod tests {
    use super::{CANDIDATE_PATIENCE, Connection, Succession, Successor};
    use aerostat_abi::registers::Epoch;
    use aerostat_abi::units::FrameCount;
    use aerostat_link::clock::Moment;
    use aerostat_link::handshake::{Answer, Hello, Verdict, Versions};
    use aerostat_link::message::{FromVmm, Standing, TakeOverDescriptors, ToVmm};
    use aerostat_link::{Doorbell, Link, LinkError, Patience, SharedPage};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with};
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    const NOW: Moment = Moment::from_ns(1_000_000_000);
    const LEASE: Duration = Duration::from_secs(10);
    const STANDING: Standing = Standing { memory_frames: 4096, target_frames: 1024, epoch: 7, size_frames: 1536 };

    struct Bench {
        directory: tempfile::TempDir,
        succession: Succession,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let listener = socket();
            bind(&listener, &SocketAddrUnix::new(directory.path().join("s")).unwrap()).unwrap();
            Self { succession: Succession::new(listener, LEASE).unwrap(), directory }
        }

        fn vacant() -> Self {
            let mut bench = Self::new();
            bench.succession.begin(STANDING, NOW);
            bench
        }

        fn serve(&mut self, now: Moment) -> Option<Successor> {
            self.succession.serve(Connection::Readable, now)
        }

        fn connect(&self) -> Link {
            let socket = socket();
            connect(&socket, &SocketAddrUnix::new(self.directory.path().join("s")).unwrap()).unwrap();
            Link::new(socket)
        }

        /// Connects, says hello, and returns the answer's verdict.
        fn introduce(&mut self, versions: Versions) -> (Link, Verdict) {
            let link = self.connect();
            link.send(&Hello { versions, build: "another".into() }, &[], Patience::Wait).unwrap();
            assert!(self.serve(NOW).is_none());
            let answer: Answer = link.receive_plain(Patience::DoNotWait).unwrap();
            assert_eq!(answer.versions, Versions::OURS);
            (link, answer.verdict)
        }
    }

    fn socket() -> OwnedFd {
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn take_over(link: &Link) -> Doorbell {
        let (_, registers) = SharedPage::create_at(FrameCount(1024), Epoch(8)).unwrap();
        let (ours, doorbell) = Doorbell::pair().unwrap();
        let descriptors = TakeOverDescriptors { registers, doorbell };
        link.send(&ToVmm::TakeOver, &descriptors.borrowed(), Patience::Wait).unwrap();
        ours
    }

    fn is_closed(link: &Link) -> bool {
        matches!(link.receive_plain::<FromVmm>(Patience::DoNotWait), Err(LinkError::Closed))
    }

    #[test]
    fn a_successor_is_told_the_targets_and_brings_a_page() {
        let mut bench = Bench::vacant();
        let (link, verdict) = bench.introduce(Versions::OURS);
        assert_eq!(verdict, Verdict::Welcome(Versions::OURS.newest));
        let told = link.receive_plain::<FromVmm>(Patience::DoNotWait);
        assert!(matches!(told, Ok(FromVmm::Standing(STANDING))), "{told:?}");
        assert!(bench.serve(NOW).is_none(), "it has brought nothing yet");
        let _doorbell = take_over(&link);
        let successor = bench.serve(NOW).unwrap();
        assert_eq!((successor.registers.target(), successor.registers.target_epoch()), (FrameCount(1024), Epoch(8)));
        assert!(!bench.succession.is_over(NOW.after(LEASE)), "the lease has ended with the vacancy");
    }

    #[test]
    fn one_of_two_candidates_wins() {
        let mut bench = Bench::vacant();
        let (first, _) = bench.introduce(Versions::OURS);
        let second = bench.connect();
        second.send(&Hello { versions: Versions::OURS, build: String::new() }, &[], Patience::Wait).unwrap();
        let _doorbell = take_over(&first);
        assert!(bench.serve(NOW).is_some());
        assert!(bench.serve(NOW).is_none());
        let answer: Answer = second.receive_plain(Patience::DoNotWait).unwrap();
        assert_eq!(answer.verdict, Verdict::Supervised);
        assert!(is_closed(&second));
    }

    #[test]
    fn other_versions_are_refused_with_ours() {
        let mut bench = Bench::vacant();
        let newest = Versions::OURS.newest;
        let (link, verdict) = bench.introduce(Versions { oldest: newest + 1, newest: newest + 2 });
        assert_eq!(verdict, Verdict::NoCommonVersion);
        assert!(is_closed(&link));
        let (_link, verdict) = bench.introduce(Versions { oldest: 0, newest: newest + 2 });
        assert_eq!(verdict, Verdict::Welcome(newest));
    }

    #[test]
    fn nonsense_costs_the_candidate_and_nothing_else() {
        let mut bench = Bench::vacant();
        for nonsense in [&b"\0"[..], b"{}", b"[1,2", &[b' '; 100_000]] {
            let link = bench.connect();
            rustix::net::send(&link, nonsense, rustix::net::SendFlags::empty()).unwrap();
            assert!(bench.serve(NOW).is_none());
            assert!(link.is_hung_up().unwrap());
        }
        for message in [ToVmm::Stop, ToVmm::TakeOver] {
            let (link, _) = bench.introduce(Versions::OURS);
            link.send(&message, &[], Patience::Wait).unwrap();
            assert!(bench.serve(NOW).is_none());
            assert!(link.is_hung_up().unwrap());
        }
        let (link, _) = bench.introduce(Versions::OURS);
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        let doorbell = Doorbell::pair().unwrap().1;
        let no_page = TakeOverDescriptors { registers: file, doorbell };
        link.send(&ToVmm::TakeOver, &no_page.borrowed(), Patience::Wait).unwrap();
        assert!(bench.serve(NOW).is_none());
        assert!(bench.succession.is_over(NOW.after(LEASE)), "the lease goes on");
        let (link, _) = bench.introduce(Versions::OURS);
        let _doorbell = take_over(&link);
        assert!(bench.serve(NOW).is_some());
    }

    #[test]
    fn a_silent_candidate_makes_way_for_the_next() {
        let mut bench = Bench::vacant();
        let silent = bench.connect();
        assert!(bench.serve(NOW).is_none());
        assert_eq!(bench.succession.patience(NOW), Some(CANDIDATE_PATIENCE));
        let later = NOW.after(CANDIDATE_PATIENCE);
        assert!(bench.serve(later).is_none());
        assert!(silent.is_hung_up().unwrap());
        assert_eq!(bench.succession.patience(later), Some(LEASE - CANDIDATE_PATIENCE));
        let (link, _) = bench.introduce(Versions::OURS);
        let _doorbell = take_over(&link);
        assert!(bench.serve(later).is_some());
    }

    #[test]
    fn while_there_is_a_supervisor_candidates_are_refused() {
        let mut bench = Bench::new();
        assert_eq!(bench.succession.patience(NOW), None);
        let (link, verdict) = bench.introduce(Versions::OURS);
        assert_eq!(verdict, Verdict::Supervised);
        assert!(is_closed(&link));
    }
}
