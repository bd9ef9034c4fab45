//! Streams that may be packed: gzip, zstd, plain.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| textbed_fuzz::packed(data));
