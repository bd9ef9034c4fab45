//! Two files, put together by time: the first line without text parts them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| textbed_fuzz::merged(data));
