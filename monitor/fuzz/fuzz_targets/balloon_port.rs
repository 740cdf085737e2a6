//! Fuzzes the balloon port's device with any calls, in any order, with any memory contents. The
//! interpreter of the scripts and the checks after each step are the monitor's
//! (`aerostat_vmm::harness::script`), whose tests run the seeds without a fuzzer.

#![no_main]

use aerostat_vmm::harness::script;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| script::play(bytes));
