//! The balloon port's device: any calls, in any order, with any memory contents. The scripts'
//! interpreter and what must hold after each step are the monitor's
//! (`aerostat::vmm::harness::script`), whose tests play the seeds without a fuzzer.

#![no_main]

use aerostat::vmm::harness::script;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| script::play(bytes));
