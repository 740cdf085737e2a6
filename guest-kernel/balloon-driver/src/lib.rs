//! The balloon driver's loop as a pure state machine: what it does next, with which blocks, and
//! when its next step is due.
//!
//! A [`Driver`] stands between a [`Monitor`], which wants the guest to have a certain size, and the
//! guest's [`Memory`]. The frames in the balloon are in its [`PageList`]. To inflate, it allocates
//! blocks as any other part of the guest does and puts them into the balloon; to deflate, it gets
//! blocks of its page list back from the monitor and frees them. It does not depend on what else
//! needs the memory, on what a block is beyond its number and size, or on how the monitor is
//! reached. So the guest kernel's driver and the application `balloon` (US 7,433,951, claim 9) run
//! the same code.
//!
//! One step of the driver. Each box that waits names its stall reason; the policies that decide are
//! in the module of the same name:
//!
//! ```text
//!            step
//!             |  note what the host reclaimed; if there is any, ask for the target
//!             v
//!       session open? --no--> backoff pending --------------------> wait: HostSilent
//!             |               Ended   --HELLO Ok--> Listing
//!             |               Listing --LIST Ok---> Listing, after the last page Open
//!             |               a call fails: Ended, backoff grows --> wait: Refused, HostSilent
//!             | yes
//!   +---------+------------------------+---------------------------+
//!   | guest size > target              | =                         | guest size < target
//!   v                                  v                           v
//! INFLATE                            idle                        DEFLATE
//!  gate, in this order:               (stall reason Floor, if     backoff pending ----> wait
//!   hold: a thread waits               the host's target is       page list empty ----> Listing
//!     for memory --> GuestWaiting      below the floor;           pace: blocks of one size that
//!   backoff pending -----> wait       relief --> GuestWaiting)      fit the burst
//!   rate: budget empty --> Rate                                   DEFLATE the batch:
//!  pace: blocks that fit the burst                                 some done: backoff ends
//!  allocate, of one size:                                          none, and the target was
//!   1. whole huge frames                                             lowered: continue
//!   2. compaction, if it is cheaper                                none: backoff grows
//!   3. assembly: evict until a huge                                    --> Refused, HostSilent
//!       frame is whole
//!   4. single frames, with reclaim
//!       none left --> NoMemory, Thrashing
//!   3., 4. a thread waits --> GuestWaiting
//!  INFLATE the batch:
//!   all found and some done: backoff ends, rate grows
//!   otherwise: backoff grows, rate falls --> the reason above, Refused, HostSilent
//!   |                                                              |
//!   +--> continue; rest, when the burst is over  <-----------------+
//!
//! A reply with another target, or memory that becomes free, shortens a pending backoff (nudge).
//! A reply NoSession or ResetOrdered ends the session, at any call.
//! ```
//!
//! What keeps the driver from its target is one [`StallReason`]; what it has done is in
//! [`Metrics`].
//!
//! Nothing in here is unsafe, allocates or has a clock of its own. Times are nanoseconds on the
//! guest's clock, whose zero does not matter.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod assembly;
mod backoff;
mod batch;
mod compaction;
mod driver;
mod gate;
mod hold;
mod pace;
mod rate;
mod relief;
mod sides;
mod state;
#[cfg(test)]
mod testing;

pub use compaction::Compactable;
pub use driver::{Driver, Extent, Next};
pub use pace::PAUSE_GOAL_NS;
pub use rate::{BadRate, Rate, RateLimits};
pub use sides::{Block, Listed, Memory, Monitor, PageList, Reply, Room};
pub use state::{Failure, Metrics, StallChange, StallLog, StallReason, State};
