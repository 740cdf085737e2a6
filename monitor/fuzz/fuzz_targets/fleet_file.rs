//! Fuzzes the reader of fleet files, and its checks. The
//! package's tests run the seeds without a fuzzer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| aerostat::harness::fleet_file(bytes));
