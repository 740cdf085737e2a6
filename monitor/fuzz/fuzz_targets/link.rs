//! Fuzzes the decoder of the link in both directions, with any number of descriptors. The
//! package's tests run the seeds without a fuzzer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| aerostat_link::harness::receive(bytes));
