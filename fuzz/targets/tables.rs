//! Page-table pages beside a log.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| textbed_fuzz::tables(data));
