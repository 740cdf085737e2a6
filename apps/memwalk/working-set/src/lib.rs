//! A working set with phases, for the applications `memwalk` and `balloon`. A [`Plan`] has the
//! phases, parsed from the words of a command line. A [`WorkingSet`] is the memory, written with
//! known patterns. [`run`] carries the plan out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod phases;
mod phases_run;
mod working_set;

pub use phases::{Phase, Plan, PlanError};
pub use phases_run::run;
pub use working_set::WorkingSet;
