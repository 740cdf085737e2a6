//! Fuzzes a disk: its registers, its queue in guest memory, and its requests. The
//! package's tests run the seeds without a fuzzer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| aerostat_vmm::disk_harness::play(bytes));
