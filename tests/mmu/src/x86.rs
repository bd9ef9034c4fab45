//! Cases of x86-64, with 4 or 5 levels.

use textbed_arch::paging::{Controls, Format};

use crate::cases::{Case, LEVELS, Rng, TABLES, WHAT, WHO, choose, frame, leaves};

/// Bits of every level that concern permissions: P, RW, US, NX.
const BITS: [u32; 4] = [0, 1, 2, 63];

/// An entry with everything else right: A and D set, the table or frame, PS.
fn plain(f: &Format, level: usize, leaf: usize) -> u64 {
    let size = if level < f.last_level() && level == leaf { 1 << 7 } else { 0 };
    let to = if level == leaf { frame(f, leaf, 0) } else { TABLES[level + 1] };
    to | 1 << 5 | 1 << 6 | size
}

fn entries(f: &Format, leaf: usize, mut choice: u64) -> [u64; LEVELS] {
    let mut all = [0; LEVELS];
    for (level, entry) in all.iter_mut().enumerate().take(leaf + 1) {
        *entry = choose(plain(f, level, leaf), &BITS, &mut choice);
    }
    all
}

fn controls(choice: usize) -> Controls {
    Controls {
        x86_wp: choice & 1 != 0,
        x86_smep: choice & 2 != 0,
        x86_smap: choice & 4 != 0,
        x86_nxe: choice & 8 != 0,
        // QEMU's physical addresses have 40 bits.
        x86_pa_bits: 40,
        ..Controls::LINUX
    }
}

/// Every combination of permission bits of every level, leaf size (down to `last`), control bits,
/// privilege and access. With NXE off the bits of NX are reserved.
pub fn every(f: &'static Format, last: usize) -> impl Iterator<Item = Case> {
    WHO.into_iter().flat_map(move |who| {
        (0..16).flat_map(move |c| {
            leaves(f).filter(move |leaf| *leaf <= last).flat_map(move |leaf| {
                (0..1u64 << (4 * (leaf + 1))).flat_map(move |choice| {
                    WHAT.into_iter().map(move |what| {
                        let (entries, controls) = (entries(f, leaf, choice), controls(c));
                        Case { leaf, entries, high: 0, controls, who, what }
                    })
                })
            })
        })
    })
}

/// Cases at random, most of them present at every level; some with other bits set: reserved ones,
/// accessed and dirty clear, software bits, global, memory types (PAT by leaf size), keys.
pub fn sample(f: &'static Format, n: usize) -> impl Iterator<Item = Case> {
    let mut rng = Rng(0x7465_7874_6265_6401);
    let mut setting = (controls(15), WHO[0]);
    (0..n).map(move |i| {
        // Controls change seldom: that is what costs.
        if i % 64 == 0 {
            setting = (controls(rng.below(16)), WHO[rng.below(2)]);
            if rng.one_in(4) {
                setting.0.x86_pkru = Some(rng.next() as u32 & !3);
            }
        }
        let last = f.last_level();
        let leaf = last - rng.below(3);
        let mut all = entries(f, leaf, rng.next());
        for (level, entry) in all.iter_mut().enumerate().take(leaf + 1) {
            if !rng.one_in(32) {
                *entry |= 1;
            }
            if !rng.one_in(4) {
                *entry &= !(1 << 63);
            }
            if !rng.one_in(3) {
                *entry |= 4;
            }
            if rng.one_in(8) {
                let others = [3, 4, 5, 6, 8, 9, 10, 11, 52, 55, 57, 58, 59, 60, 61, 62];
                *entry ^= 1 << others[rng.below(others.len())];
            }
            // Malformed: bits of the address beyond the CPU's, PS where there is none, bits of a
            // large leaf's address that must be zero.
            if rng.one_in(40) {
                *entry |= [1 << 41, 1 << 51, 1 << 45][rng.below(3)];
            }
            if rng.one_in(40) && (level + 3 < last + 1 || level == leaf && leaf < last) {
                *entry |= if level + 3 < last + 1 { 1 << 7 } else { 1 << (13 + rng.below(7)) };
            }
            if rng.one_in(8) && level == leaf {
                *entry ^= 1 << if level == last { 7 } else { 12 };
            }
        }
        let (controls, who) = setting;
        Case { leaf, entries: all, high: 0, controls, who, what: WHAT[rng.below(3)] }
    })
}
