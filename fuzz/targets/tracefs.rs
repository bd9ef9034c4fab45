//! Lines of tracefs `trace` and `trace_pipe`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use textbed_fuzz::{Format, replayed};

fuzz_target!(|data: &[u8]| replayed(data, Format::Tracefs));
