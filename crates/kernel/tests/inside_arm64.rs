//! What others do inside of arm64's changes of a range: behind each entry, and while a block is
//! split.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot_under, boot_with, run, values};
use textbed_arch::{Arch, CpuId, FRAME_BYTES, Features, Perm, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_kernel::{Progress, Wait};
use textbed_machine::{Newest, Stalest};

const VERSIONS: [&str; 6] = ["5.18", "6.1", "6.6", "6.12", "6.18", "7.0"];
const ME: CpuId = CpuId(0);
const OTHER: CpuId = CpuId(1);

fn with_bbml2() -> (Features, u16) {
    (Features::default_for(Arch::Arm64) | Features::ARM_BBML2_NOABORT, 2)
}

fn writable(bed: &Bed, at: u64) -> bool {
    let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at));
    leaf.is_some_and(|leaf| leaf.perm.writable())
}

fn stores(bed: &mut Bed, at: u64) -> bool {
    bed.kernel.machine_mut().store(OTHER, VirtAddr(at), &[1], MemOrder::Plain).is_ok()
}

/// No lock is held over a range: whoever looks finds it changed up to some page, first in the
/// direct map, whose pages have a flush each, then at its own addresses, which have one together.
#[test]
fn a_range_changes_entry_by_entry() {
    for version in VERSIONS {
        let machine = (Features::default_for(Arch::Arm64), 2);
        let mut bed = boot_under(version, Arch::Arm64, &[], machine, Box::new(Stalest));
        let a = bed.area("a", "vmalloc", 4 * FRAME_BYTES);
        let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
        let at = |start: u64, n: u64| start + n * FRAME_BYTES;
        for n in 0..3 {
            assert!(stores(&mut bed, at(a, n)) && stores(&mut bed, at(dm, n)));
        }
        let mut seen = Vec::new();
        let done = run(&mut bed, ME, ("set_memory_ro", &values(&[a, 3])), |bed| {
            let entries = |start: u64| (0..3).map(|n| writable(bed, at(start, n))).collect();
            let (aliases, own): (Vec<bool>, Vec<bool>) = (entries(dm), entries(a));
            let written = (0..3).map(|n| stores(bed, at(a, n))).collect::<Vec<bool>>();
            seen.push((aliases, own, written));
        });
        assert_eq!(done, 0);
        let half = [false, true, true];
        assert!(seen.iter().any(|s| s.0 == half && s.1 == [true; 3]), "{version}: {seen:?}");
        assert!(seen.iter().any(|s| s.1 == half && s.0 == [false; 3]), "{version}: {seen:?}");
        // By older translations all of it is written to until the flush behind the last entry.
        assert!(seen.iter().any(|s| s.1 == [false; 3] && s.2 == [true; 3]), "{version}: {seen:?}");
        assert!(seen.iter().all(|s| s.2 == [true; 3] || s.2 == [false; 3]), "{version}: {seen:?}");
        let left = |s: &[bool]| s.iter().filter(|w| **w).count();
        let order = |s: &(Vec<bool>, Vec<bool>, Vec<bool>)| left(&s.0) + left(&s.1) + left(&s.2);
        assert!(seen.is_sorted_by(|a, b| order(a) >= order(b)), "{version}: {seen:?}");
    }
}

/// Nothing keeps two CPUs from changing the same range: what is left is a mixture of both.
#[test]
fn two_changes_of_one_range_mix() {
    for version in VERSIONS {
        let machine = (Features::default_for(Arch::Arm64), 2);
        let mut bed =
            boot_under(version, Arch::Arm64, &[("rodata", "on")], machine, Box::new(Newest));
        let a = bed.area("a", "vmalloc", 3 * FRAME_BYTES);
        let mut done = false;
        run(&mut bed, ME, ("set_memory_ro", &values(&[a, 3])), |bed| {
            if !done && !writable(bed, a) {
                done = true;
                assert_eq!(run(bed, OTHER, ("set_memory_rw", &values(&[a, 3])), |_| {}), 0);
            }
        });
        let entries: Vec<bool> = (0..3).map(|n| writable(&bed, a + n * FRAME_BYTES)).collect();
        assert_eq!(entries, [true, false, false], "{version}");
    }
}

/// `set_pte()` has its barriers behind each valid entry up to 6.12; 6.18 puts them off to the end.
/// Behind entries that are not valid there are none.
#[test]
fn barriers_stand_behind_valid_entries() {
    for version in VERSIONS {
        let mut bed = boot_with(version, Arch::Arm64, &[], Features::default_for(Arch::Arm64), 2);
        let dm = bed.kernel.layout().direct_map.start.0 + (64 << 20);
        let once = ["6.18", "7.0"].contains(&version);
        for (valid, barriers) in [(0, 0), (1, if once { 1 } else { 3 })] {
            bed.trace();
            assert_eq!(bed.call("set_memory_valid", &[dm, 3, valid]), 0);
            let trace = bed.trace();
            let last = trace.iter().rposition(|l| l.contains("leaf")).unwrap();
            let first = trace.iter().position(|l| l.contains("leaf")).unwrap();
            let flushes = trace.iter().any(|l| l.contains("tlbi"));
            let all = trace.iter().filter(|l| *l == "0 dsb ishst").count();
            assert_eq!(all, barriers + usize::from(flushes), "{version} {valid}: {trace:#?}");
            assert_eq!(last - first > 2, barriers == 3, "{version} {valid}: {trace:#?}");
        }
    }
}

/// A split is seen half done: a group of which some entries have lost their bit, a table that took
/// a block's place while nothing changed yet. Another one that splits waits for the mutex.
#[test]
fn a_split_is_seen_half_done_and_others_wait_for_it() {
    for version in ["6.18", "7.0"] {
        let mut bed = boot_under(version, Arch::Arm64, &[], with_bbml2(), Box::new(Newest));
        let block = bed.kernel.layout().direct_map.start.0 + (64 << 20);
        let leaf = |bed: &Bed, at: u64| {
            let found = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).unwrap();
            (found.shift, found.attributes.contiguous, found.perm)
        };
        let rw = Perm::KERNEL_RW;
        let mut seen = Vec::new();
        let mut waits = false;
        let args = values(&[block + 3 * FRAME_BYTES, 1, 0]);
        run(&mut bed, ME, ("set_memory_valid", &args), |bed| {
            seen.push((leaf(bed, block), leaf(bed, block + (2 << 20))));
            if bed.kernel.machine().lock_holder("pgtable_split_lock") == Some(ME) && !waits {
                waits = true;
                let other = values(&[block + (34 << 20) + FRAME_BYTES, 1, 0]);
                let begun = bed.kernel.begin(OTHER, "set_memory_valid", &other).unwrap();
                let lock = Wait::Lock("pgtable_split_lock".to_owned());
                assert_eq!(begun, Progress::Waits(lock), "{version}");
            }
        });
        assert!(waits, "{version}");
        for half in [
            ((21, false, rw), (21, true, rw)),
            ((12, true, rw), (21, false, rw)),
            ((12, false, rw), (21, false, rw)),
        ] {
            assert!(seen.contains(&half), "{version}: {half:?} in {seen:?}");
        }
        let mut progress = bed.kernel.resume(OTHER).unwrap();
        while progress == Progress::More {
            progress = bed.kernel.resume(OTHER).unwrap();
        }
        assert!(matches!(progress, Progress::Done(v) if v.value == 0), "{version}");
        assert_eq!(leaf(&bed, block + (34 << 20)).0, 12, "{version}");
    }
}
