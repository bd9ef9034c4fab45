//! What one emulated instruction costs: arithmetic and branches alone, with loads and stores, and
//! with cache maintenance. Each item is one instruction of the guest.

#![allow(clippy::unwrap_used)]

#[path = "../tests/bed/mod.rs"]
mod bed;

use bed::{CPU0, DATA, newest};
use divan::{Bencher, counter::ItemsCount};
use textbed_arch::Arch;

fn main() {
    divan::main();
}

const ARCHES: [&str; 4] = ["x86_64", "arm64", "ppc64le", "ppc64"];

fn run(bencher: Bencher<'_, '_>, arch: &str, name: &str, args: &[u64]) {
    let arch: Arch = arch.parse().unwrap();
    let mut bed = newest(arch);
    let entry = bed.install(name);
    let args: Vec<u64> = [&[bed.at(DATA, 0)], args].concat();
    let args = if name == "fib" { vec![args[1]] } else { args };
    let steps = bed.call_on(CPU0, entry, &args).steps;
    bencher.counter(ItemsCount::new(steps)).bench_local(|| {
        bed.forget_events();
        bed.call_on(CPU0, entry, &args)
    });
}

/// Nothing but a jump to itself, 10 000 times.
#[divan::bench(args = ARCHES, sample_count = 20)]
fn spin(bencher: Bencher<'_, '_>, arch: &str) {
    run(bencher, arch, "spin", &[]);
}

/// A load and a store in five to seven instructions.
#[divan::bench(args = ARCHES, sample_count = 20)]
fn sum_loop(bencher: Bencher<'_, '_>, arch: &str) {
    run(bencher, arch, "sum_loop", &[256]);
}

/// Calls, returns, and registers saved on the stack.
#[divan::bench(args = ARCHES, sample_count = 20)]
fn fib(bencher: Bencher<'_, '_>, arch: &str) {
    run(bencher, arch, "fib", &[8]);
}

/// Cleans and invalidations, line by line.
#[divan::bench(args = ARCHES, sample_count = 20)]
fn cachesync_range(bencher: Bencher<'_, '_>, arch: &str) {
    run(bencher, arch, "cachesync_range", &[4096, 64]);
}
