//! Makes calls of all kinds as fast as it can, most of them invalid.

use aerostat_abi::batch::Entry;
use aerostat_abi::port::{Command, Features, Hello, Registers, Status, VERSION};
use aerostat_abi::units::{FrameCount, HUGE_ORDER};

use crate::{SPARE, Wrong, expect, port};

pub(crate) fn make(count: u64) -> Result<(), Wrong> {
    port::mask_upcalls();
    let hello = Hello { version: VERSION, features: Features(!0), floor: FrameCount::ZERO, vector: 0x41 };
    let frame = Entry::pending(SPARE.start, 0);
    let huge = Entry::pending(SPARE.end, HUGE_ORDER);
    for number in 0..count {
        let status = match number % 16 {
            0 => port::call(Command::Reset, 0, 0),
            1 => Status::decode(port::raw_call(hello.encode()).rax),
            2 => port::batch(Command::Inflate, [frame]).0,
            3 => port::batch(Command::Deflate, [frame]).0,
            4 => port::batch(Command::Inflate, [huge; 512]).0,
            5 => port::batch(Command::Deflate, [huge; 512]).0,
            6 => port::call(Command::List, port::page(), 0),
            7 => port::call(Command::Report, port::page(), 0),
            8 => port::call(Command::Share, SPARE.start.address(), number),
            9 => Status::decode(port::raw_call(Registers { rax: number, rdi: number, rsi: !number, r8: 0 }).rax),
            _ => port::call(Command::GetTarget, 0, 0),
        };
        expect(status.is_some(), "a call was not answered")?;
    }
    Ok(())
}
