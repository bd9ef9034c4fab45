//! The instruction table against disassemblers that others wrote: capstone for all three
//! instruction sets, iced for x86-64.
//!
//! Forward: every row's example is disassembled to the row's name. Both ways: words with random
//! free bits, and random words, are in our table exactly if the disassembler's text is that of a
//! row. `TEXTBED_SLOW_TESTS` asks for ten times as many. Rows that a disassembler does not know are
//! listed by name, and the list is checked too.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod vectors;
mod words;
mod x86;

/// How many times the usual number of samples: 10 with `TEXTBED_SLOW_TESTS` set, else 1.
fn effort() -> usize {
    if std::env::var_os("TEXTBED_SLOW_TESTS").is_some() { 10 } else { 1 }
}

/// xorshift64*: the tests' own source of numbers, the same in every run.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
}
