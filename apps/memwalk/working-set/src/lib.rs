//! A working set with tides, as the applications `memwalk` and `balloon` have one: [`Plan`] says how large it is when, as the words of a
//! command line give it, [`WorkingSet`] is the memory, written with known patterns, and [`run`] carries the plan out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod phases;
mod tides;
mod working_set;

pub use phases::{Phase, Plan, PlanError};
pub use tides::run;
pub use working_set::WorkingSet;
