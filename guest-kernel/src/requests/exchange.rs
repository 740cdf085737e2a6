//! The exchange between the requester and the host, which the balloon driver's thread makes
//! whenever it runs. Pure but for the lock.

use aerostat_abi::requests::{Generation, Request, Resources};

use super::requester::{MemoryState, Requester, Update};
use crate::sync::SpinLock;
use crate::time::Instant;

/// A host that can be asked for resources. A transport without requests says so by its
/// [`ResourceHost::generation`].
pub(crate) trait ResourceHost {
    /// Returns the generation of the host's resources by its latest reply; `None` where it does not
    /// tell of any.
    fn generation(&self) -> Option<Generation>;
    /// Asks for the host's resources (RESOURCES).
    fn resources(&mut self) -> Option<Resources>;
    /// Sends a request (REQUEST). One that is lost is made up for by the next.
    fn request(&mut self, request: &Request);
}

/// What an exchange has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchanged {
    /// Whether the host has said something new.
    pub(crate) update: Update,
    /// When the next exchange is due, if it is.
    pub(crate) due: Option<Instant>,
}

/// Fetches what the host has to tell, and sends what the guest has to ask.
pub(crate) fn exchange(
    requester: &SpinLock<Requester>,
    host: &mut impl ResourceHost,
    memory: &MemoryState,
    now: Instant,
) -> Exchanged {
    let update = fetch(requester, host);
    let request = requester.lock().next(memory, now);
    if let Some(request) = request {
        log::debug!("requests: {request:?} of a guest with {memory:?}");
        host.request(&request);
    }
    let requester = requester.lock();
    let due = requester.is_waiting(memory, now).then(|| requester.due_at());
    Exchanged { update, due }
}

/// Reads the host's resources if they have another generation than the copy.
fn fetch(requester: &SpinLock<Requester>, host: &mut impl ResourceHost) -> Update {
    let Some(generation) = host.generation().filter(|&generation| generation != Generation(0)) else {
        return Update::Same;
    };
    let known = requester.lock().resources().map(|resources| resources.generation);
    if known == Some(generation) {
        return Update::Same;
    }
    let Some(resources) = host.resources() else { return Update::Same };
    requester.lock().note_resources(resources)
}

#[cfg(test)]
mod tests {
    use super::{ResourceHost, exchange};
    use crate::requests::requester::{MemoryState, Requester, Update};
    use crate::requests::{Claim, Workload};
    use crate::sync::{LockRank, SpinLock};
    use crate::time::Instant;
    use aerostat_abi::requests::{Generation, Request, Resources, Urgency};
    use aerostat_abi::units::FrameCount;
    use std::vec::Vec;

    /// A host that counts calls.
    struct Host {
        resources: Option<Resources>,
        reads: u32,
        requests: Vec<Request>,
    }

    impl ResourceHost for Host {
        fn generation(&self) -> Option<Generation> {
            self.resources.map(|resources| resources.generation)
        }

        fn resources(&mut self) -> Option<Resources> {
            self.reads += 1;
            self.resources
        }

        fn request(&mut self, request: &Request) {
            self.requests.push(*request);
        }
    }

    const MEMORY: MemoryState = MemoryState {
        total: FrameCount::from_mib(512),
        size: FrameCount::from_mib(64),
        spare: FrameCount::from_mib(16),
    };
    const WORKLOAD: Workload = Workload {
        amount: FrameCount::from_mib(100),
        needed: Instant::from_nanos(5_000_000_000),
        urgency: Urgency::Normal,
        claim: Claim::WhenShort,
    };

    fn requester() -> SpinLock<Requester> {
        SpinLock::new(LockRank::Requests, Requester::new())
    }

    #[test]
    fn an_unchanged_host_costs_no_call() {
        let requester = requester();
        let resources = Some(Resources::new(Generation(3)));
        let mut host = Host { resources, reads: 0, requests: Vec::new() };
        let update = |host: &mut Host, ms| exchange(&requester, host, &MEMORY, Instant::from_nanos(ms)).update;
        assert_eq!(update(&mut host, 1), Update::Different);
        assert_eq!((update(&mut host, 2), host.reads), (Update::Same, 1));
        host.resources = Some(Resources::new(Generation(4)));
        assert_eq!((update(&mut host, 3), host.reads), (Update::Same, 2), "another number, and the same contents");
        assert!(host.requests.is_empty());
    }

    #[test]
    fn what_is_declared_is_sent_once() {
        let requester = requester();
        let resources = Some(Resources::new(Generation(3)));
        let mut host = Host { resources, reads: 0, requests: Vec::new() };
        let id = requester.lock().declare(WORKLOAD, &MEMORY).unwrap();
        for ms in 0..5 {
            assert_eq!(exchange(&requester, &mut host, &MEMORY, Instant::from_nanos(ms)).due, None);
        }
        assert_eq!(host.requests.len(), 1);
        requester.lock().withdraw(id, &MEMORY);
        let due = exchange(&requester, &mut host, &MEMORY, Instant::from_nanos(9)).due;
        assert!(due.is_some(), "the withdrawal has to wait a moment");
        exchange(&requester, &mut host, &MEMORY, due.unwrap());
        assert_eq!((host.requests.len(), host.requests[1].amount), (2, 0));
    }

    #[test]
    fn a_transport_without_requests_is_left_alone() {
        let requester = requester();
        let mut host = Host { resources: None, reads: 0, requests: Vec::new() };
        requester.lock().declare(WORKLOAD, &MEMORY);
        assert_eq!(exchange(&requester, &mut host, &MEMORY, Instant::from_nanos(1)).due, None);
        assert_eq!((host.reads, host.requests.len()), (0, 0));
    }
}
