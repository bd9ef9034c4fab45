//! What a fetch gets of code that another CPU replaces at the same time: old or new where the
//! architecture promises that, else a mixture, or a word that says that anything can happen.

// Functions beside the tests may fail a test, too.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{P0, P1, Rig};
use textbed_arch::{Arch, Features};
use textbed_event::{Kind, MemOrder};
use textbed_machine::{Integrity, Newest, Policy, Random, Stalest};

type Outcome = (Vec<u8>, Integrity);

const SEEDS: u64 = 600;

/// Old code at an offset, then new code stored over it by P0; what P1 fetches under a policy.
fn fetch(
    (arch, features): (Arch, Features),
    (at, old, new): (u64, &[u8], &[u8]),
    between: &dyn Fn(&mut Rig),
    policy: Box<dyn Policy>,
) -> Outcome {
    let mut r = Rig::new(arch, features, policy);
    let (alias, code) = (r.alias.offset(at), r.code.offset(at));
    r.m.store(P0, alias, old, MemOrder::Plain).unwrap();
    settle(&mut r, at);
    r.m.store(P0, alias, new, MemOrder::Plain).unwrap();
    between(&mut r);
    let got = r.m.fetch(P1, code, new.len()).unwrap();
    (got.bytes, got.integrity)
}

/// Everybody has what is there now.
fn settle(r: &mut Rig, at: u64) {
    let (maintenance, sync): (&[&str], &str) = match r.m.arch() {
        Arch::X86_64 => (&[], "cpuid"),
        Arch::Arm64 => (&["dc cvau", "dsb ish", "ic ivau", "dsb ish"], "isb"),
        _ => (&["dcbst", "sync", "icbi", "sync"], "isync"),
    };
    r.ops(P0, maintenance, at);
    r.op(P0, sync, 0);
    r.op(P1, sync, 0);
}

fn all(
    hardware: (Arch, Features),
    change: (u64, &[u8], &[u8]),
    between: &dyn Fn(&mut Rig),
) -> BTreeSet<Outcome> {
    for policy in [Box::new(Newest) as Box<dyn Policy>, Box::new(Stalest)] {
        let (bytes, integrity) = fetch(hardware, change, between, policy);
        assert_eq!(integrity, Integrity::Whole);
        assert!(bytes == change.1 || bytes == change.2);
    }
    (0..SEEDS).map(|n| fetch(hardware, change, between, Box::new(Random::new(n)))).collect()
}

fn nothing(_: &mut Rig) {}

const OLD: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x01];
const NEW: [u8; 5] = [0xe9, 0xaa, 0xbb, 0xcc, 0xdd];

fn whole<const N: usize>(of: [&[u8]; N]) -> BTreeSet<Outcome> {
    of.into_iter().map(|bytes| (bytes.to_vec(), Integrity::Whole)).collect()
}

/// Old up to a byte and new from there on, and the other way round.
fn mixtures(cuts: &[usize], both_ways: bool) -> BTreeSet<Outcome> {
    let join = |a: [u8; 5], b: [u8; 5], cut: usize| [&a[..cut], &b[cut..]].concat();
    let mut out = BTreeSet::new();
    for cut in cuts {
        out.insert((join(OLD, NEW, *cut), Integrity::Torn));
        if both_ways {
            out.insert((join(NEW, OLD, *cut), Integrity::Torn));
        }
    }
    out
}

fn intel() -> (Arch, Features) {
    (Arch::X86_64, Features::default_for(Arch::X86_64).difference(Features::X86_AMD))
}

fn amd() -> (Arch, Features) {
    (Arch::X86_64, Features::default_for(Arch::X86_64).union(Features::X86_AMD))
}

#[test]
fn x86_promises_a_byte_on_intel_and_an_aligned_quadword_on_amd() {
    let plain = whole([&OLD, &NEW]);
    let with = |more: BTreeSet<Outcome>| plain.union(&more).cloned().collect::<BTreeSet<_>>();
    for at in [0x40, 0x46] {
        let got = all(intel(), (at, &OLD, &NEW), &nothing);
        assert_eq!(got, with(mixtures(&[1, 2, 3, 4], true)), "Intel at {at:#x}");
    }
    assert_eq!(all(amd(), (0x40, &OLD, &NEW), &nothing), plain, "in a quadword");
    // Two bytes in one quadword and three in the next; fetches are in order.
    assert_eq!(all(amd(), (0x46, &OLD, &NEW), &nothing), with(mixtures(&[2], false)));
    // The first byte alone, as a breakpoint is set.
    let mut trap = OLD;
    trap[0] = 0xcc;
    assert_eq!(all(intel(), (0x46, &OLD, &trap), &nothing), whole([&OLD, &trap]));
}

#[test]
fn who_synchronised_or_knows_of_the_store_gets_no_mixture() {
    let change = (0x46, &OLD[..], &NEW[..]);
    let serialised = |r: &mut Rig| r.op(P1, "cpuid", 0);
    assert_eq!(all(intel(), change, &serialised), whole([&NEW]));
    // The load shows that the store was made; what was fetched ahead is old.
    let loaded = |r: &mut Rig| {
        r.load(P1, 0x200);
    };
    assert_eq!(all(intel(), change, &loaded), whole([&OLD, &NEW]));
}

#[test]
fn a_torn_fetch_is_told_as_old_and_knows_of_the_new() {
    // Torn; old, and what was stored before is old, too.
    let mut seen = (0, 0);
    for seed in 0..SEEDS {
        let mut r = Rig::new(amd().0, amd().1, Box::new(Random::new(seed)));
        let other = 0x200;
        r.m.store(P0, r.alias.offset(0x46), &OLD, MemOrder::Plain).unwrap();
        settle(&mut r, 0x46);
        r.m.store(P0, r.alias.offset(other), &[0xcc], MemOrder::Plain).unwrap();
        r.m.store(P0, r.alias.offset(0x46), &NEW, MemOrder::Plain).unwrap();
        r.m.take_batch();
        let got = r.m.fetch(P1, r.code.offset(0x46), 5).unwrap();
        let events = r.m.take_batch().events;
        let told = events.iter().any(|e| e.kind == Kind::Observed);
        assert_eq!(told, got.bytes != NEW, "seed {seed}");
        assert_eq!(got.behind > 0, told, "seed {seed}");
        let then = r.m.fetch(P1, r.code.offset(other), 1).unwrap().bytes;
        // Fetches are in order here.
        assert!(got.bytes == OLD || then == [0xcc], "seed {seed}");
        seen.0 += u32::from(got.integrity == Integrity::Torn);
        seen.1 += u32::from(then != [0xcc]);
    }
    assert!(seen.0 > 50 && seen.1 > 10, "{seen:?}");
}

fn arm() -> (Arch, Features) {
    (Arch::Arm64, Features::ARM_EIS | Features::ARM_EOS)
}

fn words(hardware: (Arch, Features), old: u32, new: u32) -> (Vec<(u32, Integrity)>, bool) {
    let little = hardware.0.is_little_endian();
    let bytes = |w: u32| if little { w.to_le_bytes() } else { w.to_be_bytes() };
    let got = all(hardware, (0x40, &bytes(old), &bytes(new)), &nothing);
    let open = got.iter().any(|(_, integrity)| *integrity == Integrity::Unpredictable);
    let word = |b: &[u8]| {
        let b = b.try_into().unwrap();
        if little { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) }
    };
    let rest = got.iter().filter(|(_, i)| *i != Integrity::Unpredictable);
    (rest.map(|(b, i)| (word(b), *i)).collect(), open)
}

#[test]
fn arm64_promises_what_is_in_its_list() {
    let (nop, b, bl) = (0xd503_201f, 0x1400_0010, 0x9400_0020);
    let both = |a: u32, b: u32| vec![(a, Integrity::Whole), (b, Integrity::Whole)];
    for (old, new) in [(nop, b), (b, bl), (bl, nop)] {
        let (mut got, open) = words(arm(), old, new);
        got.sort_by_key(|(word, _)| *word != old);
        assert_eq!((got, open), (both(old, new), false), "{old:#x} {new:#x}");
    }
    // `mov x0, #1` and `ret` are not: anything, in one direction and the other.
    let (mov, ret) = (0xd280_0020, 0xd65f_03c0);
    for (old, new) in [(mov, b), (nop, mov), (mov, mov + 0x20), (nop, ret), (ret, b)] {
        let (mut got, open) = words(arm(), old, new);
        got.sort_by_key(|(word, _)| *word != old);
        assert_eq!((got, open), (both(old, new), true), "{old:#x} {new:#x}");
    }
    // Two conditional branches: each condition with each target, and nothing else.
    let branch = |condition: u32, target: u32| 0x5400_0000 | target << 5 | condition;
    let (got, open) = words(arm(), branch(0, 4), branch(1, 8));
    let got: BTreeSet<(u32, bool)> =
        got.into_iter().map(|(w, i)| (w, i == Integrity::Torn)).collect();
    let expected =
        [(branch(0, 4), false), (branch(0, 8), true), (branch(1, 4), true), (branch(1, 8), false)];
    assert_eq!((got, open), (expected.into(), false));
}

#[test]
fn after_the_chain_nothing_is_open() {
    let (mov, b) = (0xd280_0020_u32.to_le_bytes(), 0x1400_0010_u32.to_le_bytes());
    let chain = |r: &mut Rig| settle(r, 0x40);
    assert_eq!(all(arm(), (0x40, &mov, &b), &chain), whole([&b]));
    // Who stored it itself, and lacks synchronisation alone, has the old one or the new one.
    let own = |seed: u64| {
        let mut r = Rig::new(arm().0, arm().1, Box::new(Random::new(seed)));
        let alias = r.alias.offset(0x40);
        r.m.store(P0, alias, &mov, MemOrder::Plain).unwrap();
        settle(&mut r, 0x40);
        r.m.store(P0, alias, &b, MemOrder::Plain).unwrap();
        r.m.fetch(P0, r.code.offset(0x40), 4).unwrap().integrity
    };
    assert!((0..SEEDS).all(|seed| own(seed) == Integrity::Whole));
}

#[test]
fn power_promises_the_patch_class_and_no_two_words() {
    for arch in [Arch::Ppc64le, Arch::Ppc64] {
        for coherent in [true, false] {
            let mut features = Features::default_for(arch);
            features.set(Features::PPC_COHERENT_ICACHE, coherent);
            let (nop, b, li, blr) = (0x6000_0000, 0x4800_0010, 0x3860_0001, 0x4e80_0020);
            assert!(!words((arch, features), nop, b).1);
            assert!(words((arch, features), nop, li).1);
            assert!(words((arch, features), nop, blr).1);
            // A prefixed instruction is got word by word: `pli r3, 1`, and another prefix and word.
            let pair = |a: u32, b: u32| {
                let word = |w: u32| {
                    if arch.is_little_endian() { w.to_le_bytes() } else { w.to_be_bytes() }
                };
                [word(a), word(b)].concat()
            };
            let (old, new) = (pair(0x0600_0000, 0x3860_0001), pair(0x0600_0001, 0x3860_0002));
            let got = all((arch, features), (0x40, &old, &new), &nothing);
            let torn: BTreeSet<Vec<u8>> = got
                .iter()
                .filter(|(_, i)| *i == Integrity::Torn)
                .map(|(bytes, _)| bytes.clone())
                .collect();
            let expected = [pair(0x0600_0000, 0x3860_0002), pair(0x0600_0001, 0x3860_0001)];
            assert_eq!(torn, expected.into(), "{arch} {coherent}");
            assert!(got.iter().any(|(_, i)| *i == Integrity::Unpredictable));
        }
    }
}

/// What is fetched together with an instruction, and is none of it, has no part in what it gets.
#[test]
fn what_stands_behind_an_instruction_does_not_tear_it() {
    // Power: a word that stays, and another one's change beside it, outside the patch class.
    let nop = 0x6000_0000u32.to_le_bytes();
    let with = |behind: u32| [nop, behind.to_le_bytes()].concat();
    let (old, new) = (with(0x6000_0000), with(0x3860_0001));
    // x86-64: a NOP of one byte before a CALL that comes or goes.
    let (short, call) = ([0x90, 0x90, 0x90, 0x90, 0x90, 0x90], [0x90, 0xe8, 1, 2, 3, 4]);
    let power = (Arch::Ppc64le, Features::default_for(Arch::Ppc64le));
    let cases: [(_, &[u8], &[u8], usize); 2] =
        [(power, &old, &new, 4), (intel(), &short, &call, 1)];
    for (hardware, old, new, len) in cases {
        for seed in 0..SEEDS {
            let mut r = Rig::new(hardware.0, hardware.1, Box::new(Random::new(seed)));
            let (alias, code) = (r.alias.offset(0x40), r.code.offset(0x40));
            r.m.store(P0, alias, old, MemOrder::Plain).unwrap();
            settle(&mut r, 0x40);
            r.m.store(P0, alias, new, MemOrder::Plain).unwrap();
            // As a CPU does that learns the length from the bytes.
            let mut length = |bytes: &[u8]| (bytes.len() >= len).then_some(len);
            let got = r.m.fetch_with(P1, code, &mut length).unwrap();
            assert_eq!(got.integrity, Integrity::Whole, "{hardware:?}, seed {seed}");
            assert_eq!(got.bytes, old[..len]);
        }
    }
}
