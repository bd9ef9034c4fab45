//! How fast a stream is checked, through all rules on one core: streams A and B (see `streams`),
//! and A's fetches alone.

use divan::{Bencher, counter::ItemsCount};
use textbed_arch::Arch;
use textbed_check::{Checker, Mode, Options};
use textbed_event::{Batch, Kind, Sink};

mod streams;

use streams::Stream;

const EVENTS: usize = 400_000;
const ARCHES: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

fn main() {
    divan::main();
}

/// A checker for which the stream is set up.
fn ready(stream: &Stream, mode: Mode) -> Checker {
    let mut checker = Checker::new(Options { mode, ..Options::default() });
    let _ = checker.begin(&stream.header);
    stream.setup.iter().for_each(|batch| {
        let _ = checker.batch(batch);
    });
    checker
}

fn check(bencher: Bencher<'_, '_>, stream: &Stream, mode: Mode) {
    bencher
        .counter(ItemsCount::new(stream.events()))
        .with_inputs(|| ready(stream, mode))
        .bench_local_values(|mut checker| {
            stream.batches.iter().for_each(|batch| {
                let _ = checker.batch(batch);
            });
            checker
        });
}

#[divan::bench(args = ARCHES, sample_count = 5, sample_size = 1)]
fn a_observed(bencher: Bencher<'_, '_>, arch: &Arch) {
    check(bencher, &streams::a(*arch, EVENTS), Mode::Observed);
}

#[divan::bench(args = ARCHES, sample_count = 5, sample_size = 1)]
fn a_predicted(bencher: Bencher<'_, '_>, arch: &Arch) {
    check(bencher, &streams::a(*arch, EVENTS), Mode::Predicted);
}

#[divan::bench(args = ARCHES, sample_count = 3, sample_size = 1)]
fn b_a_million_mappings(bencher: Bencher<'_, '_>, arch: &Arch) {
    check(bencher, &streams::b(*arch, 1_000_000, EVENTS), Mode::Observed);
}

/// What is left over when nothing but code runs.
#[divan::bench(args = ARCHES, sample_count = 5, sample_size = 1)]
fn fetches_of_a(bencher: Bencher<'_, '_>, arch: &Arch) {
    let mut stream = streams::a(*arch, EVENTS);
    for batch in &mut stream.batches {
        *batch = Batch {
            events: batch.events.iter().filter(|e| e.kind == Kind::Fetch).copied().collect(),
            ..Batch::default()
        };
    }
    check(bencher, &stream, Mode::Observed);
}
