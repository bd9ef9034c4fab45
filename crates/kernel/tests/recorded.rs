//! Against what real kernels did: where 6.12 put its BPF programs on three architectures.

mod common;

use std::collections::BTreeMap;

use common::{Bed, boot};
use textbed_arch::Arch;

const RECORDED: &str = include_str!("data/bpf-packs-6.12.txt");

struct Run {
    bed: Bed,
    /// Address of the first program.
    base: u64,
}

#[test]
fn packs_give_the_room_that_recorded_kernels_gave() {
    let mut runs: BTreeMap<Arch, Run> = BTreeMap::new();
    let (mut compared, mut equal) = (0, 0);
    for line in RECORDED.lines().filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let arch: Arch = words[0].parse().unwrap();
        let size: u64 = words[2].parse().unwrap();
        let offset = u64::from_str_radix(words[3].trim_start_matches("0x"), 16).unwrap();
        let run = runs.entry(arch).or_insert_with(|| {
            let mut bed = boot("6.12", arch, &[]);
            // A program that stays, as earlier ones did: the pack never becomes empty.
            let first = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
            Run { bed, base: first + 64 }
        });
        if words[1] == "free" {
            run.bed.call("bpf_prog_pack_free", &[run.base + offset, size]);
            continue;
        }
        let got = match words.get(4) {
            Some(proglen) => run.bed.call("bpf_jit_binary_pack_alloc", &[proglen.parse().unwrap()]),
            None => run.bed.call("bpf_prog_pack_alloc", &[size]),
        };
        let trace = run.bed.take();
        drop(trace);
        compared += 1;
        equal += u32::from(got as u64 == run.base + offset);
    }
    println!("{compared} compared, {equal} equal");
    assert_eq!((compared, equal), (230, 230));
}
