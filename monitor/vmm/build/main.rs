//! What is computed before the program is compiled: its build id, and the filters of its jail.

mod build_id;
mod filters;
mod table;
#[allow(unreachable_pub, reason = "the library has it, too, for its users")]
#[path = "../src/jail/seccomp/thread.rs"]
mod thread;

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build");
    build_id::compute()?;
    filters::compile()
}
