//! What an application that computes notices while memory leaves its guest and returns.

use std::thread;
use std::time::{Duration, Instant};

use aerostat_abi::exit::GuestExit;
use anyhow::{Result, ensure};

use super::mover::Mover;
use super::{MEMORY_MIB, MOVED_MIB, TURNS};
use crate::figures::Figures;
use crate::row::Row;

#[cfg(test)]
#[path = "../../../../guests/src/gaps.rs"]
mod gaps;

/// In which memory must have left and returned for a turn to count: the half second that the guest works for, less what it may take until
/// this process sees that the guest is ready.
const WINDOW: Duration = Duration::from_millis(400);
/// How long memory is away.
const AWAY: Duration = Duration::from_millis(20);
/// What a pause may come to, in microseconds.
const WORST_GOAL_US: f64 = 5000.0;

pub(super) fn measure() -> Result<Vec<Row>> {
    let mut figures = Figures::default();
    let mut turns = 0;
    for _ in 0..2 * TURNS {
        let mut guest = Mover::boot(MEMORY_MIB, "pauses");
        let ready = Instant::now();
        guest.resize(MEMORY_MIB - MOVED_MIB)?;
        thread::sleep(AWAY);
        guest.resize(MEMORY_MIB)?;
        let is_in_time = ready.elapsed() < WINDOW;
        guest.0.expect_exit(GuestExit::Success);
        if is_in_time {
            figures.add_guest(&guest.0)?;
            turns += 1;
        }
        if turns == TURNS {
            break;
        }
    }
    ensure!(turns > 0, "memory has never left and returned within {WINDOW:?}");
    let us = |name: &str| figures.ns(name).map(|ns| ns / 1e3);
    let slowdown = (1.0 - us("quiet_unit")? / us("moving_unit")?) * 100.0;
    Ok(vec![
        Row::cost("pause_worst_us", us("moving_worst")?, "us", us("quiet_worst")?).goal(WORST_GOAL_US),
        Row::cost("pause_p999_us", us("moving_p999")?, "us", us("quiet_p999")?),
        Row::plain("slowdown_percent", slowdown, "%"),
    ])
}

#[cfg(test)]
mod tests {
    use super::gaps::Gaps;

    #[test]
    fn one_gap_in_a_thousand_may_be_longer() {
        let mut gaps = Gaps::new();
        (0..999).for_each(|_| gaps.add(10_400));
        gaps.add(7_000_000);
        assert_eq!((gaps.count(), gaps.worst(), gaps.p999()), (1000, 7_000_000, 11_000));
        gaps.add(20_500);
        assert_eq!(gaps.p999(), 21_000);
    }

    #[test]
    fn a_gap_off_the_scale_counts() {
        let mut gaps = Gaps::new();
        gaps.add(u64::MAX);
        assert_eq!((gaps.worst(), gaps.p999() > 4_000_000), (u64::MAX, true));
    }

    #[test]
    fn no_gaps_have_no_length() {
        assert_eq!((Gaps::new().worst(), Gaps::new().p999()), (0, 0));
    }
}
