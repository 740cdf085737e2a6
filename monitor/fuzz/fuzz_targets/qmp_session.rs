//! Fuzzes a session with a QEMU that sends any bytes. The
//! package's tests run the seeds without a fuzzer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| aerostat::harness::qmp_session(bytes));
