//! Reports impossible values: a balloon larger than memory, more free memory than there is, numbers
//! with the sign bit set, garbage as text.

use aerostat_abi::port::{Command, Features, Hello, Status, VERSION};
use aerostat_abi::statistics::WORDS;
use aerostat_abi::units::FrameCount;
use aerostat_guest::app::Instant;

use crate::{Wrong, expect, port};

/// How long each lie stays. The supervisor samples more often.
const STANDS_NS: u64 = 25_000_000;
const RANDOM_REPORTS: usize = 30;

pub(crate) fn tell() -> Result<(), Wrong> {
    port::mask_upcalls();
    for word in [u64::MAX, 1 << 63, (1 << 63) - 1, u64::MAX / 4096, 1, 0x1b5b_4a32_1b5b_4832, 0x0a0d_0a0d_0a0d_0a0d] {
        report(&[word; WORDS])?;
    }
    for place in 0..WORDS {
        let mut words = [1; WORDS];
        words[place] = u64::MAX;
        report(&words)?;
    }
    let mut state = 1_u64;
    for _ in 0..RANDOM_REPORTS {
        report(&core::array::from_fn(|_| {
            // Steps of xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }))?;
    }
    Ok(())
}

fn report(words: &[u64; WORDS]) -> Result<(), Wrong> {
    let end = Instant::now().after(STANDS_NS);
    while Instant::now() < end {
        port::write(words);
        match port::call(Command::Report, port::page(), 0) {
            Some(Status::Ok) => {}
            // The monitor has noticed that the reported balloon differs from the real one.
            Some(Status::ResetOrdered) => {
                let hello = Hello { version: VERSION, features: Features(0), floor: FrameCount::ZERO, vector: 0 };
                expect(Status::decode(port::raw_call(hello.encode()).rax) == Some(Status::Ok), "HELLO was refused")?;
            }
            _ => return Err("a report was refused"),
        }
    }
    Ok(())
}
