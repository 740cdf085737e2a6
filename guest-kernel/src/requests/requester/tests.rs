use aerostat_abi::requests::{
    Answer, Component, Generation, Outcome, Request, ResourceKind, Resources, Sequence, Urgency,
};
use aerostat_abi::units::{FrameCount, to_usize};
use proptest::collection::vec;
use proptest::{prop_assert, proptest};

use super::{Claim, MemoryState, Requester, SPACING_NS, Status, Update, Workload};
use crate::time::Instant;

const SECOND_NS: u64 = 1_000_000_000;

const fn mib(count: u64) -> FrameCount {
    FrameCount::from_mib(count)
}

/// A guest of up to 512 MiB that has `size` and can spare `spare` of it, in MiB.
const fn memory(size: u64, spare: u64) -> MemoryState {
    MemoryState { total: mib(512), size: mib(size), spare: mib(spare) }
}

fn resources(generation: u64, answer: Option<(u32, Outcome)>) -> Resources {
    let mut resources = Resources::new(Generation(generation));
    let (total, most) = (mib(1024).bytes(), mib(512).bytes());
    resources.push(Component { kind: ResourceKind::Memory, total, free: 0, assigned: 0, most });
    let answer = answer.map(|(sequence, outcome)| Answer { sequence: Sequence(sequence), outcome, granted: 0 });
    resources.set_answer(ResourceKind::Memory, answer);
    resources
}

/// A requester whose host tells of its resources.
fn informed() -> Requester {
    let mut requester = Requester::new();
    requester.note_resources(resources(1, None));
    requester
}

fn workload(amount: u64, claim: Claim) -> Workload {
    Workload { amount: mib(amount), needed: Instant::from_nanos(5 * SECOND_NS), urgency: Urgency::Normal, claim }
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn amount(request: Option<Request>) -> Option<u64> {
    request.map(|request| FrameCount::from_bytes_ceil(request.amount).mib())
}

#[test]
fn an_update_is_compared_with_the_copy() {
    let mut requester = Requester::new();
    assert_eq!(requester.note_resources(resources(1, None)), Update::Different);
    assert_eq!(requester.note_resources(resources(2, None)), Update::Same);
    assert_eq!(requester.note_resources(resources(3, Some((1, Outcome::Queued)))), Update::Different);
}

#[test]
fn a_workload_is_asked_for_where_the_guest_is_short_of_it() {
    let mut requester = informed();
    let id = requester.declare(workload(100, Claim::WhenShort), &memory(64, 20)).unwrap();
    assert_eq!(requester.status(id, &memory(64, 20)), Status::Pending);
    let request = requester.next(&memory(64, 20), at(1000)).unwrap();
    assert_eq!((request.sequence, request.urgency), (Sequence(1), Urgency::Normal));
    assert_eq!(request.needed_in_ns, 4 * SECOND_NS);
    assert_eq!(amount(Some(request)), Some(44 + 100 + 2), "with page tables");
    assert_eq!(requester.next(&memory(64, 20), at(2000)), None, "once");
    // It is kept when the memory has come, and when it is used.
    requester.note_resources(resources(2, Some((1, Outcome::Granted))));
    assert_eq!(requester.next(&memory(146, 102), at(3000)), None);
    assert_eq!(requester.status(id, &memory(146, 102)), Status::Ready);
    assert_eq!(requester.next(&memory(146, 2), at(4000)), None);
    requester.withdraw(id, &memory(146, 2));
    assert_eq!(requester.next(&memory(146, 2), at(5000)), None, "what is used needs no word");
}

#[test]
fn a_guest_that_has_enough_asks_only_where_the_host_is_to_keep_it() {
    let mut requester = informed();
    let id = requester.declare(workload(100, Claim::WhenShort), &memory(300, 200)).unwrap();
    assert_eq!(requester.status(id, &memory(300, 200)), Status::Ready);
    assert_eq!(requester.next(&memory(300, 200), at(1000)), None);
    assert_eq!(amount(requester.next(&memory(150, 50), at(2000))), Some(202), "the host has shrunk it meanwhile");

    let mut requester = informed();
    requester.declare(workload(100, Claim::Always), &memory(300, 200)).unwrap();
    assert_eq!(amount(requester.next(&memory(300, 200), at(1000))), Some(202));
}

#[test]
fn a_workload_that_is_withdrawn_withdraws_the_request() {
    let mut requester = informed();
    let id = requester.declare(workload(100, Claim::WhenShort), &memory(64, 20)).unwrap();
    requester.next(&memory(64, 20), at(1000)).unwrap();
    requester.withdraw(id, &memory(64, 20));
    assert_eq!(requester.next(&memory(64, 20), at(1001)), None, "not at once");
    assert!(requester.is_waiting(&memory(64, 20), at(1001)));
    let request = requester.next(&memory(64, 20), at(2000)).unwrap();
    assert_eq!((request.sequence, request.amount), (Sequence(2), 0));
    assert!(!requester.is_waiting(&memory(64, 20), at(2000)));
}

#[test]
fn a_denial_ends_the_wait_and_is_not_asked_for_again() {
    let mut requester = informed();
    let id = requester.declare(workload(900, Claim::WhenShort), &memory(64, 20)).unwrap();
    assert_eq!(amount(requester.next(&memory(64, 20), at(1000))), Some(944));
    requester.note_resources(resources(2, Some((1, Outcome::BeyondMax))));
    assert_eq!(requester.status(id, &memory(64, 20)), Status::Denied(Outcome::BeyondMax));
    assert_eq!(requester.next(&memory(64, 20), at(2000)), None);
    requester.note_resources(resources(3, Some((7, Outcome::BeyondMax))));
    assert_eq!(requester.status(id, &memory(64, 20)), Status::Pending, "the answer is to another request");
}

#[test]
fn a_host_without_time_is_asked_again() {
    let mut requester = informed();
    requester.declare(workload(100, Claim::WhenShort), &memory(64, 20)).unwrap();
    requester.next(&memory(64, 20), at(1000)).unwrap();
    requester.note_resources(resources(2, Some((1, Outcome::TooMany))));
    assert_eq!(requester.next(&memory(64, 20), at(2000)).map(|request| request.sequence), Some(Sequence(2)));
}

#[test]
fn a_host_that_does_not_tell_is_not_asked() {
    let mut requester = Requester::new();
    let id = requester.declare(workload(100, Claim::Always), &memory(64, 20)).unwrap();
    assert_eq!(requester.next(&memory(64, 20), at(1000)), None);
    assert_eq!(requester.status(id, &memory(64, 20)), Status::Denied(Outcome::NotShared));
    assert!(!requester.is_waiting(&memory(64, 20), at(1000)));
}

#[test]
fn growth_that_lasts_is_asked_for_as_what_may_be_needed() {
    let mut requester = informed();
    let mut requests = Vec::new();
    for step in 0..12 {
        // 10 MiB in a quarter of a second; the host has left 16 MiB of headroom.
        let used = 64 + step * 10;
        requests.extend(requester.next(&memory(used + 16, 16), at(1000 + 250 * step)));
    }
    assert!((2..=8).contains(&requests.len()), "{requests:?}");
    assert!(requests.iter().all(|request| request.urgency == Urgency::Low));
    assert_eq!(amount(requests.first().copied()), Some(64 + 40 + 40 + 2));
    let used = 64 + 11 * 10;
    for ms in (4250..6000).step_by(250) {
        requests.extend(requester.next(&memory(used + 16, 16), at(ms)));
    }
    assert_eq!(amount(requests.last().copied()), Some(0), "it has stopped growing");
}

proptest! {
    /// Whatever the application, the host and the guest's memory do.
    #[test]
    fn numbers_rise_and_requests_are_rare(
        events in vec((0_u8..6, 0_u64..600, 0_u64..600, 0_u64..400), 1..200),
    ) {
        let mut requester = informed();
        let (mut now, mut last, mut generation) = (at(1), None::<(u32, Instant)>, 1);
        let mut ids = Vec::new();
        for (kind, size, spare, ms) in events {
            now = now.after(ms * 1_000_000);
            let memory = memory(size, spare.min(size));
            match kind {
                0 => ids.extend(requester.declare(workload(spare, Claim::WhenShort), &memory)),
                1 => ids.extend(requester.declare(workload(spare, Claim::Always), &memory)),
                2 => if let Some(id) = ids.pop() {
                    requester.withdraw(id, &memory);
                },
                3 => {
                    generation += 1;
                    let outcome = Outcome::ALL[to_usize(ms) % Outcome::ALL.len()];
                    requester.note_resources(resources(generation, last.map(|(sequence, _)| (sequence, outcome))));
                }
                _ => {}
            }
            if let Some(request) = requester.next(&memory, now) {
                let sequence = request.sequence.0;
                if let Some((before, at)) = last {
                    prop_assert!(sequence > before && now.since(at) >= SPACING_NS);
                }
                last = Some((sequence, now));
                prop_assert!(!requester.is_waiting(&memory, now), "it was sent");
            }
            let status = |id| requester.status(id, &memory);
            prop_assert!(ids.iter().all(|id| status(*id) == status(*id)), "it panics at nothing");
        }
    }
}
