//! The job: fills its memory, and checks it until its time is over.

use core::fmt::Write as _;

use aerostat_abi::text::Text;
use aerostat_guest::app::memory::{Mapping, OutOfMemory};
use aerostat_guest::app::{self, Instant};

use crate::plan::{Habit, Plan};

/// The pause between two checks.
const REST_MS: u64 = 50;

/// Runs the job, which begins at `start`. Returns the number of wrong words.
pub(crate) fn run(plan: &Plan, start: Instant) -> Result<u64, OutOfMemory> {
    let stalled_before = app::memory().stalled_ns;
    let mut memory = Mapping::anonymous(plan.bytes)?;
    let there_ms = Instant::now().since(start) / 1_000_000;
    for (number, word) in (0_u64..).zip(memory.as_chunks_mut().0) {
        *word = pattern(number).to_le_bytes();
    }
    let stalled_ms = app::memory().stalled_ns.saturating_sub(stalled_before) / 1_000_000;
    log::info!("batch: the memory was there {there_ms} ms after the start, threads waited for {stalled_ms} ms");
    let mut text = Text::EMPTY;
    // Text that does not fit is dropped without an error.
    let _ = write!(text, "its memory was there after {there_ms} ms");
    app::report(0, 0, text.as_str());

    let end = start.after(u64::try_from(plan.run.as_nanos()).unwrap_or(u64::MAX));
    let (mut verified, mut errors) = (0, 0);
    loop {
        let is_over = Instant::now() >= end;
        if is_over || plan.habit == Habit::Works {
            errors += wrong_words(&memory);
            verified += memory.len() as u64;
            app::report(verified, errors, text.as_str());
        }
        if is_over {
            return Ok(errors);
        }
        app::sleep(REST_MS);
    }
}

fn wrong_words(memory: &[u8]) -> u64 {
    let words = (0_u64..).zip(memory.as_chunks().0);
    words.filter(|(number, word)| u64::from_le_bytes(**word) != pattern(*number)).count() as u64
}

/// Returns what a word holds: no page is like another, and none compresses to nothing.
fn pattern(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number >> 7
}
