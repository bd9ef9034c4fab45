//! Trees built with the codec against a flat model: map, protect with splits, collapse, unmap.
//!
//! The model is a map from page to (frame, permissions). After every operation the walker and the
//! scan must say what the model says, for every page of the area and around it. Hostile tables are
//! tried too: whatever is in memory, a walk and a scan end.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use proptest::prelude::*;
use textbed_arch::paging::{
    Canonical, Controls, Entry, FORMATS, Format, Half, ScanEnd, WalkFault, X86_64_4LEVEL,
};
use textbed_arch::{Perm, PhysAddr, VirtAddr};

/// A tree in a small memory of entries.
struct Tree {
    format: &'static Format,
    memory: HashMap<u64, u64>,
    next: u64,
    root: PhysAddr,
}

impl Tree {
    fn new(format: &'static Format) -> Self {
        let mut tree = Tree { format, memory: HashMap::new(), next: 0x10_0000, root: PhysAddr(0) };
        tree.root = tree.table(0);
        tree
    }

    /// A zeroed table of a level.
    fn table(&mut self, level: usize) -> PhysAddr {
        let bytes = self.format.levels[level].table_bytes();
        self.next = self.next.next_multiple_of(bytes);
        let at = self.next;
        self.next += bytes;
        let entry = self.format.entry_bytes(level);
        for i in 0..bytes / entry {
            self.memory.insert(at + entry * i, 0);
        }
        PhysAddr(at)
    }

    fn read(&self, addr: PhysAddr) -> Option<u64> {
        self.memory.get(&addr.0).copied()
    }

    /// The entry for `va` at `level`, making tables and splitting leaves above it.
    fn entry(&mut self, va: VirtAddr, level: usize) -> PhysAddr {
        let mut table = self.root;
        for l in 0..level {
            let addr = self.format.entry_addr(table, l, va).unwrap();
            let raw = self.memory[&addr.0];
            table = match self.format.decode(l, raw) {
                Entry::Table { next, .. } => next,
                Entry::None => {
                    let new = self.table(l + 1);
                    self.memory.insert(addr.0, self.format.encode_table(l, new).unwrap());
                    new
                }
                Entry::Leaf { .. } => {
                    let new = self.table(l + 1);
                    for i in 0..self.format.levels[l + 1].entries() {
                        let part = self.format.leaf_at_level(raw, l, l + 1, i).unwrap();
                        self.memory.insert(new.0 + self.format.entry_bytes(l + 1) * i, part);
                    }
                    self.memory.insert(addr.0, self.format.encode_table(l, new).unwrap());
                    new
                }
                Entry::Malformed { why } => panic!("{why}"),
            };
        }
        self.format.entry_addr(table, level, va).unwrap()
    }
}

/// An operation on pages `page .. page + pages` of the area,
/// or on the large leaf that holds `page`.
#[derive(Clone, Debug)]
enum Op {
    Map { page: u64, frame: u64, perm: Perm },
    MapLarge { page: u64, frame: u64, perm: Perm },
    Protect { page: u64, pages: u64, set: Perm, clear: Perm },
    Unmap { page: u64 },
    Collapse { page: u64, perm: Perm },
}

/// The next larger leaf after a page: 2 MiB, or what the granule has; a page again where a format
/// has no larger ones.
fn large_shift(f: &Format) -> u32 {
    f.leaf_shifts().filter(|s| *s > f.page_shift).min().unwrap_or(f.page_shift)
}

/// Pages of the area.
fn pages(f: &Format) -> u64 {
    (LARGE << (large_shift(f) - f.page_shift)).max(64)
}

/// Large leaves of the area.
const LARGE: u64 = 2;

fn kernel_perm() -> impl Strategy<Value = Perm> {
    let all = [Perm::KERNEL_RW, Perm::KERNEL_RO, Perm::KERNEL_ROX, Perm::KERNEL_RWX];
    prop::sample::select(all.to_vec())
}

fn change() -> impl Strategy<Value = (Perm, Perm)> {
    let (none, w, x) = (Perm::empty(), Perm::WRITE, Perm::EXEC);
    prop::sample::select(vec![(none, w), (w, none), (none, x), (x, none), (x, w), (w, x)])
}

fn op(pages: u64) -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..pages, 0..4096u64, kernel_perm()).prop_map(|(page, frame, perm)| Op::Map {
            page,
            frame,
            perm
        }),
        (0..pages, 0..16u64, kernel_perm()).prop_map(|(page, frame, perm)| Op::MapLarge {
            page,
            frame,
            perm
        }),
        (0..pages, 1..pages, change()).prop_map(|(page, pages, (set, clear))| Op::Protect {
            page,
            pages,
            set,
            clear
        }),
        (0..pages).prop_map(|page| Op::Unmap { page }),
        (0..pages, kernel_perm()).prop_map(|(page, perm)| Op::Collapse { page, perm }),
    ]
}

/// The model: page number of the area to (physical address, permissions).
type Model = BTreeMap<u64, (u64, Perm)>;

fn area(format: &Format) -> VirtAddr {
    VirtAddr(match format.canonical {
        Canonical::Quadrant if format.va_bits < 52 => 0xc000_3d00_0000_0000,
        Canonical::Quadrant => 0xc008_0000_0000_0000,
        Canonical::ZeroAbove => 0xc900_0000,
        _ => u64::MAX << (format.va_bits - 2),
    })
}

/// What a walk grants for a leaf permission: radix takes GLOBAL from the address.
fn expected(perm: Perm) -> Perm {
    perm | Perm::GLOBAL
}

fn apply(tree: &mut Tree, model: &mut Model, op: &Op) {
    let f = tree.format;
    let page_bytes = 1u64 << f.page_shift;
    let shift = large_shift(f);
    let per_large = 1u64 << (shift - f.page_shift);
    let last = f.last_level();
    let large = f.level_for_shift(shift).unwrap();
    let total = pages(f);
    let va = |page: u64| area(f).offset(page * page_bytes);
    match *op {
        Op::Map { page, frame, perm } => {
            let page = page % total;
            let phys = PhysAddr(frame * page_bytes);
            let entry = tree.entry(va(page), last);
            tree.memory.insert(entry.0, f.encode_leaf(last, phys, perm).unwrap());
            model.insert(page, (phys.0, perm));
        }
        Op::MapLarge { page, frame, perm } => {
            let (first, phys) = (page % total / per_large * per_large, PhysAddr(frame << shift));
            let entry = tree.entry(va(first), large);
            tree.memory.insert(entry.0, f.encode_leaf(large, phys, perm).unwrap());
            for i in 0..per_large {
                model.insert(first + i, (phys.0 + i * page_bytes, perm));
            }
        }
        Op::Protect { page, pages, set, clear } => {
            let page = page % total;
            for page in page..(page + pages).min(total) {
                let Some((_, perm)) = model.get_mut(&page) else { continue };
                *perm = perm.difference(clear).union(set);
                let entry = tree.entry(va(page), last);
                let raw = tree.memory[&entry.0];
                tree.memory.insert(entry.0, f.with_perm(last, raw, set, clear));
            }
        }
        Op::Unmap { page } => {
            let page = page % total;
            if model.remove(&page).is_some() {
                let entry = tree.entry(va(page), last);
                let raw = tree.memory[&entry.0];
                let off = f.with_perm(last, raw, Perm::empty(), Perm::PRESENT);
                tree.memory.insert(entry.0, off);
            }
        }
        // A large leaf made from its first small one, if all are there and in a row.
        Op::Collapse { page, perm } => {
            let first = page % total / per_large * per_large;
            let Some(&(phys, _)) = model.get(&first) else { return };
            let in_row = (0..per_large)
                .all(|i| model.get(&(first + i)).is_some_and(|m| m.0 == phys + i * page_bytes));
            if !in_row || phys & ((1 << shift) - 1) != 0 {
                return;
            }
            let small = tree.entry(va(first), last);
            let raw = f.with_perm(last, tree.memory[&small.0], perm, Perm::KERNEL_RWX - perm);
            let raw = f.with_perm(last, raw, Perm::PRESENT, Perm::empty());
            let entry = tree.entry(va(first), large);
            tree.memory.insert(entry.0, f.leaf_at_level(raw, last, large, 0).unwrap());
            for i in 0..per_large {
                if let Some(m) = model.get_mut(&(first + i)) {
                    m.1 = perm;
                }
            }
        }
    }
}

fn agree(tree: &Tree, model: &Model) -> Result<(), TestCaseError> {
    let f = tree.format;
    let page_bytes = 1u64 << f.page_shift;
    let pages = pages(f);
    let mut seen = Model::new();
    let scan = f.for_each_leaf(tree.root, Half::High, &mut |a| tree.read(a), &mut |leaf| {
        for i in 0..1u64 << (leaf.shift - f.page_shift) {
            let page = (leaf.va.0 - area(f).0) / page_bytes + i;
            seen.insert(page, (leaf.phys.0 + i * page_bytes, leaf.perm));
        }
        ControlFlow::Continue(())
    });
    prop_assert_eq!(
        (scan.end, scan.malformed_count, scan.outside_memory),
        (ScanEnd::Complete, 0, 0)
    );
    let wanted: Model = model.iter().map(|(p, (a, m))| (*p, (*a, expected(*m)))).collect();
    prop_assert_eq!(&seen, &wanted);
    for page in 0..pages + 2 {
        let offset = page * 7 % page_bytes;
        let va = area(f).offset(page * page_bytes + offset);
        let walk = f.walk(tree.root, va, &mut |a| tree.read(a));
        let found = walk.translation().map(|t| (t.phys.0 - offset, t.perm));
        prop_assert_eq!(found, wanted.get(&page).copied(), "{} page {}", f.name, page);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None,
        ..ProptestConfig::default() })]

    #[test]
    fn trees_follow_the_model(which in 0..FORMATS.len(), ops in prop::collection::vec(op(16384),
        1..12)) {
        let mut tree = Tree::new(FORMATS[which]);
        let mut model = Model::new();
        for op in &ops {
            apply(&mut tree, &mut model, op);
        }
        agree(&tree, &model)?;
    }

    /// A leaf decodes to what was encoded, at every level, and its bytes round-trip.
    #[test]
    fn leaves_round_trip(which in 0..FORMATS.len(), frame: u64, bits: u8) {
        let f = FORMATS[which];
        for (level, l) in f.levels.iter().enumerate().filter(|(_, l)| l.leaf_allowed) {
            let mask = ((1u64 << f.pa_bits) - 1) & !(l.span_bytes() - 1);
            let (phys, perm) = (PhysAddr(frame & mask), Perm::from_bits_truncate(bits));
            let Ok(raw) = f.encode_leaf(level, phys, perm) else { continue };
            let said = perm.intersection(f.expressible());
            let same = Entry::Leaf { phys, shift: l.index_shift, perm: said, raw };
            prop_assert_eq!(f.decode(level, raw), same);
            prop_assert_eq!(f.entry_from_bytes(f.entry_to_bytes(raw)), raw);
            prop_assert!(l.entry_bytes == 8 || raw >> 32 == 0);
            prop_assert_eq!(f.entry_to_bytes(raw)[0],
                raw.to_be_bytes()[if f.big_endian { 0 } else { 7 }]);
            prop_assert_eq!(f.entry_perm(level, raw, &Controls::LINUX), said);
        }
    }

    /// Changing permissions and changing them back leaves the entry as it was.
    #[test]
    fn with_perm_is_reversible(which in 0..FORMATS.len(), raw: u64, (set, clear) in change()) {
        let f = FORMATS[which];
        let last = f.last_level();
        let there = f.with_perm(last, raw, set, clear);
        let perm = f.entry_perm(last, there, &Controls::LINUX);
        prop_assert!(perm.contains(set) && !perm.intersects(clear));
        // Only bits of permission fields differ.
        let rights = ["RW", "NX", "RDONLY", "DBM", "PXN", "EXEC", "WRITE", "RO"];
        let allowed = rights.iter().filter_map(|n| f.field(n)).fold(0, |m, f| m | f.mask());
        prop_assert_eq!((there ^ raw) & !allowed, 0);
        prop_assert_eq!(f.with_perm(last, there, set, clear), there);
    }

    /// Whatever is in memory, a walk and a scan end, and read nothing twice for one address.
    #[test]
    fn hostile_tables_end(which in 0..FORMATS.len(), seed: u64, va: u64) {
        let f = FORMATS[which];
        // Every entry of memory is a function of its address, and often points back into it.
        let mut reads = 0u64;
        let mut read = |addr: PhysAddr| {
            reads += 1;
            let mix = (addr.0 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let level = (mix >> 60) as usize % 3;
            match mix % 8 {
                0 => None,
                1 => Some(mix),
                2..=6 => f.encode_table(level, PhysAddr((mix >> 20) & 0xff_0000)).ok(),
                _ => f.encode_leaf(f.last_level(), PhysAddr(0), Perm::KERNEL_RWX).ok(),
            }
        };
        let root = PhysAddr(0x10_0000);
        let walk = f.walk(root, VirtAddr(va), &mut read);
        prop_assert!(walk.path().len() <= f.levels.len());
        let mut leaves = 0u64;
        let limit = 20_000;
        let scan = f.for_each_leaf_with(root, Half::High, &Controls::LINUX, limit, &mut read,
            &mut |_| {
            leaves += 1;
            ControlFlow::Continue(())
        });
        prop_assert!(scan.entries <= limit && scan.leaves == leaves && reads <= limit + 5);
        prop_assert!(scan.malformed.len() <= 64);
    }
}

#[test]
fn a_scan_stops_when_told_and_a_self_map_ends() {
    // A PGD whose every entry points to itself: the fourth level is that table again, as leaves.
    let f = &X86_64_4LEVEL;
    let root = PhysAddr(0x1000);
    let mut read = |_| f.encode_table(0, root).ok();
    let mut leaves = 0;
    let scan = f.for_each_leaf(root, Half::Low, &mut read, &mut |_| {
        leaves += 1;
        if leaves == 1000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((scan.end, scan.leaves), (ScanEnd::Stopped, 1000));
    let walk = f.walk(root, VirtAddr(0), &mut read);
    assert_eq!((walk.path().len(), walk.translation().map(|t| t.phys)), (4, Some(root)));
    let scan =
        f.for_each_leaf_with(root, Half::Low, &Controls::LINUX, 100_000, &mut read, &mut |_| {
            ControlFlow::Continue(())
        });
    assert_eq!((scan.end, scan.entries), (ScanEnd::LimitReached, 100_000));
    let nowhere = f.walk(PhysAddr(0x5000), VirtAddr(0x1000), &mut |_| None);
    let addr = PhysAddr(0x5000);
    assert_eq!(nowhere.result, Err(WalkFault::OutsideMemory { level: 0, addr }));
}
