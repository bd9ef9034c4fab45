//! Files beside a log: the first byte says which.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| textbed_fuzz::side(data));
