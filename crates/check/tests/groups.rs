//! break-before-make where entries translate together (arm64's contiguous bit) and where memory
//! types change: what is found, when, and what is not.

mod common;

use common::*;
use textbed_arch::paging::{Attributes, MemoryType};
use textbed_arch::{
    Arch, Features, Perm, PhysAddr, VirtAddr,
    effect::{Barrier, Reach},
};
use textbed_check::{Report, rules::RuleId};
use textbed_event::{LeafChange, View};

const PAGE: u64 = 0x1000;
/// An address and a frame at which groups of pages of 4 KiB begin, and their entries.
const V: u64 = AREA & !0xf_ffff;
const G: u64 = 0x40_0000;
const ENTRIES: u32 = 16;
const PLAIN: Attributes = Attributes { contiguous: false, memory: MemoryType::WriteBack };
const JOINED: Attributes = Attributes { contiguous: true, memory: MemoryType::WriteBack };

/// One change of a run of entries of the group: from the first on, how many, old and new.
fn leaf(s: &mut Story, first: u32, count: u32, old: (Perm, Attributes), new: (Perm, Attributes)) {
    let at = u64::from(first) * PAGE;
    let (phys, virt) = (PhysAddr(G + at), VirtAddr(V + at));
    let (attributes, was_contiguous) = (new.1, old.1.contiguous);
    let change =
        LeafChange { attributes, was_contiguous, ..LeafChange::usual(count, 12, old.0, new.0) };
    s.emit(0, View::Leaf { virt, phys, change });
}

fn flush(s: &mut Story, first: u32, count: u32) {
    s.barrier(0, Barrier::DsbStore);
    for n in first..first + count {
        s.tlbi(0, Reach::Broadcast, V + u64::from(n) * PAGE, PAGE);
    }
    s.dsb(0);
    s.sync(0);
}

/// A group is mapped, and then what `then` does.
fn group(on: Features, then: impl FnOnce(&mut Story)) -> Report {
    let mut s = Story::with(Arch::Arm64, on, Features::empty());
    leaf(&mut s, 0, ENTRIES, (NONE, PLAIN), (RW, JOINED));
    s.barrier(0, Barrier::DsbStore);
    s.sync(0);
    then(&mut s);
    s.run()
}

/// The one finding, whether it is certain, and whether its message has a part.
fn found(report: &Report, sure: bool, part: &str) {
    let f = only(report, RuleId::BreakBeforeMake);
    assert_eq!(certain(f), sure, "{}", f.message);
    assert!(f.message.contains(part), "{}", f.message);
}

fn nothing(report: &Report) {
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

const BBML2: Features = Features::ARM_BBML2_NOABORT;
const NO: Features = Features::empty();

#[test]
fn a_contiguous_bit_changes_in_use_with_bbml2_alone() {
    let unfold = |s: &mut Story| {
        leaf(s, 0, ENTRIES, (RW, JOINED), (RW, PLAIN));
        flush(s, 0, ENTRIES);
    };
    found(&group(NO, unfold), true, "another contiguous bit");
    nothing(&group(BBML2, unfold));
    let fold = |s: &mut Story| {
        unfold(s);
        leaf(s, 0, ENTRIES, (RW, PLAIN), (RW, JOINED));
        flush(s, 0, ENTRIES);
    };
    nothing(&group(BBML2, fold));
}

#[test]
fn a_group_that_is_broken_whole_becomes_anything() {
    for (new, attributes) in [(RW, PLAIN), (RO, JOINED), (RW, device())] {
        for flushed in [false, true] {
            let report = group(NO, |s| {
                leaf(s, 0, ENTRIES, (RW, JOINED), (NONE, PLAIN));
                if flushed {
                    flush(s, 0, ENTRIES);
                }
                leaf(s, 0, ENTRIES, (NONE, PLAIN), (new, attributes));
                flush(s, 0, ENTRIES);
            });
            let same = attributes == JOINED;
            let held = rules(&report).contains(&RuleId::BreakBeforeMake);
            assert_eq!(held, !flushed && !same, "{attributes:?} {flushed}: {:#?}", report.findings);
        }
    }
}

fn device() -> Attributes {
    Attributes { contiguous: false, memory: MemoryType::Device }
}

#[test]
fn one_entry_broken_and_made_without_the_bit_is_misprogrammed() {
    let one = |s: &mut Story| {
        leaf(s, 3, 1, (RW, JOINED), (NONE, PLAIN));
        flush(s, 3, 1);
        leaf(s, 3, 1, (NONE, PLAIN), (RW, PLAIN));
        flush(s, 3, 1);
    };
    // Between, the group had an entry that was not valid, behind a flush.
    found(&group(NO, one), false, "is not valid");
    found(&group(BBML2, one), false, "is not valid");
    let at_once = |s: &mut Story| {
        leaf(s, 3, 1, (RW, JOINED), (NONE, PLAIN));
        leaf(s, 3, 1, (NONE, PLAIN), (RW, PLAIN));
        flush(s, 3, 1);
    };
    let report = group(NO, at_once);
    let messages: Vec<&str> = report.findings.iter().map(|f| f.message.as_str()).collect();
    assert!(messages.iter().any(|m| m.contains("has not the contiguous bit")), "{messages:?}");
    nothing(&group(BBML2, at_once));
}

#[test]
fn rights_may_differ_until_an_address_of_the_group_is_invalidated() {
    let each = |s: &mut Story| {
        for n in 0..ENTRIES {
            leaf(s, n, 1, (RW, JOINED), (RO, JOINED));
        }
        flush(s, 0, ENTRIES);
    };
    nothing(&group(NO, each));
    let whole = |s: &mut Story| {
        leaf(s, 0, ENTRIES, (RW, JOINED), (RO, JOINED));
        flush(s, 0, ENTRIES);
    };
    nothing(&group(NO, whole));
    for last in [false, true] {
        let some = group(NO, |s| {
            leaf(s, 3, 2, (RW, JOINED), (RO, JOINED));
            if !last {
                flush(s, 3, 2);
            }
        });
        found(&some, true, "grants r-- where another grants rw-");
    }
    // Entry by entry, each with its flush: the first comes back from its neighbours.
    let one_by_one = |s: &mut Story| {
        for n in 0..ENTRIES {
            leaf(s, n, 1, (RW, JOINED), (RO, JOINED));
            flush(s, n, 1);
        }
    };
    found(&group(BBML2, one_by_one), true, "grants");
    // Somebody else's addresses are no reason to look.
    let elsewhere = |s: &mut Story| {
        leaf(s, 0, 8, (RW, JOINED), (RO, JOINED));
        flush(s, 16, 1);
        leaf(s, 8, 8, (RW, JOINED), (RO, JOINED));
        flush(s, 0, ENTRIES);
    };
    nothing(&group(NO, elsewhere));
}

#[test]
fn the_bit_first_and_then_rights_of_one_is_how_it_is_done_with_bbml2() {
    let split = |s: &mut Story| {
        leaf(s, 0, ENTRIES, (RW, JOINED), (RW, PLAIN));
        s.barrier(0, Barrier::DsbStore);
        leaf(s, 3, 1, (RW, PLAIN), (RO, PLAIN));
        flush(s, 3, 1);
    };
    nothing(&group(BBML2, split));
    found(&group(NO, split), true, "another contiguous bit");
}

#[test]
fn frames_of_a_group_go_on_and_are_aligned() {
    let moved = group(NO, |s| {
        leaf(s, 5, 1, (RW, JOINED), (NONE, PLAIN));
        let at = 5 * PAGE;
        let change = LeafChange { attributes: JOINED, ..LeafChange::usual(1, 12, NONE, RW) };
        let view = View::Leaf { virt: VirtAddr(V + at), phys: PhysAddr(2 * G + at), change };
        s.emit(0, view);
        flush(s, 5, 1);
    });
    let messages: Vec<&str> = moved.findings.iter().map(|f| f.message.as_str()).collect();
    assert!(messages.iter().any(|m| m.contains("goes on")), "{messages:?}");
    let mut s = Story::new(Arch::Arm64);
    let change = LeafChange { attributes: JOINED, ..LeafChange::usual(ENTRIES, 12, NONE, RW) };
    s.emit(0, View::Leaf { virt: VirtAddr(V), phys: PhysAddr(G + PAGE), change });
    found(&s.run(), true, "goes on");
}

#[test]
fn the_number_of_entries_is_that_of_the_granule() {
    // Granule, size of a leaf, entries of a group; the last one's rights differ, or the next one's.
    for (page, shift, entries) in [(12, 12, 16), (12, 21, 16), (14, 14, 128), (14, 25, 32)] {
        for next in [false, true] {
            let mut s = Story::new(Arch::Arm64);
            s.header.page_shift = page;
            let change = |count, old, new| LeafChange {
                attributes: JOINED,
                was_contiguous: old == RW,
                ..LeafChange::usual(count, shift, old, new)
            };
            // At a multiple of every group's size.
            let (virt, phys) = (AREA & !((1 << 36) - 1), 1u64 << 36);
            let at = |n: u64| (VirtAddr(virt + (n << shift)), PhysAddr(phys + (n << shift)));
            let both = change(2 * entries, NONE, RW);
            s.emit(0, View::Leaf { virt: at(0).0, phys: at(0).1, change: both });
            let half = u64::from(entries);
            let (from, count) = if next { (half, entries) } else { (half - 1, entries) };
            let (virt, phys) = at(from);
            s.emit(0, View::Leaf { virt, phys, change: change(count, RW, RO) });
            let wrong = rules(&s.run()).contains(&RuleId::BreakBeforeMake);
            assert_eq!(wrong, !next, "{page} {shift}");
        }
    }
}

#[test]
fn another_memory_type_needs_a_break_on_arm64_and_power() {
    for arch in Arch::ALL {
        for broken in [false, true] {
            let mut s = Story::new(arch);
            s.leaf(0, V, G, 1, NONE, RW);
            let change = |old, new| LeafChange {
                attributes: if new == RW { device() } else { PLAIN },
                ..LeafChange::usual(1, 12, old, new)
            };
            let view = |old, new| View::Leaf {
                virt: VirtAddr(V),
                phys: PhysAddr(G),
                change: change(old, new),
            };
            if broken {
                s.emit(0, view(RW, NONE));
            }
            s.emit(0, view(if broken { NONE } else { RW }, RW));
            let report = s.run();
            let needs = matches!(arch, Arch::Arm64 | Arch::Ppc64 | Arch::Ppc64le);
            assert_eq!(rules(&report).contains(&RuleId::BreakBeforeMake), needs, "{arch} {broken}");
            if needs {
                found(&report, true, "another memory type");
            }
        }
    }
}
