//! The two sides of the driver in tests: a guest's memory and hosts of every kind, with a clock
//! that the test moves.

mod clock;
mod frame_set;
mod host;
mod memory;

pub(crate) use clock::Clock;
pub(crate) use frame_set::FrameSet;
pub(crate) use host::{Behaviour, Host};
pub(crate) use memory::TestMemory;
