//! Asks its host for more than there is, all the time: floods, replays, withdrawals, nonsense.

use aerostat_abi::port::{Command, Features, Hello, Registers, Status, VERSION};
use aerostat_abi::requests::{Outcome, Request, ResourceKind, Resources, Sequence, Urgency, WORDS};
use aerostat_abi::units::{FrameCount, to_usize};
use aerostat_guest::app::Instant;

use crate::{SPARE, Wrong, expect, port};

/// How long the flood lasts at least. The supervisor samples more often.
const FLOOD_NS: u64 = 3_000_000_000;
/// How long the host may take to deny.
const PATIENCE_NS: u64 = 10_000_000_000;

pub(crate) fn flood() -> Result<(), Wrong> {
    port::mask_upcalls();
    expect(port::call(Command::Reset, 0, 0) == Some(Status::Ok), "RESET was refused")?;
    let without = Hello { version: VERSION, features: Features(0), floor: FrameCount::ZERO, vector: 0 };
    expect(status_of(without.encode()) == Some(Status::Ok), "HELLO was refused")?;
    let unknown = Some(Status::UnknownCommand);
    expect(status_of(request(1, 0).encode()) == unknown, "a request without the feature was accepted")?;
    expect(port::call(Command::Resources, port::page(), 0) == unknown, "resources without the feature were told")?;
    expect(port::call(Command::Reset, 0, 0) == Some(Status::Ok), "RESET was refused")?;
    let hello = Hello { features: Features::REQUESTS, ..without };
    expect(status_of(hello.encode()) == Some(Status::Ok), "HELLO with requests was refused")?;
    ask_nonsense()?;
    let last = flood_from(2)?;
    is_denied(last)
}

/// Asserts that what is no request is refused, and that no other memory is written to.
fn ask_nonsense() -> Result<(), Wrong> {
    for address in [port::page() + 4, port::page() + 4088, SPARE.end.address() << 10, !7] {
        let status = port::call(Command::Resources, address, 0);
        expect(status == Some(Status::BadPage), "resources were written to a bad address")?;
    }
    for rdi in [0, !0, 1, 1 | 9 << 32, 1 << 32, 1 | 1 << 32 | 7 << 40] {
        let call = Registers { rax: Command::Request.encode(), rdi, rsi: !0, r8: !0 };
        expect(status_of(call) == Some(Status::BadArgument), "nonsense was accepted as a request")?;
    }
    Ok(())
}

/// Files requests as fast as it can, from this number on; returns the last number.
fn flood_from(first: u32) -> Result<u32, Wrong> {
    let end = Instant::now().after(FLOOD_NS);
    let mut sequence = first;
    while Instant::now() < end {
        let amount = [u64::MAX, 64 << 20, 0, 1 << 63][to_usize(u64::from(sequence % 4))];
        expect(status_of(request(sequence, amount).encode()) == Some(Status::Ok), "a request was refused")?;
        let replay = status_of(request(sequence - 1, 1).encode());
        expect(replay == Some(Status::BadArgument), "a replay was accepted")?;
        sequence += 1;
    }
    expect(status_of(request(sequence, u64::MAX).encode()) == Some(Status::Ok), "the last request was refused")?;
    Ok(sequence)
}

/// Asserts that the last request is denied. A guest without a supervisor has no answer.
fn is_denied(sequence: u32) -> Result<(), Wrong> {
    let end = Instant::now().after(PATIENCE_NS);
    loop {
        expect(port::call(Command::Resources, port::page(), 0) == Some(Status::Ok), "RESOURCES was refused")?;
        let words: [u64; WORDS] = core::array::from_fn(port::read);
        let resources = Resources::decode(&words);
        if resources == Resources::default() {
            return Ok(());
        }
        match resources.answer(ResourceKind::Memory).filter(|answer| answer.sequence == Sequence(sequence)) {
            Some(answer) => {
                let is_right = matches!(answer.outcome, Outcome::BeyondMax | Outcome::TooMany);
                return expect(is_right, "more than max was not denied");
            }
            None => expect(Instant::now() < end, "the last request was not answered")?,
        }
    }
}

fn request(sequence: u32, amount: u64) -> Request {
    Request {
        kind: ResourceKind::Memory,
        sequence: Sequence(sequence),
        urgency: Urgency::High,
        amount,
        needed_in_ns: 0,
    }
}

fn status_of(call: Registers) -> Option<Status> {
    Status::decode(port::raw_call(call).rax)
}
