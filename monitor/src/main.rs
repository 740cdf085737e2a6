//! The `aerostat` command.

use std::process::ExitCode;

use aerostat::vmm;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(vmm::SUBCOMMAND) => vmm::process_main(),
        _ => ExitCode::FAILURE,
    }
}
