//! A working set with phases, as the applications `memwalk` and `balloon` have one: [`Plan`] says
//! how large it is when, as the words of a command line give it, [`WorkingSet`] is the memory,
//! written with known patterns, and [`run`] carries the plan out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod phases;
mod phases_run;
mod working_set;

pub use phases::{Phase, Plan, PlanError};
pub use phases_run::run;
pub use working_set::WorkingSet;
