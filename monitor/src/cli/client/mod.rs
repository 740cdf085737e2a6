//! The commands that talk to a fleet that runs, over its control socket.
//!
//! | part | commands |
//! |---|---|
//! | `connection` | finding the fleet |
//! | `output` | standard output, which may be closed at any time |
//! | `show` | `ps`, `stats`, `explain`, `inspect` |
//! | `top` | `top` |
//! | `guest` | `start`, `stop`, `kill`, `restart`, `set`, `target` |
//! | `fleet` | `pool`, `apply`, `down` |
//! | `streams` | `events`, `logs` |

mod connection;
mod fleet;
mod guest;
mod output;
mod show;
mod streams;
mod top;

pub(super) use self::fleet::{ApplyArguments, DownArguments, PoolArguments, apply, down, pool};
pub(super) use self::guest::{Action, ActionArguments, SetArguments, TargetArguments, act, set, target};
pub(super) use self::output::print;
pub(super) use self::show::{GuestArguments, PsArguments, StatsArguments, explain, inspect, ps, stats};
pub(super) use self::streams::{EventsArguments, LogsArguments, events, logs};
pub(super) use self::top::{TopArguments, top};
