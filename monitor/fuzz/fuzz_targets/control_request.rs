//! Fuzzes what the control server reads of a request. The
//! package's tests run the seeds without a fuzzer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| aerostat::harness::control_request(bytes));
