//! All leaves of a tree, in order of address.
//!
//! Bounded: hostile tables (one table used 512 times at every level) would make 2^36 leaves, so a
//! scan stops after a number of entries read. Merging neighbours is the caller's business.

use std::ops::ControlFlow;

use super::codec::{Entry, Why};
use super::{Canonical, Controls, Format};
use crate::addr::{PhysAddr, VirtAddr};
use crate::perm::Perm;

/// Entries that [`Format::for_each_leaf`] reads before it gives up: 2^26 is 512 MiB of tables.
pub const DEFAULT_ENTRY_LIMIT: u64 = 1 << 26;

/// Which half of the virtual addresses a root translates. x86-64's and 32-bit
/// Power's roots have both; then it is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    /// User addresses: arm64 TTBR0, powerpc quadrant 0.
    Low,
    /// Kernel addresses: arm64 TTBR1, powerpc quadrant 3.
    High,
}

/// One leaf of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappedLeaf {
    /// First address that it maps.
    pub va: VirtAddr,
    /// First byte of its frame.
    pub phys: PhysAddr,
    /// `log2` of its bytes.
    pub shift: u32,
    /// Its level.
    pub level: usize,
    /// What all levels and the controls together grant.
    pub perm: Perm,
    /// The entry.
    pub raw: u64,
    /// Address of the entry.
    pub entry: PhysAddr,
}

/// Why a scan ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanEnd {
    /// Everything was seen.
    Complete,
    /// The callback said stop.
    Stopped,
    /// The limit of entries was reached; leaves are missing.
    LimitReached,
}

/// What a scan met besides leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    /// Why it ended.
    pub end: ScanEnd,
    /// Leaves reported.
    pub leaves: u64,
    /// Tables entered, the root included.
    pub tables: u64,
    /// Entries read.
    pub entries: u64,
    /// Malformed entries: (first address, level, what is wrong). At most 64 are kept.
    pub malformed: Vec<(VirtAddr, usize, Why)>,
    /// Malformed entries met, kept or not.
    pub malformed_count: u64,
    /// Entries that lie outside memory; the rest of such a table is skipped and counted once.
    pub outside_memory: u64,
}

struct Scanner<'a> {
    format: &'a Format,
    half: Half,
    controls: &'a Controls,
    limit: u64,
    read: &'a mut dyn FnMut(PhysAddr) -> Option<u64>,
    visit: &'a mut dyn FnMut(&MappedLeaf) -> ControlFlow<()>,
    out: Scan,
}

impl Format {
    /// Calls `visit` for every leaf below `root` in order of entries, under [`Controls::LINUX`] and
    /// [`DEFAULT_ENTRY_LIMIT`]. `read` as for [`Format::walk`].
    pub fn for_each_leaf(
        &self,
        root: PhysAddr,
        half: Half,
        read: &mut dyn FnMut(PhysAddr) -> Option<u64>,
        visit: &mut dyn FnMut(&MappedLeaf) -> ControlFlow<()>,
    ) -> Scan {
        self.for_each_leaf_with(root, half, &Controls::LINUX, DEFAULT_ENTRY_LIMIT, read, visit)
    }

    /// As [`Format::for_each_leaf`] with other control bits and another limit.
    pub fn for_each_leaf_with(
        &self,
        root: PhysAddr,
        half: Half,
        controls: &Controls,
        limit: u64,
        read: &mut dyn FnMut(PhysAddr) -> Option<u64>,
        visit: &mut dyn FnMut(&MappedLeaf) -> ControlFlow<()>,
    ) -> Scan {
        let out = Scan {
            end: ScanEnd::Complete,
            leaves: 0,
            tables: 0,
            entries: 0,
            malformed: Vec::new(),
            malformed_count: 0,
            outside_memory: 0,
        };
        let mut scanner = Scanner { format: self, half, controls, limit, read, visit, out };
        if let ControlFlow::Break(end) = scanner.table(root, 0, 0, Perm::all()) {
            scanner.out.end = end;
        }
        scanner.out
    }

    /// The address whose translated bits are `low`, in `half` or sign-extended.
    fn in_half(&self, low: u64, half: Half) -> VirtAddr {
        let above = 64 - self.va_bits;
        VirtAddr(match (self.canonical, half) {
            (Canonical::SignExtended, _) => (((low << above) as i64) >> above) as u64,
            (Canonical::AllEqual | Canonical::Quadrant, Half::Low) | (Canonical::ZeroAbove, _) => {
                low
            }
            (Canonical::AllEqual, Half::High) => low | (u64::MAX << self.va_bits),
            (Canonical::Quadrant, Half::High) => low | (3 << 62),
        })
    }
}

impl Scanner<'_> {
    /// Scans one table; `low` holds the address bits of the levels above. Recursion is as deep as
    /// the format has levels.
    fn table(
        &mut self,
        table: PhysAddr,
        level: usize,
        low: u64,
        limits: Perm,
    ) -> ControlFlow<ScanEnd> {
        let Some(l) = self.format.levels.get(level) else { return ControlFlow::Continue(()) };
        self.out.tables += 1;
        for index in 0..l.entries() {
            if self.out.entries >= self.limit {
                return ControlFlow::Break(ScanEnd::LimitReached);
            }
            self.out.entries += 1;
            let value = table.checked_add(index * l.entry_bytes).and_then(|addr| (self.read)(addr));
            let Some(raw) = value else {
                self.out.outside_memory += 1;
                return ControlFlow::Continue(());
            };
            let here = low | (index << l.index_shift);
            let entry = table.offset(index * l.entry_bytes);
            match self.format.decode_with(level, raw, self.controls) {
                Entry::None => {}
                Entry::Malformed { why } => self.malformed(here, level, why),
                Entry::Table { next, limits: below } => {
                    self.table(next, level + 1, here, limits & below)?;
                }
                Entry::Leaf { phys, shift, perm, raw } => {
                    if !self.format.accessible(level, raw, self.controls) {
                        continue;
                    }
                    let va = self.format.in_half(here, self.half);
                    let perm = self.format.effective(va, perm, limits, self.controls);
                    self.out.leaves += 1;
                    let leaf = MappedLeaf { va, phys, shift, level, perm, raw, entry };
                    if (self.visit)(&leaf).is_break() {
                        return ControlFlow::Break(ScanEnd::Stopped);
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn malformed(&mut self, low: u64, level: usize, why: Why) {
        self.out.malformed_count += 1;
        if self.out.malformed.len() < 64 {
            let va = self.format.in_half(low, self.half);
            self.out.malformed.push((va, level, why));
        }
    }
}
