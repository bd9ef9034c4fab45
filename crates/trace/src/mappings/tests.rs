use super::*;
use crate::perms::{Action, masks, page_kernel};
use proptest::prelude::*;
use textbed_arch::Arch;
use textbed_arch::paging::Format;

const BASE: u64 = 0xffff_ffff_c000_0000;

fn empty() -> Mappings {
    Mappings::new(Bits::new(Format::for_kernel(Arch::X86_64, 12).unwrap()))
}

fn letters(m: &Mappings) -> Vec<(u64, u64, &'static str)> {
    m.runs().map(|r| ((r.virt - BASE) >> 12, (r.end - BASE) >> 12, r.perm.letters())).collect()
}

#[test]
fn a_modules_life() {
    let mut m = empty();
    let mut out = Vec::new();
    let kernel = page_kernel(Arch::X86_64);
    m.map(BASE, BASE + 0x4000, 12, kernel, &mut out);
    m.map(BASE, BASE + 0x4000, 12, kernel, &mut out);
    assert_eq!((out.len(), out[0].new, out[0].old), (1, Perm::KERNEL_RW, Perm::empty()));
    out.clear();
    let rox = masks(Arch::X86_64, Action::Rox).unwrap();
    m.change(BASE + 0x1000, BASE + 0x3000, rox, None, &mut out);
    assert_eq!(letters(&m), [(0, 1, "rw-"), (1, 3, "r-x"), (3, 4, "rw-")]);
    assert_eq!((out[0].virt, out[0].len), (BASE + 0x1000, 0x2000));
    out.clear();
    m.learn_phys(BASE + 0x1000, 0x1000, 0x55000);
    assert_eq!(m.phys(BASE + 0x1010, 8), Some(0x55010));
    assert_eq!(m.phys(BASE + 0x1ffc, 8), None);
    // The guard page behind it is not mapped: only what was there is removed.
    m.unmap(BASE, BASE + 0x5000, &mut out);
    assert_eq!(out.iter().map(|c| c.len).sum::<u64>(), 0x4000);
    assert_eq!(out[1].phys, Some(0x55000));
    assert!(letters(&m).is_empty());
}

#[test]
fn a_large_leaf_is_split_by_a_part_change_and_not_by_a_whole_one() {
    let mut m = empty();
    m.insert_leaf(BASE, 2 << 21, 21, 0x40_0000, page_kernel(Arch::X86_64), Perm::KERNEL_RW);
    let ro = masks(Arch::X86_64, Action::Ro).unwrap();
    let mut out = Vec::new();
    m.change(BASE, BASE + (1 << 21), ro, None, &mut out);
    assert_eq!((out.len(), out[0].shift, out[0].old_shift), (1, 21, 21));
    out.clear();
    m.change(BASE + (1 << 21) + 0x1000, BASE + (1 << 21) + 0x2000, ro, None, &mut out);
    assert_eq!((out[0].shift, out[0].old_shift, out[0].len), (12, 21, 1 << 21));
    assert_eq!((out[0].old, out[0].new), (Perm::KERNEL_RW, Perm::KERNEL_RW));
    assert_eq!((out[1].new, out[1].phys), (Perm::KERNEL_RO, Some(0x60_1000)));
    assert_eq!(out.len(), 2);
}

#[test]
fn holes_are_assumed_only_where_that_is_asked_for() {
    let (mut m, mut out) = (empty(), Vec::new());
    let ro = masks(Arch::X86_64, Action::Ro).unwrap();
    m.change(BASE, BASE + 0x1000, ro, None, &mut out);
    assert!(out.is_empty() && letters(&m).is_empty());
    m.change(BASE, BASE + 0x1000, ro, Some(page_kernel(Arch::X86_64)), &mut out);
    assert!(out[0].assumed);
    assert_eq!(letters(&m), [(0, 1, "r--")]);
}

#[derive(Debug, Clone)]
enum Op {
    Map(u64, u64),
    Unmap(u64, u64),
    Change(u64, u64, Action),
    Learn(u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let range = (0u64..64, 1u64..16);
    prop_oneof![
        range.clone().prop_map(|(a, n)| Op::Map(a, n)),
        range.clone().prop_map(|(a, n)| Op::Unmap(a, n)),
        (range.clone(), 0..7usize).prop_map(|((a, n), i)| Op::Change(a, n, Action::ALL[i])),
        (0u64..80, 0u64..1000).prop_map(|(a, p)| Op::Learn(a, p)),
    ]
}

proptest! {
    /// Runs against an array of pages.
    #[test]
    fn like_an_array_of_pages(ops in prop::collection::vec(op(), 0..60)) {
        let mut m = empty();
        let mut pages = vec![None::<(u64, Option<u64>)>; 128];
        let va = |p: u64| BASE + (p << 12);
        for op in ops {
            let mut out = Vec::new();
            match op {
                Op::Map(a, n) => {
                    let prot = m.bits.of(page_kernel(Arch::X86_64));
                    m.map(va(a), va(a + n), 12, prot, &mut out);
                    for p in a..a + n {
                        let old = pages[p as usize];
                        if old.is_none_or(|o| o.0 != prot) {
                            pages[p as usize] = Some((prot, None));
                        }
                    }
                }
                Op::Unmap(a, n) => {
                    m.unmap(va(a), va(a + n), &mut out);
                    for p in a..a + n { pages[p as usize] = None; }
                }
                Op::Change(a, n, action) => {
                    let masks = masks(Arch::X86_64, action).unwrap();
                    m.change(va(a), va(a + n), masks, None, &mut out);
                    for p in a..a + n {
                        if let Some(x) = &mut pages[p as usize] { x.0 = m.bits.apply(x.0, masks); }
                    }
                }
                Op::Learn(a, phys) => {
                    m.learn_phys(va(a), 0x1000, phys << 12);
                    if let Some(x) = &mut pages[a as usize] { x.1 = Some(phys << 12); }
                }
            }
            for c in &out { prop_assert!(c.len > 0 && c.len % 0x1000 == 0); }
            let mut last: Option<Mapped> = None;
            for r in m.runs() {
                prop_assert!(last.is_none_or(|l| l.end <= r.virt) && r.virt < r.end);
                last = Some(r);
            }
        }
        for (p, expected) in pages.iter().enumerate() {
            let at = va(p as u64);
            let found = m.at(at);
            let perm = expected.map(|(bits, _)| m.bits.perm(VirtAddr(at), bits));
            prop_assert_eq!(found.map(|f| f.perm), perm);
            prop_assert_eq!(m.phys(at, 1), expected.and_then(|e| e.1));
        }
    }
}
