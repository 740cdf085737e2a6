//! Makes calls without a session, negotiates badly, and ends the session in the middle, or again
//! and again.

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::port::{Command, Features, Hello, Registers, Status, VERSION, Welcome};
use aerostat_abi::units::{FrameCount, FrameNumber};

use crate::{SPARE, Wrong, expect, port};

const ROUNDS: usize = 200;

pub(crate) fn break_off() -> Result<(), Wrong> {
    port::mask_upcalls();
    expect(port::call(Command::Reset, !0, !0) == Some(Status::Ok), "RESET was refused")?;
    expect_no_session()?;
    negotiate_badly()?;
    ballooned_stays_ballooned()?;
    for _ in 0..ROUNDS {
        expect(port::call(Command::Reset, 0, 0) == Some(Status::Ok), "a later RESET was refused")?;
        expect(negotiate(HELLO) == Some(Status::Ok), "a later HELLO was refused")?;
    }
    expect(negotiate(HELLO) == Some(Status::SessionExists), "two HELLOs were accepted")
}

/// Ends the session and begins another one, without a pause.
pub(crate) fn reset(count: u64) -> Result<(), Wrong> {
    port::mask_upcalls();
    for _ in 0..count {
        expect(port::call(Command::Reset, 0, 0) == Some(Status::Ok), "RESET was refused")?;
        expect(negotiate(HELLO) == Some(Status::Ok), "HELLO was refused")?;
    }
    Ok(())
}

const HELLO: Hello = Hello { version: VERSION, features: Features(1), floor: FrameCount::ZERO, vector: 0x41 };

fn negotiate(hello: Hello) -> Option<Status> {
    Status::decode(port::raw_call(hello.encode()).rax)
}

/// Asserts that only HELLO is accepted.
fn expect_no_session() -> Result<(), Wrong> {
    for command in
        [Command::GetTarget, Command::Inflate, Command::Deflate, Command::Report, Command::Reset, Command::List]
    {
        for argument in [0, port::page(), !0] {
            let status = port::call(command, argument, argument);
            expect(status == Some(Status::NoSession), "a command was accepted before HELLO")?;
        }
    }
    expect(
        port::call(Command::Share, SPARE.start.address(), 32) == Some(Status::NoSession),
        "SHARE was accepted before HELLO",
    )
}

/// Asserts that invalid HELLOs are refused and that a valid one is accepted afterwards.
fn negotiate_badly() -> Result<(), Wrong> {
    for version in [0, 1, VERSION + 1, u32::MAX] {
        let reply = port::raw_call(Hello { version, ..HELLO }.encode());
        let is_refused = Status::decode(reply.rax) == Some(Status::UnsupportedVersion);
        expect(is_refused && Welcome::decode(&reply).version == VERSION, "a HELLO of another version was accepted")?;
    }
    for vector in [1, 31, 0x100, 1 << 32, u64::MAX] {
        let reply = port::raw_call(Registers { r8: vector, ..HELLO.encode() });
        expect(
            Status::decode(reply.rax) == Some(Status::BadArgument),
            "a HELLO with an exception's vector was accepted",
        )?;
    }
    let floor = FrameCount(SPARE.end.0 + 1);
    for floor in [floor, FrameCount(u64::MAX)] {
        expect(negotiate(Hello { floor, ..HELLO }) == Some(Status::BadArgument), "a floor above memory was accepted")?;
    }
    expect(negotiate(HELLO) == Some(Status::Ok), "HELLO was refused")
}

/// Asserts that the end of a session does not change the balloon.
fn ballooned_stays_ballooned() -> Result<(), Wrong> {
    let frame = Entry::pending(SPARE.start, 0);
    expect(port::batch(Command::Inflate, [frame]).2[0].status == EntryStatus::Done, "INFLATE was refused")?;
    expect(port::call(Command::Reset, 0, 0) == Some(Status::Ok), "RESET was refused in the middle")?;
    expect(
        port::call(Command::Deflate, port::page(), 1) == Some(Status::NoSession),
        "DEFLATE was accepted before HELLO",
    )?;
    expect(negotiate(HELLO) == Some(Status::Ok), "HELLO was refused after RESET")?;
    let list = |from: u64| {
        let reply = port::raw_call(Registers { rax: Command::List.encode(), rdi: port::page(), rsi: from, r8: 0 });
        (Status::decode(reply.rax), reply.rdi, reply.r8)
    };
    let listed = Entry { status: EntryStatus::Done, ..frame };
    expect(list(0) == (Some(Status::Ok), 1, 0) && Entry::decode(port::read(0)) == listed, "LIST is wrong")?;
    for from in [SPARE.start.0 + 1, FrameNumber::containing(u64::MAX).0, u64::MAX] {
        expect(list(from) == (Some(Status::Ok), 0, 0), "LIST is wrong after the last block")?;
    }
    for page in [port::page() + 8, SPARE.start.address(), SPARE.end.address(), 0xd000_0000, !4095] {
        expect(port::call(Command::List, page, 0) == Some(Status::BadPage), "LIST wrote to a bad page")?;
    }
    for address in [port::page() + 4, port::page() + 4088, SPARE.start.address(), 0xd000_0000, !7] {
        expect(port::call(Command::Report, address, 0) == Some(Status::BadPage), "REPORT read from a bad address")?;
    }
    expect(port::batch(Command::Deflate, [frame]).2[0].status == EntryStatus::Done, "DEFLATE was refused")
}
