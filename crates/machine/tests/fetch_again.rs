//! Fetches that are remembered against fetches that are made anew: the same bytes, events and state
//! after the same history, whatever the policy.

#![allow(clippy::unwrap_used)]

mod common;

use common::{KERNEL, P0, P1, P2, Rig};
use textbed_arch::{Arch, CpuId, Features, Perm, VirtAddr};
use textbed_machine::{Again, Newest, Policy, Random, SplitMix64, Stalest};

const CPUS: [CpuId; 3] = [P0, P1, P2];
/// Words of two lines, one of another page, and one that is not mapped.
const WORDS: [u64; 5] = [0x40, 0x44, 0x80, 0x1040, 0x4000];

/// What is remembered, by CPU and word.
type Kept = [[Option<(Again, Vec<u8>)>; WORDS.len()]; CPUS.len()];

/// How a fetch was made.
#[derive(Default)]
struct Made {
    again: usize,
    only: usize,
    anew: usize,
}

/// Fetches, by memory of earlier ones where there is any.
fn remembered(
    rig: &mut Rig,
    cpu: CpuId,
    word: usize,
    kept: &mut Kept,
    made: &mut Made,
) -> Option<Vec<u8>> {
    let at = rig.code.offset(WORDS[word]);
    let slot = &mut kept[cpu.index()][word];
    if let Some((again, bytes)) = slot
        && rig.m.fetch_again(again)
    {
        made.again += 1;
        return Some(bytes.clone());
    }
    let mut room = [0; 16];
    let mut length = |bytes: &[u8]| (bytes.len() >= 4).then_some(4);
    if let Some(again) = rig.m.fetch_only(cpu, at, &mut length, &mut room) {
        made.only += 1;
        let bytes = room[..again.bytes()].to_vec();
        *slot = Some((again, bytes.clone()));
        return Some(bytes);
    }
    made.anew += 1;
    rig.m.fetch(cpu, at, 4).ok().map(|got| got.bytes)
}

/// Something that changes what fetches may get.
fn change(rig: &mut Rig, arch: Arch, kind: u64, cpu: CpuId, word: u64, version: u32) {
    let (clean, invalidate, barrier, sync, flush) = match arch {
        Arch::X86_64 => (None, None, "mfence", "cpuid", "invlpg"),
        Arch::Arm64 => (Some("dc cvau"), Some("ic ivau"), "dsb ish", "isb", "tlbi vaae1is"),
        _ => (Some("dcbst"), Some("icbi"), "sync", "isync", ""),
    };
    let offset = WORDS[word as usize % 4];
    match kind {
        0 => rig.str(cpu, offset, version),
        1 => clean.into_iter().for_each(|name| rig.op(cpu, name, offset)),
        2 => invalidate.into_iter().for_each(|name| rig.op(cpu, name, offset)),
        3 => rig.op(cpu, barrier, 0),
        4 => rig.op(cpu, sync, 0),
        5 if arch == Arch::X86_64 => rig.op(cpu, flush, offset),
        6 => {
            let (set, clear) = match version % 2 {
                0 => (Perm::empty(), Perm::EXEC),
                _ => (Perm::EXEC, Perm::empty()),
            };
            let page = VirtAddr(rig.code.offset(offset).0 & !0xfff);
            rig.m.protect(cpu, KERNEL, page, 0x1000, set, clear).unwrap();
        }
        7 => {
            let _ = rig.load(cpu, offset);
        }
        _ => {}
    }
}

#[test]
fn a_remembered_fetch_is_the_fetch_that_would_be_made() {
    let mut made = Made::default();
    for (arch, features) in [
        (Arch::X86_64, Features::default_for(Arch::X86_64)),
        (Arch::X86_64, Features::X86_AMD),
        (Arch::Arm64, Features::ARM_EIS | Features::ARM_EOS),
        (Arch::Arm64, Features::ARM_IDC | Features::ARM_DIC),
        (Arch::Ppc64le, Features::default_for(Arch::Ppc64le)),
        (Arch::Ppc64le, Features::PPC_COHERENT_ICACHE),
    ] {
        for seed in 0..40 {
            let policy = |n: u64| -> Box<dyn Policy> {
                match n % 4 {
                    0 => Box::new(Newest),
                    1 => Box::new(Stalest),
                    _ => Box::new(Random::new(n)),
                }
            };
            let mut anew = Rig::new(arch, features, policy(seed));
            let mut by_memory = Rig::new(arch, features, policy(seed));
            let mut kept: Kept = Default::default();
            let mut r = SplitMix64(seed ^ (arch as u64) << 32);
            for n in 0..300 {
                let (cpu, word) = (CPUS[r.below(3) as usize], r.below(5));
                let kind = r.below(90);
                if kind < 8 {
                    for rig in [&mut anew, &mut by_memory] {
                        change(rig, arch, kind, cpu, word, n);
                    }
                    continue;
                }
                let at = anew.code.offset(WORDS[word as usize]);
                let expected = anew.m.fetch(cpu, at, 4).ok().map(|got| got.bytes);
                let got = remembered(&mut by_memory, cpu, word as usize, &mut kept, &mut made);
                assert_eq!(got, expected, "{arch} seed {seed} step {n}");
            }
            let (a, b) = (anew.m.take_batch(), by_memory.m.take_batch());
            assert_eq!(a.events, b.events, "{arch} seed {seed}");
            assert_eq!(
                anew.m.choices().answers(),
                by_memory.m.choices().answers(),
                "{arch} seed {seed}: choices"
            );
            let state = |rig: &Rig| rig.m.fingerprint(&[(rig.phys, 0x4000)], &[]).unwrap();
            assert_eq!(state(&anew), state(&by_memory), "{arch} seed {seed}: state");
        }
    }
    let Made { again, only, anew } = made;
    println!("{again} fetches remembered, {only} that could get one thing, {anew} others");
    assert!(again > 5000 && only > 2000 && anew > 2000);
}
