//! Cases of arm64: stage 1 of EL1&0 with each granule.

use textbed_arch::paging::{Controls, Format};

use crate::cases::{Case, LEVELS, Rng, TABLES, WHAT, WHO, choose, frame, leaves};

/// Permission bits of table entries: PXNTable, UXNTable, APTable.
const TABLE_BITS: [u32; 4] = [59, 60, 61, 62];
/// And of leaves: USER (AP\[1\]), RDONLY (AP\[2\]), AF, PXN, UXN, DBM.
const LEAF_BITS: [u32; 6] = [6, 7, 10, 53, 54, 51];

/// Control bits by number, of which [`CONTROLS`] are of any CPU, and all of one that manages the
/// two flags.
#[must_use]
pub fn controls(choice: usize) -> Controls {
    Controls {
        arm_wxn: choice & 1 != 0,
        arm_pan: choice & 2 != 0,
        arm_hpd: choice & 4 != 0,
        arm_ha: choice & 8 != 0,
        arm_hd: choice & 16 != 0,
        ..Controls::LINUX
    }
}

/// Numbers of control bits without management of the two flags, and with it.
pub const CONTROLS: usize = 8;
/// See [`CONTROLS`].
pub const ALL_CONTROLS: usize = 32;

/// Whether the leaf's bits 8 and 9 are its shareability.
fn has_shareability(f: &Format) -> bool {
    f.field("SH").is_some()
}

/// Valid entries with memory at `base`, and the permission bits that `choice` has, lowest first.
#[must_use]
pub fn entries(f: &Format, base: u64, leaf: usize, mut choice: u64) -> [u64; LEVELS] {
    let shared = if has_shareability(f) { 3 << 8 } else { 0 };
    let mut all = [0; LEVELS];
    for (level, entry) in all.iter_mut().enumerate().take(leaf + 1) {
        *entry = if level == leaf {
            let kind = if leaf == f.last_level() { 3 } else { 1 };
            choose(frame(f, leaf, base) | kind | shared, &LEAF_BITS, &mut choice)
        } else {
            choose((base + TABLES[level + 1]) | 3, &TABLE_BITS, &mut choice)
        };
    }
    all
}

/// Every combination of permission bits of every level, leaf size (down to `last`), the first
/// `controls` control bits, privilege and access, all entries valid.
pub fn every(
    f: &'static Format,
    base: u64,
    last: usize,
    n_controls: usize,
) -> impl Iterator<Item = Case> {
    WHO.into_iter().flat_map(move |who| {
        (0..n_controls).flat_map(move |c| {
            leaves(f).filter(move |leaf| *leaf <= last).flat_map(move |leaf| {
                (0..1u64 << (4 * leaf + 6)).flat_map(move |choice| {
                    WHAT.into_iter().map(move |what| {
                        let entries = entries(f, base, leaf, choice);
                        Case { leaf, entries, high: 0, controls: controls(c), who, what }
                    })
                })
            })
        })
    })
}

/// Cases at random, most of them with few restrictions; some not valid, of the reserved type, or
/// with other bits set.
pub fn sample(
    f: &'static Format,
    base: u64,
    n: usize,
    n_controls: usize,
) -> impl Iterator<Item = Case> {
    let mut rng = Rng(0x7465_7874_6265_6402);
    let mut setting = (controls(0), WHO[0]);
    (0..n).map(move |i| {
        if i % 64 == 0 {
            setting = (controls(rng.below(n_controls)), WHO[rng.below(2)]);
        }
        let sizes: Vec<usize> = leaves(f).collect();
        let leaf = sizes[rng.below(sizes.len())];
        // Restrictions of tables are seldom, so that those of leaves show.
        let few = rng.next() & rng.next() & rng.next();
        let mut all = entries(f, base, leaf, few);
        let leaf_bits = rng.next();
        all[leaf] = choose(all[leaf], &LEAF_BITS, &mut { leaf_bits });
        if !rng.one_in(8) {
            all[leaf] |= 1 << 10;
        }
        for (level, entry) in all.iter_mut().enumerate().take(leaf + 1) {
            if rng.one_in(32) {
                *entry &= !1;
            }
            if rng.one_in(32) && level == f.last_level() {
                *entry &= !2;
            }
            if rng.one_in(8) {
                let others =
                    if level == leaf { [8, 9, 11, 52, 55, 58] } else { [2, 6, 7, 10, 53, 54] };
                *entry ^= 1 << others[rng.below(others.len())];
            }
            // Memory type, guarded page, contiguous: nothing of the address, and no right.
            if level == leaf && rng.one_in(4) {
                *entry ^= 1 << [2, 3, 4, 50, 52][rng.below(5)];
            }
        }
        let (controls, who) = setting;
        Case { leaf, entries: all, high: 0, controls, who, what: WHAT[rng.below(3)] }
    })
}
