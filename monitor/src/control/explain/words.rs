//! How amounts are written.

use aerostat_abi::units::{FRAMES_PER_MIB, FrameCount};

use crate::scheduler::Rung;
use crate::supervisor::EnforcementStatus;

/// Returns an amount in MiB, with a decimal where it is not whole.
pub(super) fn amount(count: FrameCount) -> String {
    if count.0.is_multiple_of(FRAMES_PER_MIB) { format!("{} MiB", count.mib()) } else { count.to_string() }
}

/// Returns what is done about a guest that is larger than its target, and what follows.
pub(super) fn done(enforcement: &EnforcementStatus) -> String {
    let EnforcementStatus { withheld, rung, cause, next, .. } = enforcement;
    let what = match rung {
        Rung::Asked => "its balloon was asked",
        Rung::Paging => "the host pages it out",
        Rung::Squeezed => "the host takes memory from its process",
        Rung::Paused => "it is paused",
        Rung::Ending => "it is being ended",
    };
    let follows = next.map_or(String::new(), |(next, left)| {
        let next = match next {
            Rung::Asked | Rung::Paging => "it is paged out",
            Rung::Squeezed => "memory is taken from its process",
            Rung::Paused => "it is paused",
            Rung::Ending => "it is ended",
        };
        format!("; after {:.1} s more of that {next}", left.as_secs_f64())
    });
    format!("it is {} above its target, as {cause}: {what}{follows}", amount(*withheld))
}

/// Returns an amount as a user writes it, rounded up to what guest memory is dealt in.
pub(super) fn argument(count: FrameCount) -> String {
    format!("{}M", count.0.div_ceil(2 * FRAMES_PER_MIB) * 2)
}
