//! The `aerostat` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    aerostat::cli::main()
}
