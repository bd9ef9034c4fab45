//! How fast streams A and B (see `streams`) are checked, through all rules on one core.
//!
//! `cargo bench -p textbed-check --bench stream [-- STREAM... [ARCH...] [observed|predicted]]`,
//! where STREAM is `a` (the default), `b` (ten million mappings, several gigabytes) or `bN` (N
//! mappings). After [`WARM`] events chunks of the stream are checked one by one; making them is not
//! measured. A chunk takes about a millisecond by the clock, and the median of all chunks stands
//! there, so that what else the machine does changes it little; beside it stands what one more pass
//! over the same events takes that only adds up their words.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // benches may

use std::time::Instant;

use textbed_arch::Arch;
use textbed_check::{Checker, Mode, Options};
use textbed_event::{Batch, Sink};

mod streams;

use streams::{CHUNK, Stream};

/// Events that pass before anything is measured.
const WARM: usize = 16_000_000;
/// Chunks that are measured.
const CHUNKS: usize = 512;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let modes = [(Mode::Observed, "observed"), (Mode::Predicted, "predicted")];
    let archs: Vec<Arch> = wanted.iter().filter_map(|w| w.parse().ok()).collect();
    let of_arch = |arch: &Arch| archs.is_empty() || archs.contains(arch);
    let named = |name: &str| wanted.iter().any(|w| w == name);
    let any_mode = !modes.iter().any(|(_, name)| named(name));
    let streams = wanted.iter().filter(|w| w.starts_with(['a', 'b']) && w.parse::<Arch>().is_err());
    let streams: Vec<&str> = streams.map(String::as_str).collect();
    let streams = if streams.is_empty() { vec!["a"] } else { streams };
    println!("stream    architecture mode        M events/s  ns/event  plain pass  VmHWM");
    for name in streams {
        for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le].into_iter().filter(of_arch) {
            for (mode, _) in modes.into_iter().filter(|(_, name)| any_mode || named(name)) {
                let stream = match name.strip_prefix('b') {
                    Some("") => streams::b(arch, 10_000_000),
                    Some(n) => streams::b(arch, n.parse().unwrap()),
                    None => streams::a(arch),
                };
                measure(name, arch, mode, stream);
            }
        }
    }
}

/// Median of the chunks.
fn measure(name: &str, arch: Arch, mode: Mode, mut stream: Stream) {
    let mut checker = Checker::new(Options { mode, ..Options::default() });
    let _ = checker.begin(&stream.header());
    stream.set_up(|batch| {
        let _ = checker.batch(batch);
    });
    for _ in 0..WARM / CHUNK {
        check(&mut checker, &stream.next(CHUNK));
    }
    let (mut checked, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..CHUNKS {
        let batches = stream.next(CHUNK);
        let events = batches.iter().map(|batch| batch.events.len()).sum::<usize>();
        let ns = |begin: Instant| begin.elapsed().as_nanos() as f64 / events as f64;
        let begin = Instant::now();
        check(&mut checker, &batches);
        checked.push(ns(begin));
        let begin = Instant::now();
        std::hint::black_box(sum(&batches));
        plain.push(ns(begin));
    }
    let (checked, plain) = (median(checked), median(plain));
    let rate = 1e3 / checked;
    let (mode, memory) = (format!("{mode:?}"), memory());
    println!("{name:9} {arch:12} {mode:11} {rate:10.2} {checked:9.1} {plain:11.1}  {memory}");
}

fn check(checker: &mut Checker, batches: &[Batch]) {
    batches.iter().for_each(|batch| {
        let _ = checker.batch(batch);
    });
}

fn sum(batches: &[Batch]) -> u64 {
    let events = batches.iter().flat_map(|b| &b.events);
    events.fold(0, |sum, e| sum.wrapping_mul(31).wrapping_add(e.a ^ e.b ^ e.c ^ e.seq))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The most memory that this process had (Linux).
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("not known");
    line.trim().to_owned()
}
