//! Tests of the formats against values that the kernel defines, and of the codec against itself.

use super::*;
use crate::perm::Perm;

#[test]
fn kernel_protections_have_the_kernels_values() {
    // (format, level, perm, style, value), from the kernel's PAGE_KERNEL* definitions.
    use LeafStyle::{Older, Recent};
    let (x, a, p) = (&X86_64_4LEVEL, &ARM64_4K, &RADIX_4K);
    let rows: &[(&Format, usize, Perm, LeafStyle, u64)] = &[
        (x, 3, Perm::KERNEL_RW, Recent, 0x8000_0000_0000_0163),
        (x, 3, Perm::KERNEL_RO, Recent, 0x8000_0000_0000_0121),
        (x, 3, Perm::KERNEL_RO, Older, 0x8000_0000_0000_0161),
        (x, 3, Perm::KERNEL_ROX, Recent, 0x121),
        (x, 3, Perm::KERNEL_ROX, Older, 0x161),
        (x, 3, Perm::KERNEL_RWX, Recent, 0x163),
        (x, 2, Perm::KERNEL_RW, Recent, 0x8000_0000_0000_01e3),
        (a, 3, Perm::KERNEL_RW, Recent, 0x00e8_0000_0000_0703),
        (a, 3, Perm::KERNEL_RO, Recent, 0x00e0_0000_0000_0783),
        (a, 3, Perm::KERNEL_ROX, Recent, 0x00c0_0000_0000_0783),
        (a, 3, Perm::KERNEL_RWX, Recent, 0x00c8_0000_0000_0703),
        (a, 3, Perm::KERNEL_RW, Older, 0x0068_0000_0000_0703),
        (a, 3, Perm::KERNEL_RO, Older, 0x0060_0000_0000_0783),
        (a, 3, Perm::KERNEL_ROX, Older, 0x0040_0000_0000_0783),
        (a, 3, Perm::KERNEL_RWX, Older, 0x0048_0000_0000_0703),
        (a, 2, Perm::KERNEL_RW, Recent, 0x00e8_0000_0000_0701),
        (p, 3, Perm::KERNEL_RW, Recent, 0xc000_0000_0000_018e),
        (p, 3, Perm::KERNEL_RO, Recent, 0xc000_0000_0000_010c),
        (p, 3, Perm::KERNEL_ROX, Recent, 0xc000_0000_0000_010d),
        (p, 3, Perm::KERNEL_RWX, Recent, 0xc000_0000_0000_018f),
        (&HASH_TREE_64K, 3, Perm::KERNEL_RW, Recent, 0xc000_0000_0000_018e),
        (&HASH_TREE_4K, 3, Perm::KERNEL_ROX, Recent, 0xc000_0000_0000_010d),
        (&BOOK3S32_TREE, 1, Perm::KERNEL_RW, Recent, 0x595),
        (&BOOK3S32_TREE, 1, Perm::KERNEL_RO, Recent, 0x115),
        (&BOOK3S32_TREE, 1, Perm::KERNEL_ROX, Recent, 0x315),
        (&BOOK3S32_TREE, 1, Perm::KERNEL_RWX, Recent, 0x795),
        (&BOOK3S32_TREE_6_6, 1, Perm::KERNEL_RW, Recent, 0x591),
        (&BOOK3S32_TREE_6_6, 1, Perm::KERNEL_ROX, Recent, 0x311),
        (&MPC8XX_TREE, 1, Perm::KERNEL_RW, Recent, 0x125),
        (&MPC8XX_TREE, 1, Perm::KERNEL_RO, Recent, 0x625),
        (&MPC8XX_TREE, 1, Perm::KERNEL_ROX, Recent, 0x665),
        (&MPC8XX_TREE, 1, Perm::KERNEL_RWX, Recent, 0x165),
    ];
    for &(format, level, perm, style, value) in rows {
        let raw = format.encode_leaf_as(level, PhysAddr(0), perm, style);
        assert_eq!(raw, Ok(value), "{} {perm:?} {style:?}", format.name);
    }
    assert_eq!(x.encode_table(0, PhysAddr(0x1000)), Ok(0x1063));
    assert_eq!(a.encode_table(0, PhysAddr(0x1000)), Ok(0x1000_0000_0000_1003));
    assert_eq!(p.encode_table(0, PhysAddr(0x1000)), Ok(0x8000_0000_0000_1009));
    assert_eq!(RADIX_64K.encode_table(2, PhysAddr(0x1100)), Ok(0x8000_0000_0000_1105));
    assert_eq!(HASH_TREE_4K.encode_table(1, PhysAddr(0x1400)), Ok(0x8000_0000_0000_1400));
    assert_eq!(BOOK3S32_TREE.encode_table(0, PhysAddr(0x3000)), Ok(0x3000));
    assert_eq!(MPC8XX_TREE.encode_table(0, PhysAddr(0x3000)), Ok(0x3001));
    // A table at 0 would read as none.
    let none = EncodeError::Address { phys: PhysAddr(0), shift: 12 };
    assert_eq!(BOOK3S32_TREE.encode_table(0, PhysAddr(0)), Err(none));
}

#[test]
fn every_bit_of_every_entry_has_one_owner() {
    let mut n = 0;
    for format in FORMATS {
        for (level, l) in format.levels.iter().enumerate() {
            for leaf in [false, true] {
                if !(if leaf { l.leaf_allowed } else { l.table_allowed }) {
                    continue;
                }
                let mut owned = 0u64;
                for f in format.fields.iter().filter(|f| f.is_in(level, leaf)) {
                    let name = format!("{} {} {}", format.name, l.name, f.name);
                    assert_eq!(owned & f.mask(), 0, "{name} overlaps another field");
                    owned |= f.mask();
                    assert_eq!(f.get(f.put(0, 5)), 5 & (f.mask() >> f.lo_bit), "{name}");
                    n += 1;
                }
                assert_eq!(!owned, 0, "{} {} leaf {leaf}: bits without owner", format.name, l.name);
            }
        }
        // Levels tile the translated bits.
        let bits: u32 = format.levels.iter().map(|l| l.index_bits).sum();
        assert_eq!(bits + format.page_shift, format.va_bits);
        for pair in format.levels.windows(2) {
            assert_eq!(pair[0].index_shift, pair[1].index_shift + pair[1].index_bits);
        }
        assert_eq!(Format::by_name(format.name).map(|f| f.name), Some(format.name));
    }
    assert!(n > 100);
}

#[test]
fn formats_by_kernel() {
    let name = |arch, shift| Format::for_kernel(arch, shift).map(|f| f.name);
    assert_eq!(name(Arch::X86_64, 12), Some("x86-64 4-level"));
    assert_eq!(name(Arch::Arm64, 12), Some("arm64 4k 48-bit"));
    assert_eq!(name(Arch::Ppc64, 16), Some("powerpc radix 64k"));
    assert_eq!(name(Arch::Ppc64le, 12), Some("powerpc radix 4k"));
    assert_eq!(name(Arch::Arm64, 14), Some("arm64 16k 48-bit"));
    assert_eq!(name(Arch::Arm64, 16), Some("arm64 64k 48-bit"));
    assert_eq!((name(Arch::Ppc32, 12), name(Arch::X86_64, 16)), (Some("powerpc 8xx"), None));
    let bits = |arch, shift, bits| {
        Format::for_kernel(arch, shift).unwrap().with_va_bits(bits).map(|f| f.name)
    };
    assert_eq!(bits(Arch::X86_64, 12, 57), Some("x86-64 5-level"));
    for (shift, all) in [(12, &[39, 48, 52][..]), (14, &[36, 47, 48, 52]), (16, &[42, 48, 52])] {
        for n in 30..60 {
            let name = format!("arm64 {}k {n}-bit", 1 << (shift - 10));
            assert_eq!(bits(Arch::Arm64, shift, n), all.contains(&n).then_some(&*name), "{name}");
        }
    }
    assert_eq!((bits(Arch::Ppc64le, 12, 46), bits(Arch::X86_64, 12, 52)), (None, None));
    let shifts = |f: &Format| f.leaf_shifts().collect::<Vec<_>>();
    assert_eq!(shifts(&ARM64_4K_39), [30, 21, 12]);
    assert_eq!((shifts(&ARM64_16K_36), shifts(&ARM64_16K_47)), (vec![25, 14], vec![25, 14]));
    assert_eq!(shifts(&ARM64_64K_42), [29, 16]);
    assert_eq!(ARM64_64K_42.levels[0].table_bytes(), 64 << 10);
    assert_eq!(shifts(&X86_64_4LEVEL), [30, 21, 12]);
    assert_eq!(shifts(&RADIX_64K), [30, 21, 16]);
    assert_eq!(RADIX_4K.levels[0].table_bytes(), 64 << 10);
    assert_eq!(RADIX_64K.levels[3].table_bytes(), 256);
    assert_eq!(shifts(&HASH_TREE_4K), [12]);
    assert_eq!(shifts(&HASH_TREE_64K), [34, 24, 16]);
    assert_eq!(BOOK3S32_TREE.levels[0].table_bytes(), 4096);
}

#[test]
fn canonical_addresses() {
    let (x, a, p) = (&X86_64_4LEVEL, &ARM64_4K, &RADIX_4K);
    let is = |f: &Format, va: u64| f.is_canonical(VirtAddr(va));
    for va in [0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000, u64::MAX] {
        assert!(is(x, va), "{va:x}");
    }
    assert!(!is(x, 0x8000_0000_0000) && !is(x, 0xffff_7fff_ffff_ffff));
    assert!(is(a, 0xffff_ffff_ffff) && is(a, 0xffff_0000_0000_0000));
    assert!(!is(a, 0x1_0000_0000_0000) && !is(a, 0xfffe_0000_0000_0000));
    assert!(is(p, 0xc008_0000_0000_0000) && is(p, 0xf_ffff_ffff_ffff));
    assert!(!is(p, 0x4000_0000_0000_0000) && !is(p, 0xc010_0000_0000_0000));
    // The hash tree of 4 KiB pages ends at 64 TiB, above vmalloc and what follows it.
    let h = &HASH_TREE_4K;
    assert!(is(h, 0xc000_3d00_0000_0000) && !is(h, 0xc000_4000_0000_0000));
    assert!(is(&MPC8XX_TREE, 0xffff_ffff) && !is(&MPC8XX_TREE, 1 << 32));
}

#[test]
fn malformed_entries_are_named() {
    let why = |f: &Format, level, raw| match f.decode(level, raw) {
        Entry::Malformed { why } => why,
        other => panic!("{other:?}"),
    };
    let (x, a, p) = (&X86_64_4LEVEL, &ARM64_4K, &RADIX_4K);
    assert_eq!(why(x, 0, 0x1081), Why::Reserved { bits: 0x80 });
    assert_eq!(why(x, 2, 0x20_2081), Why::Reserved { bits: 0x2000 });
    assert_eq!(why(x, 1, 0x20_0081), Why::Reserved { bits: 0x20_0000 });
    assert_eq!(why(x, 9, 1), Why::NoSuchLevel);
    assert_eq!(why(a, 0, 0x401), Why::LeafNotAllowed);
    assert_eq!(why(a, 3, 0x401), Why::TableNotAllowed);
    assert_eq!(why(a, 2, 0x2_0401), Why::Reserved { bits: 0x2_0000 });
    assert_eq!(why(p, 0, 0x8000_0000_0000_100d), Why::NextLevelBits { found: 13, expected: 9 });
    assert_eq!(why(p, 0, 0x8000_0000_0000_1109), Why::TableMisaligned { next: PhysAddr(0x1100) });
    assert_eq!(why(p, 0, 0xb000_0000_0000_1009), Why::Reserved { bits: 3 << 60 });
    assert_eq!(why(p, 3, 0x8000_0000_0000_1000), Why::TableNotAllowed);
    assert_eq!(why(p, 0, 0xc000_0000_0000_010c), Why::LeafNotAllowed);
    for f in FORMATS {
        for level in 0..f.levels.len() {
            assert_eq!(f.decode(level, 0), Entry::None);
        }
    }
}

#[test]
fn controls_change_what_is_granted() {
    let one = |f: &Format, raw: u64, va: u64, controls: &Controls| {
        // A chain of tables at 0x1_0000, 0x2_0000..., all permissions open, then the leaf.
        let next = |level: usize| PhysAddr(0x1_0000 * (level as u64 + 1));
        let mut read = |addr: PhysAddr| {
            let level = (addr.0 >> 16) as usize - 1;
            if level == 3 {
                return Some(raw);
            }
            f.encode_table_denying(level, next(level + 1), Perm::empty()).ok()
        };
        f.walk_with(next(0), VirtAddr(va), controls, &mut read).result
    };
    let linux = Controls::LINUX;
    let perm = |f: &Format, raw, va, c: &Controls| one(f, raw, va, c).map(|t| t.perm);
    // x86: a kernel RO page with WP off; a user RWX page with SMEP; NX with NXE off.
    let (x, a, p) = (&X86_64_4LEVEL, &ARM64_4K, &RADIX_4K);
    let rw = Perm::KERNEL_RO | Perm::WRITE;
    assert_eq!(perm(x, 0x8000_0000_0000_0121, 0x1000, &linux), Ok(Perm::KERNEL_RO));
    assert_eq!(
        perm(x, 0x8000_0000_0000_0121, 0x1000, &Controls { x86_wp: false, ..linux }),
        Ok(rw)
    );
    let user = perm(x, 0x27, 0x1000, &linux).unwrap();
    assert!(!user.executable() && user.contains(Perm::USER | Perm::USER_EXEC));
    assert!(perm(x, 0x27, 0x1000, &Controls { x86_smep: false, ..linux }).unwrap().executable());
    let nx = Err(WalkFault::Malformed { level: 3, why: Why::Reserved { bits: 1 << 63 } });
    assert_eq!(perm(x, 0x8000_0000_0000_0121, 0, &Controls { x86_nxe: false, ..linux }), nx);
    let high = Err(WalkFault::Malformed { level: 3, why: Why::Reserved { bits: 1 << 40 } });
    assert_eq!(perm(x, 0x100_0000_0121, 0, &Controls { x86_pa_bits: 40, ..linux }), high);
    // arm64: DBM makes a read-only page writable with HD; WXN; the Access flag; EL0-writable pages.
    let va = 0xffff_0000_0000_0000;
    let dbm_ro = 0x00e8_0000_0000_0783;
    assert!(perm(a, dbm_ro, va, &linux).unwrap().writable());
    assert!(!perm(a, dbm_ro, va, &Controls { arm_hd: false, ..linux }).unwrap().writable());
    let rwx = 0x00c8_0000_0000_0703;
    assert_eq!(perm(a, rwx, va, &linux), Ok(Perm::KERNEL_RWX));
    assert_eq!(perm(a, rwx, va, &Controls { arm_wxn: true, ..linux }), Ok(Perm::KERNEL_RW));
    let old = rwx & !(1 << 10);
    let no_ha = Controls { arm_ha: false, ..linux };
    assert_eq!(perm(a, old, va, &no_ha), Err(WalkFault::AccessFlag { level: 3 }));
    assert_eq!(perm(a, old, va, &linux), Ok(Perm::KERNEL_RWX));
    assert!(!perm(a, rwx | 1 << 6, va, &linux).unwrap().executable(), "EL0 may write");
    // powerpc: a user page with KUEP; global by quadrant, not by bit.
    let user_x = 0xc000_0000_0000_0105;
    assert!(!perm(p, user_x, 0, &linux).unwrap().executable());
    assert!(perm(p, user_x, 0, &Controls { ppc_kuep: false, ..linux }).unwrap().executable());
    let rox = 0xc000_0000_0000_010d;
    assert_eq!(perm(p, rox, 0xc008_0000_0000_0000, &linux), Ok(Perm::KERNEL_ROX));
    assert_eq!(perm(p, rox, 0, &linux), Ok(Perm::KERNEL_ROX - Perm::GLOBAL));
    assert_eq!(one(x, 1, 1 << 47, &linux), Err(WalkFault::NonCanonical));
}

#[test]
fn tables_take_away() {
    let x = |raw| match X86_64_4LEVEL.decode(1, raw) {
        Entry::Table { limits, .. } => limits,
        other => panic!("{other:?}"),
    };
    assert!(!x(0x1061).contains(Perm::WRITE) && x(0x1063).contains(Perm::WRITE));
    assert!(!x(0x1063).intersects(Perm::USER | Perm::USER_EXEC) && x(0x1067).contains(Perm::USER));
    assert!(!x(0x8000_0000_0000_1067).intersects(Perm::EXEC | Perm::USER_EXEC));
    let a = |raw| match ARM64_4K.decode(1, raw) {
        Entry::Table { limits, .. } => limits,
        other => panic!("{other:?}"),
    };
    assert_eq!(a(0x1003), Perm::all());
    assert_eq!(a(0x1003 | 1 << 59), Perm::all() - Perm::EXEC);
    assert_eq!(a(0x1003 | 1 << 60), Perm::all() - Perm::USER_EXEC);
    assert_eq!(a(0x1003 | 1 << 61), Perm::all() - Perm::USER);
    assert_eq!(a(0x1003 | 1 << 62), Perm::all() - Perm::WRITE);
    let denied = RADIX_4K.encode_table_denying(1, PhysAddr(0x1000), Perm::WRITE);
    assert!(matches!(denied, Err(EncodeError::Permission { .. })));
}

#[test]
fn splitting_keeps_attributes() {
    // x86: PAT is bit 12 of a large leaf and bit 7 of a small one; PS goes.
    let x = &X86_64_4LEVEL;
    let large = 0x8000_0000_4020_11e3;
    assert_eq!(x.leaf_at_level(large, 2, 3, 5), Ok(0x8000_0000_4020_51e3));
    assert_eq!(x.leaf_at_level(large & !0x1000, 2, 3, 5), Ok(0x8000_0000_4020_5163));
    assert_eq!(x.leaf_at_level(0x8000_0000_4020_51e3, 3, 2, 0), Ok(large));
    assert_eq!(x.leaf_at_level(0x8000_0000_4000_11e3, 1, 2, 3), Ok(0x8000_0000_4060_11e3));
    assert_eq!(x.leaf_at_level(0x8000_0000_4000_11e3, 1, 3, 513), Ok(0x8000_0000_4020_11e3));
    assert!(matches!(x.leaf_at_level(large, 2, 3, 512), Err(EncodeError::Address { .. })));
    assert!(matches!(x.leaf_at_level(large, 0, 3, 0), Err(EncodeError::KindNotAllowed { .. })));
    // arm64: TYPE changes, CONT goes, the rest stays.
    let a = &ARM64_4K;
    assert_eq!(a.leaf_at_level(0x00f8_0000_4020_0701, 2, 3, 1), Ok(0x00e8_0000_4020_1703));
    assert_eq!(a.leaf_at_level(0x00e8_0000_4020_1703, 3, 2, 0), Ok(0x00e8_0000_4020_0701));
    let p = &RADIX_64K;
    assert_eq!(p.leaf_at_level(0xc000_0000_0020_018e, 2, 3, 31), Ok(0xc000_0000_003f_018e));
}

#[test]
fn with_perm_changes_only_permission_bits() {
    let (x, a, p) = (&X86_64_4LEVEL, &ARM64_4K, &RADIX_4K);
    let (none, w, e) = (Perm::empty(), Perm::WRITE, Perm::EXEC);
    // Ignored and software bits all set.
    assert_eq!(x.with_perm(3, 0xfff0_0000_0000_1ffb, none, w), 0xfff0_0000_0000_1ff9);
    assert_eq!(x.with_perm(3, 0x8000_0000_0000_1163, e, w), 0x1161);
    assert_eq!(x.with_perm(3, 0x1163, none, Perm::PRESENT), 0x1162);
    assert_eq!(x.with_perm(2, 0x1e3, none, e), 0x8000_0000_0000_01e3);
    assert_eq!(x.with_perm(3, 0x1163, none, Perm::USER_EXEC), 0x1163);
    assert_eq!(a.with_perm(3, 0x00e8_0000_0000_0703, none, w), 0x00e0_0000_0000_0783);
    assert_eq!(a.with_perm(3, 0x00e0_0000_0000_0783, w, e), 0x00e8_0000_0000_0703);
    assert_eq!(a.with_perm(3, 0x00e0_0000_0000_0783, e, none), 0x00c0_0000_0000_0783);
    assert_eq!(a.with_perm(2, 0x00e0_0000_0000_0781, none, Perm::PRESENT), 0x00e0_0000_0000_0780);
    assert_eq!(p.with_perm(3, 0xc000_0000_0000_018e, e, w), 0xc000_0000_0000_018d);
    assert_eq!(p.with_perm(3, 0xc000_0000_0000_018d, none, e), 0xc000_0000_0000_018c);
}

#[test]
fn what_cannot_be_encoded_is_refused() {
    let x = &X86_64_4LEVEL;
    let at = |perm| x.encode_leaf(3, PhysAddr(0), perm);
    assert!(matches!(at(Perm::empty()), Err(EncodeError::Permission { .. })));
    assert!(matches!(at(Perm::PRESENT | Perm::WRITE), Err(EncodeError::Permission { .. })));
    let kernel_only = Perm::KERNEL_ROX | Perm::USER;
    assert!(matches!(at(kernel_only), Err(EncodeError::Permission { .. })));
    let (two_mib, page) = (PhysAddr(0x20_0000), PhysAddr(0x1000));
    assert!(x.encode_leaf(2, two_mib, Perm::KERNEL_RW).is_ok());
    let odd = EncodeError::Address { phys: page, shift: 21 };
    assert_eq!(x.encode_leaf(2, page, Perm::KERNEL_RW), Err(odd));
    let top = PhysAddr(1 << 48);
    assert!(matches!(
        ARM64_4K.encode_leaf(3, top, Perm::KERNEL_RW),
        Err(EncodeError::Address { .. })
    ));
    assert!(matches!(
        x.encode_leaf(0, page, Perm::KERNEL_RW),
        Err(EncodeError::KindNotAllowed { .. })
    ));
    assert!(matches!(
        x.encode_leaf(4, page, Perm::KERNEL_RW),
        Err(EncodeError::NoSuchLevel { .. })
    ));
    assert!(matches!(x.encode_table(3, page), Err(EncodeError::KindNotAllowed { .. })));
    let write_only = Perm::PRESENT | Perm::WRITE;
    let refused = RADIX_4K.encode_leaf(3, page, write_only);
    assert!(matches!(refused, Err(EncodeError::Permission { .. })));
}

#[test]
fn permissions_of_all_levels_combine() {
    use std::ops::ControlFlow;
    // Tables at 0x1_0000 times (level + 1); one level denies, the leaf grants everything.
    let next = |level: usize| PhysAddr(0x1_0000 * (level as u64 + 1));
    let all = Perm::PRESENT | Perm::READ | Perm::WRITE | Perm::EXEC | Perm::GLOBAL;
    let mut n = 0;
    for (f, denied) in [
        (&X86_64_4LEVEL, Perm::WRITE),
        (&X86_64_4LEVEL, Perm::EXEC | Perm::USER_EXEC),
        (&ARM64_4K, Perm::WRITE),
        (&ARM64_4K, Perm::EXEC),
    ] {
        let leaf = f.encode_leaf(3, PhysAddr(0x5000), all).unwrap();
        for at in 0..3 {
            let mut read = |addr: PhysAddr| {
                let level = (addr.0 >> 16) as usize - 1;
                let deny = if level == at { denied } else { Perm::empty() };
                match (level, addr.page_offset()) {
                    (3, 8) => Some(leaf),
                    (3, _) => Some(0),
                    (_, 0) => f.encode_table_denying(level, next(level + 1), deny).ok(),
                    _ => Some(0),
                }
            };
            let va = VirtAddr(0x1000);
            let walk = f.walk(next(0), va, &mut read);
            assert_eq!(walk.perm(), all - denied, "{} level {at}", f.name);
            assert_eq!(walk.translation().map(|t| t.leaf_perm), Some(all));
            let hpd = Controls { arm_hpd: true, ..Controls::LINUX };
            let open = f.walk_with(next(0), va, &hpd, &mut read).perm();
            assert_eq!(open, if f.arch == Arch::Arm64 { all } else { all - denied });
            let mut found = Vec::new();
            let scan = f.for_each_leaf(next(0), Half::Low, &mut read, &mut |leaf| {
                found.push((leaf.va, leaf.perm));
                ControlFlow::Continue(())
            });
            assert_eq!((found, scan.tables), (vec![(va, all - denied)], 4));
            n += 1;
        }
    }
    assert_eq!(n, 12);
}

#[test]
fn dirty_state_is_managed_only_with_the_access_flag() {
    // A page of the kernel with DBM and RDONLY.
    let raw = 0x00e8_0000_0000_0783;
    let writable = |arm_ha, arm_hd| {
        let controls = Controls { arm_ha, arm_hd, ..Controls::LINUX };
        ARM64_4K.entry_perm(3, raw, &controls).contains(Perm::WRITE)
    };
    assert!(writable(true, true));
    assert!(!writable(true, false) && !writable(false, true) && !writable(false, false));
}

#[test]
fn an_address_beyond_the_physical_size_is_refused_where_it_stands() {
    let page = 0x2_0000_0703;
    let walk = |arm_pa_bits| {
        let controls = Controls { arm_pa_bits, ..Controls::LINUX };
        let mut read = |at: PhysAddr| Some(if at.0 < 0x3000 { at.0 + 0x1003 } else { page });
        ARM64_4K.walk_with(PhysAddr(0), VirtAddr(0), &controls, &mut read).result.map(|t| t.frame)
    };
    assert_eq!(walk(32), Err(WalkFault::AddressSize { level: 3 }));
    assert_eq!(walk(36), Ok(PhysAddr(0x2_0000_0000)));
    // Of tables too: the one at 0x2000 needs 14 bits.
    assert_eq!(walk(13), Err(WalkFault::AddressSize { level: 1 }));
}

#[test]
fn the_encryption_bit_is_no_address() {
    let (x, linux) = (&X86_64_4LEVEL, Controls::LINUX);
    // The kernel's text with bit 51 (AMD, CPUID 8000001f: EBX 5:0) set.
    let raw = 0x0008_0000_0020_01a1;
    let phys = |controls: &Controls| match x.decode_with(2, raw, controls) {
        Entry::Leaf { phys, .. } => Ok(phys.0),
        Entry::Malformed { why } => Err(why),
        other => panic!("{other:?}"),
    };
    assert_eq!(phys(&linux), Ok(0x0008_0000_0020_0000));
    let sme = Controls { x86_encryption_bit: Some(51), x86_pa_bits: 48, ..linux };
    assert_eq!(phys(&sme), Ok(0x20_0000));
    let off = Controls { x86_encryption_bit: None, ..sme };
    assert_eq!(phys(&off), Err(Why::Reserved { bits: 1 << 51 }));
    // A table's address has it too; the bits beside it stay reserved.
    let table = |raw| x.decode_with(0, raw, &sme);
    let limits = Perm::all();
    assert!(matches!(table(0x0008_0000_0000_1067),
        Entry::Table { next: PhysAddr(0x1000), limits: l } if l == limits));
    assert!(matches!(table(0x000c_0000_0000_1067), Entry::Malformed { .. }));
}

#[test]
fn bits_50_and_51_of_an_address_lie_in_bits_8_and_9() {
    // Linux 7.0 arch/arm64/include/asm/pgtable.h: __phys_to_pte_val() with PTE_ADDR_HIGH.
    let phys = PhysAddr(0x000f_ffff_ffff_0000);
    for (format, level, address) in [
        (&ARM64_4K_LPA2, 4, 0x0003_ffff_ffff_0300),
        (&ARM64_16K_LPA2, 3, 0x0003_ffff_ffff_0300),
        (&ARM64_64K_LPA, 2, 0x0000_ffff_ffff_f000),
    ] {
        let raw = format.encode_leaf(level, phys, Perm::KERNEL_RO).unwrap();
        assert_eq!(raw & 0x0003_ffff_ffff_f000 | raw & 0x300 & address, address, "{}", format.name);
        let Entry::Leaf { phys: found, .. } = format.decode(level, raw) else { panic!("{raw:x}") };
        assert_eq!(found, phys, "{}", format.name);
    }
    // Table and block alike; and what does not fit is refused.
    let table = ARM64_4K_LPA2.encode_table(0, PhysAddr(0x000c_0000_0000_1000)).unwrap();
    assert_eq!(table & 0x0007_ffff_ffff_ff00, 0x1300);
    let block = ARM64_4K_LPA2.encode_leaf(1, PhysAddr(0x0004_0080_0000_0000), Perm::KERNEL_RO);
    assert_eq!(block.unwrap() & 0x0007_ffff_ffff_f300, 0x0000_0080_0000_0100);
    assert!(ARM64_4K_LPA2.encode_leaf(1, PhysAddr(0x40_0000_0000), Perm::KERNEL_RO).is_err());
    assert!(ARM64_4K.encode_leaf(3, PhysAddr(1 << 50), Perm::KERNEL_RO).is_err());
    let shifts = |f: &Format| f.leaf_shifts().collect::<Vec<_>>();
    assert_eq!(shifts(&ARM64_4K_LPA2), [39, 30, 21, 12]);
    assert_eq!(shifts(&ARM64_16K_LPA2), [36, 25, 14]);
    assert_eq!(shifts(&ARM64_64K_LPA), [42, 29, 16]);
}
