//! The `aerostat-vmm` program, which the supervisor starts for each guest.

use std::process::ExitCode;

fn main() -> ExitCode {
    aerostat_vmm::process_main()
}
