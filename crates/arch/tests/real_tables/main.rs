//! The walker against page tables of real kernels.
//!
//! Dumps of every page-table page of a running kernel are walked by [`Format::for_each_leaf`], and
//! the result is compared with what others said of the same moment: on x86-64 QEMU's own listing of
//! every leaf, everywhere the counts of an independent small walker (by leaf size and permission,
//! tables, W+X leaves, executable frames that are writable elsewhere). Every leaf found is also
//! looked up by [`Format::walk`].
//!
//! Dumps come from `tests/logs` of the repository, and from the directory in `TEXTBED_LOGS`, which
//! has more of them. What is not there is said and skipped.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod dump;
mod hashed;
mod said;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use dump::Dump;
use textbed_arch::paging::{Format, MappedLeaf, Scan, ScanEnd};
use textbed_arch::{Perm, PhysAddr};

/// What one dump was compared in.
#[derive(Default)]
struct Tally {
    dumps: usize,
    compared: u64,
    equal: u64,
    wrong: Vec<String>,
}

impl Tally {
    fn check<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, ours: &T, theirs: &T) {
        self.compared += 1;
        if ours == theirs {
            self.equal += 1;
        } else {
            self.wrong.push(format!("{what}: ours {ours:?}, theirs {theirs:?}"));
        }
    }

    fn report(&self, name: &str) {
        let (d, c, e) = (self.dumps, self.compared, self.equal);
        println!("{name}: {d} dumps, {c} compared, {e} equal");
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        assert_eq!(c, e);
    }
}

fn leaves_of(format: &Format, dump: &Dump, root: PhysAddr) -> (Vec<MappedLeaf>, Scan) {
    let mut leaves = Vec::new();
    let scan =
        format.for_each_leaf(root, dump.half, &mut |addr| dump.entry(format, addr), &mut |leaf| {
            leaves.push(*leaf);
            ControlFlow::Continue(())
        });
    (leaves, scan)
}

/// Letters as the small walker writes them: U, R, W, and X for whoever the page belongs to.
fn letters(perm: Perm) -> String {
    let user = perm.contains(Perm::USER);
    let execute = if user { Perm::USER_EXEC } else { Perm::EXEC };
    [(Perm::USER, 'U'), (Perm::READ, 'R'), (Perm::WRITE, 'W'), (execute, 'X')]
        .map(|(p, c)| if perm.contains(p) { c } else { '-' })
        .iter()
        .collect()
}

fn compare(dir: &Path, moment: &str, tally: &mut Tally) {
    let dump = Dump::read(&dir.join(format!("ptpages.{moment}.bin.zst")), dir);
    let format = dump.format;
    let name = format!("{} {moment}", dir.file_name().unwrap_or_default().to_string_lossy());
    let (leaves, scan) = leaves_of(format, &dump, dump.root);
    assert_eq!((scan.end, scan.outside_memory), (ScanEnd::Complete, 0), "{name}");
    assert_eq!((scan.malformed_count, scan.malformed.len()), (0, 0), "{name}");
    assert!(leaves.is_sorted_by_key(|l| l.va), "{name}: leaves out of order");
    tally.dumps += 1;

    // Each leaf again, by walking to its first and last byte.
    for leaf in &leaves {
        let last = leaf.va.offset((1 << leaf.shift) - 1);
        for va in [leaf.va, last] {
            let walk = format.walk(dump.root, va, &mut |addr| dump.entry(format, addr));
            let offset = va.0 & ((1 << leaf.shift) - 1);
            let found = walk.translation().map(|t| (t.phys.0, t.shift, t.perm, t.raw));
            let same = found == Some((leaf.phys.0 + offset, leaf.shift, leaf.perm, leaf.raw));
            assert!(same, "{name}: {va} {walk:?}");
            assert_eq!(walk.path().last().map(|s| s.addr), Some(leaf.entry));
        }
    }

    if let Some(listing) = said::qemu(dir, moment) {
        let ours: BTreeSet<_> = leaves.iter().map(said::as_qemu_prints).collect();
        tally.compared += listing.len() as u64;
        tally.equal += listing.intersection(&ours).count() as u64;
        let odd: Vec<_> = listing.symmetric_difference(&ours).take(5).collect();
        if !odd.is_empty() {
            tally.wrong.push(format!("{name}: QEMU's listing differs, e.g. {odd:x?}"));
        }
    }
    if let Some(walk) = said::walker(dir, moment) {
        let mut counts: BTreeMap<(u64, String), u64> = BTreeMap::new();
        for leaf in &leaves {
            *counts.entry((1 << leaf.shift, letters(leaf.perm))).or_default() += 1;
        }
        tally.check(&format!("{name} leaves by size and permission"), &counts, &walk.counts);
        tally.check(&format!("{name} leaves"), &scan.leaves, &walk.leaves);
        if let Some(tables) = walk.tables {
            tally.check(&format!("{name} tables"), &dump.tables_below(format), &tables);
        }
        let kernel: Vec<_> = leaves.iter().filter(|l| !l.perm.contains(Perm::USER)).collect();
        let wx = kernel.iter().filter(|l| l.perm.writable() && l.perm.executable()).count();
        tally.check(&format!("{name} W+X leaves"), &(wx as u64), &walk.wx);
        let frames = |p: fn(Perm) -> bool| -> BTreeSet<u64> {
            let some = kernel.iter().filter(|l| p(l.perm));
            some.flat_map(|l| l.phys.0 >> 12..(l.phys.0 + (1 << l.shift)) >> 12).collect()
        };
        let (x, w) = (frames(Perm::executable), frames(Perm::writable));
        let both = x.intersection(&w).count() as u64;
        let ours = (x.len() as u64, both);
        tally.check(&format!("{name} executable frames"), &ours, &walk.executable_frames);
    }
}

/// The moments of a folder that have a dump.
fn moments(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .filter_map(|e| {
            let name = e.ok()?.file_name().into_string().ok()?;
            Some(name.strip_prefix("ptpages.")?.strip_suffix(".bin.zst")?.to_owned())
        })
        .collect();
    found.sort();
    found
}

fn compare_all(root: &Path) -> Tally {
    let mut tally = Tally::default();
    let Ok(entries) = std::fs::read_dir(root) else { return tally };
    let mut dirs: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    dirs.sort();
    for dir in dirs {
        let before = (tally.compared, tally.equal);
        let moments = moments(&dir);
        for moment in &moments {
            compare(&dir, moment, &mut tally);
        }
        if !moments.is_empty() {
            let (c, e) = (tally.compared - before.0, tally.equal - before.1);
            println!("  {}: {} dumps, {c} compared, {e} equal", dir.display(), moments.len());
        }
    }
    tally
}

#[test]
fn committed_dumps() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs");
    let tally = compare_all(&root);
    if tally.dumps == 0 {
        println!("SKIPPED: no ptpages dump below {}", root.display());
        return;
    }
    tally.report("committed dumps");
}

#[test]
#[ignore = "reads the directory named by TEXTBED_LOGS"]
fn more_dumps() {
    let root = std::env::var_os("TEXTBED_LOGS").expect("TEXTBED_LOGS names a directory of logs");
    let tally = compare_all(Path::new(&root));
    assert!(tally.dumps > 0, "TEXTBED_LOGS has no ptpages dump");
    tally.report("TEXTBED_LOGS");
}
