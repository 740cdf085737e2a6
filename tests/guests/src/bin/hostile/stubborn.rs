//! Grows, and then inflates nothing, or one frame every five seconds, whatever the target is.

use alloc::vec::Vec;

use aerostat_abi::batch::Entry;
use aerostat_abi::port::{Command, Features, Hello, Registers, VERSION};
use aerostat_abi::units::{FrameCount, FrameNumber};
use aerostat_guest::app::{self, Instant};

use crate::{Wrong, expect, port};

/// Bytes that it grows by.
const BYTES: usize = 160 << 20;
const PAUSE_NS: u64 = 5_000_000_000;
/// Long enough for the balloon driver to report the memory in use.
const REPORTED_MS: u64 = 1500;

pub(crate) fn never_listen() -> Result<(), Wrong> {
    let _memory = grow()?;
    port::mask_upcalls();
    port::call(Command::Reset, 0, 0);
    loop {
        core::hint::spin_loop();
    }
}

pub(crate) fn listen_slowly() -> Result<(), Wrong> {
    let _memory = grow()?;
    port::mask_upcalls();
    port::call(Command::Reset, 0, 0);
    let hello = Hello { version: VERSION, features: Features(0), floor: FrameCount::ZERO, vector: 0 };
    port::raw_call(hello.encode());
    // Inflates frames below the balloon, whatever is in them, since no other thread runs any more.
    let list = Registers { rax: Command::List.encode(), rdi: port::page(), rsi: 0, r8: 0 };
    expect(port::raw_call(list).rdi > 0, "the balloon is empty")?;
    let mut frame = Entry::decode(port::read(0)).frame;
    loop {
        frame = FrameNumber(frame.0 - 1);
        expect(port::batch(Command::Inflate, [Entry::pending(frame, 0)]).1 == 1, "a frame was refused")?;
        let end = Instant::now().after(PAUSE_NS);
        while Instant::now() < end {
            core::hint::spin_loop();
        }
    }
}

fn grow() -> Result<Vec<u8>, Wrong> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(BYTES).map_err(|_| "no memory")?;
    memory.resize(BYTES, 1);
    log::info!("hostile: has grown");
    app::sleep(REPORTED_MS);
    Ok(memory)
}
