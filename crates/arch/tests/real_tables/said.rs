//! What others said of the same tables: QEMU's monitor and an independent small walker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use textbed_arch::paging::MappedLeaf;

/// A line of QEMU's `info tlb`: address, frame, and its letters.
pub(crate) type QemuLine = (u64, u64, String);

/// QEMU's listing, if there is one.
pub(crate) fn qemu(dir: &Path, moment: &str) -> Option<BTreeSet<QemuLine>> {
    let file = std::fs::File::open(dir.join(format!("qemu-info-tlb.{moment}.txt.zst"))).ok()?;
    let text = String::from_utf8(zstd::decode_all(file).unwrap()).unwrap();
    let lines: BTreeSet<QemuLine> = text
        .lines()
        .map(|line| {
            let (va, rest) = line.split_once(": ").unwrap();
            let (pa, flags) = rest.split_once(' ').unwrap();
            let hex = |s: &str| u64::from_str_radix(s, 16).unwrap();
            (hex(va), hex(pa), flags.trim().to_owned())
        })
        .collect();
    assert_eq!(lines.len(), text.lines().count(), "QEMU lists a leaf twice");
    Some(lines)
}

/// A leaf as QEMU prints it: its letters are bits of the leaf, most significant first: X for NX, G,
/// P for PS, D, A, C for PCD, T for PWT, U, W.
pub(crate) fn as_qemu_prints(leaf: &MappedLeaf) -> QemuLine {
    // Bit 7 of a 4 KiB leaf is PAT, which QEMU 7.2 prints as P too.
    let bits =
        [(63, 'X'), (8, 'G'), (7, 'P'), (6, 'D'), (5, 'A'), (4, 'C'), (3, 'T'), (2, 'U'), (1, 'W')];
    let text = bits.iter().map(|&(bit, c)| if leaf.raw >> bit & 1 == 1 { c } else { '-' });
    (leaf.va.0, leaf.phys.0, text.collect())
}

/// What the small walker counted.
#[derive(Debug)]
pub(crate) struct Walker {
    /// Leaves by (bytes, letters), over all regions.
    pub(crate) counts: BTreeMap<(u64, String), u64>,
    /// All leaves.
    pub(crate) leaves: u64,
    /// Tables, where it says so of the root alone.
    pub(crate) tables: Option<u64>,
    /// Leaves that are writable and executable.
    pub(crate) wx: u64,
    /// 4 KiB frames that are executable, and of these writable through some mapping.
    pub(crate) executable_frames: (u64, u64),
}

/// Reads `walk.MOMENT.txt`, if there is one.
pub(crate) fn walker(dir: &Path, moment: &str) -> Option<Walker> {
    let text = std::fs::read_to_string(dir.join(format!("walk.{moment}.txt"))).ok()?;
    let mut counts = BTreeMap::new();
    let (mut leaves, mut tables, mut wx, mut frames) = (None, None, None, None);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |word: &str| -> Option<u64> {
            let at = words.iter().position(|w| *w == word)?;
            words.get(at + 1)?.parse().ok()
        };
        if let [.., size, letters, n] = words[..]
            && letters.len() == 4
            && letters.chars().all(|c| "-URWX".contains(c))
        {
            *counts.entry((bytes(size), letters.to_owned())).or_default() +=
                n.parse::<u64>().unwrap();
        } else if line.starts_with("CR3") {
            // Its table pages are those of every root.
            leaves = after("leaves");
        } else if line.starts_with("tables ") {
            // On powerpc it counts all tables of the dump, also those of processes.
            let every = text.starts_with("ELF");
            (tables, leaves) = (after("tables").filter(|_| !every), after("leaves"));
        } else if line.starts_with("kernel W+X") {
            wx = after("leaves:");
        } else if line.starts_with("W+X") {
            wx = after("W+X");
        } else if line.starts_with("phys pages executable") {
            frames = after("executable:").zip(after("mapping:"));
        } else if line.starts_with("exec ") {
            frames = after("pages").zip(after("writable"));
        }
    }
    let walker = Walker {
        counts,
        leaves: leaves.unwrap(),
        tables,
        wx: wx.unwrap(),
        executable_frames: frames.unwrap(),
    };
    assert_eq!(walker.counts.values().sum::<u64>(), walker.leaves, "{}", dir.display());
    Some(walker)
}

fn bytes(size: &str) -> u64 {
    match size {
        "4K" => 4 << 10,
        "2M" => 2 << 20,
        "1G" => 1 << 30,
        hex => u64::from_str_radix(hex, 16).unwrap(),
    }
}
