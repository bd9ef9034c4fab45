//! Page tables against a flat map of pages, on every format, and what an edit emits.

// Functions beside the tests may fail a test, too.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{KERNEL, P0, code};
use proptest::prelude::*;
use textbed_arch::{Arch, Features, Perm, PhysAddr, VirtAddr};
use textbed_event::{LeafChange, View};
use textbed_machine::{Machine, MachineConfig, MapError, Newest, Span, Stalest};

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];
const PAGE: u64 = 4096;
const LARGE: u64 = 2 << 20;
/// Pages of the window that edits play in: four 2 MiB leaves.
const PAGES: u64 = 4 * 512;

fn machine(arch: Arch) -> Machine {
    let config = MachineConfig { memory_bytes: 1 << 30, ..MachineConfig::new(arch) };
    Machine::new(config, Box::new(Newest)).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    Map { page: u64, count: u64, frame: u64, large: bool, perm: usize },
    Unmap { page: u64, count: u64 },
    Protect { page: u64, count: u64, to: usize },
    Split { page: u64 },
    Collapse { page: u64 },
}

const PERMS: [Perm; 4] = [Perm::KERNEL_RW, Perm::KERNEL_RO, Perm::KERNEL_ROX, Perm::KERNEL_RWX];
/// As set_memory_rw, ro, x, nx: (set, clear).
const CHANGES: [(Perm, Perm); 4] = [
    (Perm::WRITE.union(Perm::READ), Perm::empty()),
    (Perm::READ, Perm::WRITE),
    (Perm::EXEC, Perm::empty()),
    (Perm::empty(), Perm::EXEC),
];

/// Ranges that often begin or end at a large leaf.
fn span() -> impl Strategy<Value = (u64, u64)> {
    let edge = prop_oneof![3 => (0u64..4).prop_map(|n| n * 512), 2 => 0..PAGES];
    let count = prop_oneof![3 => (1u64..3).prop_map(|n| n * 512), 3 => 1u64..40, 1 => 1u64..900];
    (edge, count).prop_map(|(page, count)| (page, count.min(PAGES - page).max(1)))
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (span(), 0u64..64, any::<bool>(), 0usize..4).prop_map(|(span, frame, large, perm)| {
            let (page, count) = span;
            if large {
                let (page, count) = (page / 512 * 512, count.div_ceil(512) * 512);
                let count = count.min(PAGES - page);
                Edit::Map { page, count, frame: frame * 512, large, perm }
            } else {
                Edit::Map { page, count, frame: 4096 + page + frame, large, perm }
            }
        }),
        3 => span().prop_map(|(page, count)| Edit::Unmap { page, count }),
        3 => (span(), 0usize..4).prop_map(|((page, count), to)| Edit::Protect { page, count, to }),
        2 => (0..PAGES).prop_map(|page| Edit::Split { page }),
        2 => (0..PAGES).prop_map(|page| Edit::Collapse { page }),
    ]
}

/// What one page is: frame, permission, whether its leaf is large.
type Page = (u64, Perm, bool);

/// The flat model: no tables, no levels.
struct Flat {
    base: u64,
    pages: BTreeMap<u64, Page>,
}

impl Flat {
    fn partly(&self, page: u64, count: u64) -> bool {
        let large = |p: u64| self.pages.get(&p).is_some_and(|(_, _, large)| *large);
        let edge = |p: u64, inside: u64| !p.is_multiple_of(512) && large(inside);
        edge(page, page) || edge(page + count, page + count - 1)
    }

    /// Carries out an edit; `None` if it has to be refused.
    fn edit(&mut self, e: Edit) -> Option<u64> {
        match e {
            Edit::Map { page, count, frame, large, perm } => {
                if (page..page + count).any(|p| self.pages.contains_key(&p)) {
                    return None;
                }
                for n in 0..count {
                    self.pages.insert(page + n, (frame + n, PERMS[perm], large));
                }
                Some(0)
            }
            Edit::Unmap { page, count } => {
                if self.partly(page, count) {
                    return None;
                }
                self.pages.retain(|p, _| *p < page || *p >= page + count);
                Some(0)
            }
            Edit::Protect { page, count, to } => {
                if self.partly(page, count) {
                    return None;
                }
                let (set, clear) = CHANGES[to];
                let mut changed = 0;
                for (p, entry) in self.pages.range_mut(page..page + count) {
                    let new = entry.1.difference(clear).union(set);
                    if new != entry.1 && (!entry.2 || p % 512 == 0) {
                        changed += 1;
                    }
                    entry.1 = new;
                }
                Some(changed)
            }
            Edit::Split { page } => {
                if !self.pages.get(&page)?.2 {
                    return None;
                }
                for (_, entry) in self.pages.range_mut(page / 512 * 512..page / 512 * 512 + 512) {
                    entry.2 = false;
                }
                Some(0)
            }
            Edit::Collapse { page } => {
                let start = page / 512 * 512;
                let (frame, perm, large) = *self.pages.get(&start)?;
                if large || frame % 512 != 0 || !self.pages.contains_key(&page) {
                    return None;
                }
                let fits = (0..512)
                    .all(|n| self.pages.get(&(start + n)) == Some(&(frame + n, perm, false)));
                if !fits {
                    return None;
                }
                for (_, entry) in self.pages.range_mut(start..start + 512) {
                    entry.2 = true;
                }
                Some(0)
            }
        }
    }

    /// All pages, as the machine lists its leaves.
    fn agrees(&self, m: &Machine) -> Result<(), TestCaseError> {
        let mut got: BTreeMap<u64, Page> = BTreeMap::new();
        let mut covered = 0;
        for s in m.leaves(KERNEL, VirtAddr(self.base), PAGES * PAGE) {
            match s {
                Span::Gap { len, .. } => covered += len,
                Span::Mapped(leaf) => {
                    covered += 1 << leaf.shift;
                    let perm = leaf.perm.intersection(!(Perm::USER_EXEC | Perm::USER));
                    for n in 0..(1u64 << leaf.shift) / PAGE {
                        let page = (leaf.virt.0 - self.base) / PAGE + n;
                        got.insert(page, (leaf.phys.0 / PAGE + n, perm, leaf.shift == 21));
                    }
                }
            }
        }
        prop_assert_eq!(covered, PAGES * PAGE);
        prop_assert!(got == self.pages, "tables and flat map differ");
        for page in [0, 1, 511, 512, 513, 1500, PAGES - 1] {
            let leaf = m.lookup(KERNEL, VirtAddr(self.base + page * PAGE));
            prop_assert_eq!(leaf.is_some(), self.pages.contains_key(&page));
        }
        Ok(())
    }
}

fn apply(m: &mut Machine, base: u64, e: Edit) -> Result<u64, MapError> {
    let at = |page: u64| VirtAddr(base + page * PAGE);
    match e {
        Edit::Map { page, count, frame, large, perm } => {
            let (phys, shift) = (PhysAddr(frame * PAGE), if large { 21 } else { 12 });
            m.map(P0, KERNEL, at(page), phys, count * PAGE, shift, PERMS[perm]).map(|()| 0)
        }
        Edit::Unmap { page, count } => m.unmap(P0, KERNEL, at(page), count * PAGE).map(|()| 0),
        Edit::Protect { page, count, to } => {
            let (set, clear) = CHANGES[to];
            m.protect(P0, KERNEL, at(page), count * PAGE, set, clear)
        }
        Edit::Split { page } => m.split(P0, KERNEL, at(page)).map(|()| 0),
        Edit::Collapse { page } => m.collapse(P0, KERNEL, at(page)).map(|()| 0),
    }
}

/// Replays leaf events onto a map of pages: what a reader of the stream believes.
fn replay(pages: &mut BTreeMap<u64, Page>, base: u64, m: &mut Machine) {
    for event in m.take_batch().events {
        let View::Leaf { virt, phys, change } = event.view() else { continue };
        for n in 0..change.len() / PAGE {
            let page = (virt.0 - base) / PAGE + n;
            let before = pages.get(&page).map_or(Perm::empty(), |p| p.1);
            let old = change.old.difference(Perm::USER_EXEC | Perm::USER);
            assert_eq!(before, old, "the event's old permission");
            if change.new.is_empty() {
                pages.remove(&page);
            } else {
                let perm = change.new.difference(Perm::USER_EXEC | Perm::USER);
                pages.insert(page, (phys.0 / PAGE + n, perm, change.shift == 21));
            }
        }
    }
}

fn history(arch: Arch, edits: Vec<Edit>) -> Result<(), TestCaseError> {
    let mut m = machine(arch);
    let base = code(arch).0;
    let mut flat = Flat { base, pages: BTreeMap::new() };
    let mut told = BTreeMap::new();
    for e in edits {
        let expected = flat.edit(e);
        let got = apply(&mut m, base, e);
        prop_assert_eq!(got.clone().ok(), expected, "{:?}: {:?}", e, got);
        flat.agrees(&m)?;
        replay(&mut told, base, &mut m);
        prop_assert!(told == flat.pages, "events and flat map differ");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn tables_are_a_map_of_pages_x86_64(edits in prop::collection::vec(edit(), 1..24)) {
        history(Arch::X86_64, edits)?;
    }

    #[test]
    fn tables_are_a_map_of_pages_arm64(edits in prop::collection::vec(edit(), 1..24)) {
        history(Arch::Arm64, edits)?;
    }

    #[test]
    fn tables_are_a_map_of_pages_powerpc(edits in prop::collection::vec(edit(), 1..24)) {
        history(Arch::Ppc64le, edits)?;
    }
}

#[test]
fn one_uniform_range_is_one_event() {
    for arch in ARCHS {
        let mut m = machine(arch);
        let v = code(arch);
        m.map(P0, KERNEL, v, PhysAddr(LARGE), LARGE, 12, Perm::KERNEL_RW).unwrap();
        m.protect(P0, KERNEL, v.offset(PAGE), PAGE, Perm::empty(), Perm::WRITE).unwrap();
        m.take_batch();
        m.unmap(P0, KERNEL, v, LARGE).unwrap();
        let leaves: Vec<(u64, LeafChange)> = m
            .take_batch()
            .events
            .iter()
            .filter_map(|e| match e.view() {
                View::Leaf { virt, change, .. } => Some((virt.0 - v.0, change)),
                _ => None,
            })
            .collect();
        let counts: Vec<_> =
            leaves.iter().map(|(at, c)| (*at, c.count, c.old.writable())).collect();
        assert_eq!(counts, [(0, 1, true), (PAGE, 1, false), (2 * PAGE, 510, true)]);
        assert!(leaves.iter().all(|(_, c)| c.new.is_empty()));
    }
}

#[test]
fn errors_say_what_is_wrong_and_change_nothing() {
    for arch in ARCHS {
        let mut m = machine(arch);
        let v = code(arch);
        m.map(P0, KERNEL, v, PhysAddr(LARGE), LARGE, 21, Perm::KERNEL_RW).unwrap();
        let rw = Perm::KERNEL_RW;
        let part = Err(MapError::PartlyCovered { virt: v, shift: 21 });
        let far = v.offset(1 << 30);
        assert_eq!(m.unmap(P0, KERNEL, v.offset(PAGE), PAGE), part);
        assert_eq!(m.protect(P0, KERNEL, v, PAGE, Perm::empty(), Perm::WRITE), part.map(|()| 0));
        let unaligned = m.map(P0, KERNEL, far, PhysAddr(PAGE), LARGE, 21, rw);
        assert_eq!(unaligned, Err(MapError::Unaligned { addr: PAGE, shift: 21 }));
        let size = m.map(P0, KERNEL, far, PhysAddr(0), 1 << 39, 39, rw);
        assert_eq!(size, Err(MapError::LeafSize { shift: 39 }));
        let outside = m.map(P0, KERNEL, far, PhysAddr(1 << 30), PAGE, 12, rw);
        assert_eq!(outside, Err(MapError::OutsideMemory { phys: PhysAddr(1 << 30) }));
        for (virt, len) in
            [(v.0, 0), (u64::MAX - PAGE + 1, 2 * PAGE), (1 << 60, PAGE), (v.0, 1 << 62)]
        {
            let range = m.unmap(P0, KERNEL, VirtAddr(virt), len);
            assert_eq!(
                range,
                Err(MapError::BadRange { virt: VirtAddr(virt), len }),
                "{arch} {virt:#x}"
            );
        }
        let again = m.map(P0, KERNEL, v.offset(PAGE), PhysAddr(0), PAGE, 12, rw);
        assert_eq!(again, Err(MapError::AlreadyMapped { virt: v.offset(PAGE) }));
        assert_eq!(m.lookup(KERNEL, v).unwrap().phys, PhysAddr(LARGE));
        assert_eq!(m.split(P0, KERNEL, far), Err(MapError::NotMapped { virt: far }));
    }
    let no_pages = MachineConfig::new(Arch::Ppc32);
    assert!(Machine::new(no_pages, Box::new(Newest)).is_err());
    let mut config = MachineConfig::new(Arch::X86_64);
    config.features = config.features.difference(Features::X86_GBPAGES);
    let mut m = Machine::new(config, Box::new(Newest)).unwrap();
    let size = m.map(P0, KERNEL, code(Arch::X86_64), PhysAddr(0), 1 << 30, 30, Perm::KERNEL_RW);
    assert_eq!(size, Err(MapError::LeafSize { shift: 30 }));
}

#[test]
fn an_invalid_entry_keeps_its_bits() {
    for arch in ARCHS {
        let mut m = machine(arch);
        let v = code(arch);
        m.map(P0, KERNEL, v, PhysAddr(LARGE), LARGE, 12, Perm::KERNEL_ROX).unwrap();
        let at = v.offset(7 * PAGE);
        assert_eq!(m.protect(P0, KERNEL, at, PAGE, Perm::empty(), Perm::PRESENT), Ok(1));
        assert_eq!(m.lookup(KERNEL, at), None);
        let kept: Vec<Span> = m.leaves(KERNEL, at, PAGE).collect();
        let Span::Mapped(kept) = kept[0] else { panic!("a gap: {kept:?}") };
        assert_eq!((kept.perm, kept.phys), (Perm::empty(), PhysAddr(LARGE + 7 * PAGE)));
        assert!(m.map(P0, KERNEL, at, PhysAddr(0), PAGE, 12, Perm::KERNEL_RW).is_err());
        assert_eq!(m.protect(P0, KERNEL, at, PAGE, Perm::PRESENT, Perm::empty()), Ok(1));
        assert!(m.lookup(KERNEL, at).unwrap().perm.executable());
    }
}

#[test]
fn what_upper_levels_take_away_is_not_granted() {
    // The kernel's tables deny user access below them, whatever the leaf says.
    for (arch, denied) in
        [(Arch::X86_64, Perm::USER | Perm::USER_EXEC), (Arch::Arm64, Perm::USER_EXEC)]
    {
        let mut m = machine(arch);
        let v = code(arch);
        let user = Perm::KERNEL_RO | Perm::USER | Perm::USER_EXEC;
        let user = if arch == Arch::X86_64 { user | Perm::EXEC } else { user };
        m.map(P0, KERNEL, v, PhysAddr(LARGE), PAGE, 12, user).unwrap();
        let perm = m.lookup(KERNEL, v).unwrap().perm;
        assert!(perm.contains(Perm::READ) && !perm.intersects(denied), "{arch} {perm:?}");
        let told = m.take_batch().events;
        let View::Leaf { change, .. } = told[0].view() else { panic!("{told:?}") };
        assert_eq!(change.new, perm);
    }
}

#[test]
fn an_empty_table_gives_way_to_a_larger_leaf() {
    for arch in ARCHS {
        let mut m = machine(arch);
        let v = code(arch);
        m.map(P0, KERNEL, v, PhysAddr(LARGE), PAGE, 12, Perm::KERNEL_RW).unwrap();
        m.unmap(P0, KERNEL, v, PAGE).unwrap();
        m.take_batch();
        m.map(P0, KERNEL, v, PhysAddr(LARGE), LARGE, 21, Perm::KERNEL_RW).unwrap();
        let told = m.take_batch().events;
        let unlinked = told.iter().filter(|e| {
            let all = (v, LARGE, 3);
            matches!(e.view(), View::TableUnlinked { virt, len, level, .. } if (virt, len, level) == all)
        });
        assert_eq!(unlinked.count(), 1);
        // It is the tables' until it is given back.
        assert!(!told.iter().any(|e| matches!(e.view(), View::TableFreed { .. })));
        m.free_tables(P0);
        let told = m.take_batch().events;
        assert!(matches!(told[..], [e] if matches!(e.view(), View::TableFreed { level: 3, .. })));
        m.free_tables(P0);
        assert!(m.take_batch().events.is_empty(), "once");
    }
}

#[test]
fn empty_tables_are_cleared_away_and_others_are_not() {
    for arch in ARCHS {
        let mut m = machine(arch);
        let v = code(arch);
        let far = v.offset(LARGE);
        for at in [v, far] {
            m.map(P0, KERNEL, at, PhysAddr(LARGE), PAGE, 12, Perm::KERNEL_RW).unwrap();
        }
        m.unmap(P0, KERNEL, v, PAGE).unwrap();
        assert_eq!(m.unlink_empty_tables(P0, KERNEL, v, 2 * LARGE, 21), Ok(1), "{arch}");
        assert_eq!(m.unlink_empty_tables(P0, KERNEL, v, 2 * LARGE, 21), Ok(0), "{arch}");
        assert!(m.lookup(KERNEL, far).is_some() && m.lookup(KERNEL, v).is_none());
        m.free_tables(P0);
        m.map(P0, KERNEL, v, PhysAddr(LARGE), LARGE, 21, Perm::KERNEL_RW).unwrap();
        assert!(m.lookup(KERNEL, v.offset(PAGE)).is_some());
    }
}

#[test]
fn user_spaces_share_the_kernel_half() {
    for arch in ARCHS {
        let mut m = machine(arch);
        let space = m.new_space(P0).unwrap();
        let user = VirtAddr(0x5555_0000_0000);
        // Made after the space: a new root entry on x86.
        let v = VirtAddr(code(arch).0 & !((1 << 45) - 1) | 0x7 << 40);
        m.map(P0, KERNEL, v, PhysAddr(LARGE), PAGE, 12, Perm::KERNEL_RW).unwrap();
        m.map(P0, space, user, PhysAddr(LARGE), PAGE, 12, Perm::KERNEL_RW - Perm::GLOBAL).unwrap();
        assert!(m.lookup(space, v).is_some());
        assert!(m.lookup(space, user).is_some());
        assert_eq!(m.lookup(KERNEL, user), None);
        let mut byte = [0];
        assert!(m.load(P0, user, &mut byte).is_err());
        m.load_space(P0, space, 3, false).unwrap();
        m.load(P0, user, &mut byte).unwrap();
        m.load(P0, v, &mut byte).unwrap();
    }
}

#[test]
fn a_tebibyte_of_direct_map_is_a_thousand_leaves_and_one_event() {
    for arch in ARCHS {
        let memory_bytes = 1 << 40;
        let config = MachineConfig { memory_bytes, ..MachineConfig::new(arch) };
        let mut m = Machine::new(config, Box::new(Stalest)).unwrap();
        let v = common::alias(arch);
        m.map(P0, KERNEL, v, PhysAddr(0), memory_bytes, 30, Perm::KERNEL_RW).unwrap();
        let batch = m.take_batch();
        assert_eq!(batch.events.len(), 1);
        let View::Leaf { change, .. } = batch.events[0].view() else { panic!("no leaf event") };
        assert_eq!((change.count, change.shift), (1024, 30));
        assert!(m.frames_held() <= 40, "{} frames", m.frames_held());
        let mut byte = [0];
        m.load(P0, v.offset(memory_bytes - 1), &mut byte).unwrap();
        assert!(m.load(P0, v.offset(memory_bytes), &mut byte).is_err());
    }
}

#[test]
fn stains_stay_invalid_and_go_with_the_next_unmapping() {
    for arch in ARCHS {
        let mut m = machine(arch);
        let (v, none) = (code(arch), Perm::empty());
        m.map(P0, KERNEL, v, PhysAddr(LARGE), PAGE, 12, Perm::KERNEL_RW).unwrap();
        m.take_batch();
        // The page that is there keeps what it has; a right that is taken away leaves a bit only
        // where a bit says that it is not there.
        let leaves_a_bit = arch == Arch::Arm64;
        let stained = m.stain(P0, KERNEL, v, 3 * PAGE, none, Perm::WRITE).unwrap();
        assert_eq!(stained, if leaves_a_bit { 2 } else { 0 }, "{arch}");
        assert!(m.take_batch().events.is_empty(), "{arch}: nothing is translated otherwise");
        assert_eq!(m.lookup(KERNEL, v).unwrap().perm, Perm::KERNEL_RW, "{arch}");
        assert!(m.lookup(KERNEL, v.offset(PAGE)).is_none(), "{arch}");
        let again = m.map(P0, KERNEL, v.offset(PAGE), PhysAddr(0), PAGE, 12, Perm::KERNEL_RW);
        assert_eq!(again.is_err(), leaves_a_bit, "{arch}");
        m.unmap(P0, KERNEL, v, 3 * PAGE).unwrap();
        m.map(P0, KERNEL, v, PhysAddr(LARGE), 3 * PAGE, 12, Perm::KERNEL_RW).unwrap();
        assert!(m.stain(P0, KERNEL, v, 0, none, Perm::WRITE).is_err(), "{arch}: a bad range");
    }
}
