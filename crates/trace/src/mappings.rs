//! What the kernel's page tables map, as far as a log (and page tables taken before it) show.
//!
//! Neighbouring leaves with the same attributes and ascending frames are one run, so that the
//! state is as large as the memory that is mapped and not as the log is long. Changes come out as
//! [`Changed`] pieces, uniform each, ready to be events.
//!
//! Modelled: kernel addresses; splits of large leaves. Not modelled: collapses, user addresses,
//! entries that are not valid and never were.

use crate::bounds::{Bound, Dropped};
use crate::perms::{Bits, Masks};
use std::collections::BTreeMap;
use textbed_arch::{Perm, VirtAddr};

/// Pieces that a line may touch on average; beyond, what few lines before it left over. A change of
/// a large range that is mapped page by page touches many at once, and may.
const PIECES_A_LINE: usize = 64;

/// Leaves of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// First address behind it.
    end: u64,
    /// `log2` of a leaf's bytes.
    shift: u8,
    /// Physical address of the first leaf, ascending from there, where it is known.
    phys: Option<u64>,
    /// Deciding bits (see [`Bits`]).
    bits: u64,
    /// What tables above take away.
    denied: Perm,
}

/// A part of a range that is uniformly mapped, or not mapped: from, to.
type Piece = (u64, u64, Option<Run>);

/// A piece that changed, or was made or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// First address.
    pub virt: u64,
    /// Bytes.
    pub len: u64,
    /// Physical address, where it is known.
    pub phys: Option<u64>,
    /// `log2` of a leaf's bytes after the change (before it, if it was removed).
    pub shift: u8,
    /// The same before.
    pub old_shift: u8,
    /// What it granted.
    pub old: Perm,
    /// What it grants.
    pub new: Perm,
    /// `old` is not known from the log but taken to be the default.
    pub assumed: bool,
}

/// A leaf range as [`Mappings::runs`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// First address.
    pub virt: u64,
    /// First address behind it.
    pub end: u64,
    /// `log2` of a leaf's bytes.
    pub shift: u8,
    /// Physical address, where it is known.
    pub phys: Option<u64>,
    /// What it grants; empty for an entry that was made invalid and keeps its bits.
    pub perm: Perm,
}

/// The state. See the module's header.
#[derive(Debug, Clone)]
pub struct Mappings {
    bits: Bits,
    runs: BTreeMap<u64, Run>,
    /// Pieces that may be touched until more lines are read.
    credit: usize,
    dropped: Dropped,
    /// Memory for the pieces of the next line.
    spare: Vec<Piece>,
}

impl Mappings {
    /// Nothing mapped.
    pub fn new(bits: Bits) -> Self {
        let (runs, credit) = (BTreeMap::new(), Bound::Pieces.most());
        Self { bits, runs, credit, dropped: Dropped::default(), spare: Vec::new() }
    }

    /// How protection bits are read.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// What was too much.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Another line is read.
    pub(crate) fn line(&mut self) {
        self.credit = (self.credit + PIECES_A_LINE).min(Bound::Pieces.most());
    }

    /// How many pieces may be touched now.
    pub(crate) fn may_touch(&self) -> usize {
        self.credit
    }

    /// Whether one more can be taken in; else it is counted.
    fn room(&mut self) -> bool {
        let room = self.runs.len() < Bound::Mappings.most();
        self.dropped.add(Bound::Mappings, usize::from(!room));
        room
    }

    /// The pieces of a range that a line changes: not more than it may touch.
    fn touched(&mut self, start: u64, end: u64) -> Vec<Piece> {
        let mut pieces = std::mem::take(&mut self.spare);
        self.pieces_into(start, end, self.credit, &mut pieces);
        self.credit -= pieces.len();
        let to = pieces.last().map_or(start, |(_, to, _)| *to);
        self.dropped.add(Bound::Pieces, usize::from(to < end));
        pieces
    }

    /// `log2` of the base page.
    pub fn page_shift(&self) -> u8 {
        self.bits.format().page_shift as u8
    }

    fn perm(&self, virt: u64, bits: u64, denied: Perm) -> Perm {
        let perm = self.bits.perm(VirtAddr(virt), bits);
        if perm.is_empty() { perm } else { perm.difference(denied) }
    }

    fn mapped(&self, virt: u64, run: &Run) -> Mapped {
        Mapped {
            virt,
            end: run.end,
            shift: run.shift,
            phys: run.phys,
            perm: self.perm(virt, run.bits, run.denied),
        }
    }

    /// Everything that is mapped, by address.
    pub fn runs(&self) -> impl Iterator<Item = Mapped> {
        self.runs.iter().map(|(virt, run)| self.mapped(*virt, run))
    }

    /// What is mapped in `[start, end)`, cut to it.
    pub fn runs_in(&self, start: u64, end: u64) -> impl Iterator<Item = Mapped> {
        let first = self.before(start).map_or(start, |(virt, _)| virt);
        let runs = self.runs.range(first..end.max(first)).filter(move |(_, run)| run.end > start);
        runs.map(move |(virt, run)| {
            let from = start.max(*virt);
            let phys = run.phys.and_then(|p| p.checked_add(from - virt));
            self.mapped(from, &Run { end: run.end.min(end), phys, ..*run })
        })
    }

    /// Where two states grant otherwise in `[start, end)`: address, bytes, what is granted here and
    /// there, empty where nothing is mapped.
    pub fn differ(&self, other: &Self, start: u64, end: u64) -> Vec<(u64, u64, Perm, Perm)> {
        let mut out: Vec<(u64, u64, Perm, Perm)> = Vec::new();
        let granted = |state: &Self, virt: u64, run: Option<Run>| {
            let perm = run.map_or(Perm::empty(), |r| state.perm(virt, r.bits, r.denied));
            if perm.contains(Perm::PRESENT) { perm } else { Perm::empty() }
        };
        for (from, to, ours) in self.pieces(start, end, usize::MAX) {
            for (from, to, theirs) in other.pieces(from, to, usize::MAX) {
                let (a, b) = (granted(self, from, ours), granted(other, from, theirs));
                if a.letters() == b.letters() && a.is_empty() == b.is_empty() {
                    continue;
                }
                match out.last_mut() {
                    Some((v, len, x, y)) if (*x, *y) == (a, b) && *v + *len == from => {
                        *len += to - from;
                    }
                    _ => out.push((from, to - from, a, b)),
                }
            }
        }
        out
    }

    /// The last run that begins at an address or before it.
    fn before(&self, virt: u64) -> Option<(u64, Run)> {
        self.runs.range(..=virt).next_back().map(|(start, run)| (*start, *run))
    }

    /// The run that holds an address.
    pub fn at(&self, virt: u64) -> Option<Mapped> {
        let (start, run) = self.before(virt)?;
        (virt < run.end).then(|| self.mapped(start, &run))
    }

    /// Whether anything is mapped at an address.
    pub fn holds(&self, virt: u64) -> bool {
        self.before(virt).is_some_and(|(_, run)| virt < run.end)
    }

    /// Physical address of a range, if all of it is known and ascends.
    pub fn phys(&self, virt: u64, len: u64) -> Option<u64> {
        let (first, run) = self.before(virt)?;
        let end = virt.checked_add(len.max(1))?;
        let phys = run.phys?.checked_add(virt - first)?;
        (end <= run.end).then_some(phys)
    }

    /// Puts in one leaf, or leaves ascending from it, of tables read before the log.
    pub fn insert_leaf(&mut self, virt: u64, len: u64, shift: u8, phys: u64, raw: u64, perm: Perm) {
        let Some(end) = virt.checked_add(len).filter(|_| self.room()) else { return };
        let bits = self.bits.of(raw);
        let denied = self.bits.perm(VirtAddr(virt), bits).difference(perm);
        self.cut(virt, end);
        self.put(virt, Run { end, shift, phys: Some(phys), bits, denied });
    }

    /// Maps `[start, end)` with protection bits `prot`.
    pub fn map(&mut self, start: u64, end: u64, shift: u8, prot: u64, out: &mut Vec<Changed>) {
        let bits = self.bits.of(prot);
        let new = self.perm(start, bits, Perm::empty());
        let pieces = self.touched(start, end);
        for (from, to, old) in pieces.iter().copied() {
            let (old_perm, old_shift) = match old {
                Some(r) => (self.perm(from, r.bits, r.denied), r.shift),
                None => (Perm::empty(), shift),
            };
            // Recorded twice (by a function and the function that it calls): nothing changed.
            if old.is_some_and(|r| r.bits == bits && r.shift == shift) {
                continue;
            }
            if !self.room() {
                continue;
            }
            out.push(Changed {
                virt: from,
                len: to - from,
                phys: None,
                shift,
                old_shift,
                old: old_perm,
                new,
                assumed: false,
            });
            self.cut(from, to);
            self.put(from, Run { end: to, shift, phys: None, bits, denied: Perm::empty() });
        }
        self.spare = pieces;
    }

    /// Removes what is mapped in `[start, end)`.
    pub fn unmap(&mut self, start: u64, end: u64, out: &mut Vec<Changed>) {
        let pieces = self.touched(start, end);
        for (from, to, old) in pieces.iter().copied() {
            let Some(old) = old else { continue };
            // What is taken out of the middle of a run leaves two.
            if self.runs.len() >= Bound::Mappings.most()
                && self.at(from).is_some_and(|run| run.virt < from && to < run.end)
                && !self.room()
            {
                continue;
            }
            let perm = self.perm(from, old.bits, old.denied);
            if !perm.is_empty() {
                out.push(Changed {
                    virt: from,
                    len: to - from,
                    phys: old.phys,
                    shift: old.shift,
                    old_shift: old.shift,
                    old: perm,
                    new: Perm::empty(),
                    assumed: false,
                });
            }
            self.cut(from, to);
        }
        self.spare = pieces;
    }

    /// Removes everything.
    pub(crate) fn unmap_all(&mut self, out: &mut Vec<Changed>) {
        for (virt, run) in std::mem::take(&mut self.runs) {
            let perm = self.perm(virt, run.bits, run.denied);
            if !perm.is_empty() {
                out.push(Changed {
                    virt,
                    len: run.end - virt,
                    phys: run.phys,
                    shift: run.shift,
                    old_shift: run.shift,
                    old: perm,
                    new: Perm::empty(),
                    assumed: false,
                });
            }
        }
    }

    /// Changes the entries of `[start, end)`. Where nothing is known to be mapped, an entry with
    /// the bits `assume` is taken to be there (`None`: such holes are left alone).
    pub fn change(
        &mut self,
        start: u64,
        end: u64,
        masks: Masks,
        assume: Option<u64>,
        out: &mut Vec<Changed>,
    ) {
        let page = self.page_shift();
        self.split_at(start, out);
        self.split_at(end, out);
        let pieces = self.touched(start, end);
        for (from, to, old) in pieces.iter().copied() {
            let (run, assumed) = match (old, assume) {
                (Some(run), _) => (run, false),
                (None, Some(prot)) => {
                    let bits = self.bits.of(prot);
                    let denied = Perm::empty();
                    (Run { end: to, shift: page, phys: None, bits, denied }, true)
                }
                (None, None) => continue,
            };
            let bits = self.bits.apply(run.bits, masks);
            if bits == run.bits && !assumed || !self.room() {
                continue;
            }
            let old = self.perm(from, run.bits, run.denied);
            let new = self.perm(from, bits, run.denied);
            if old != new {
                out.push(Changed {
                    virt: from,
                    len: to - from,
                    phys: run.phys,
                    shift: run.shift,
                    old_shift: run.shift,
                    old,
                    new,
                    assumed,
                });
            }
            self.cut(from, to);
            self.put(from, Run { end: to, bits, ..run });
        }
        self.spare = pieces;
    }

    /// Says where a page lies; nothing happens if nothing is mapped there.
    pub fn learn_phys(&mut self, virt: u64, len: u64, phys: u64) {
        let Some(end) = virt.checked_add(len) else { return };
        let pieces = self.touched(virt, end);
        for (from, to, old) in pieces.iter().copied() {
            let Some(run) = old else { continue };
            let Some(here) = phys.checked_add(from - virt) else { continue };
            if run.phys != Some(here) && self.room() {
                self.cut(from, to);
                self.put(from, Run { end: to, phys: Some(here), ..run });
            }
        }
        self.spare = pieces;
    }

    /// If `at` lies inside a large leaf, that leaf becomes base pages.
    fn split_at(&mut self, at: u64, out: &mut Vec<Changed>) {
        let page = self.page_shift();
        let Some(run) = self.at(at) else { return };
        if run.shift <= page || run.shift > 63 {
            return;
        }
        let size = 1u64 << run.shift;
        let first = at & !(size - 1);
        if first == at {
            return;
        }
        let (from, to) = (first.max(run.virt), first.saturating_add(size).min(run.end));
        let Some((_, _, Some(old))) = self.pieces(from, to, 1).into_iter().next() else { return };
        if !self.room() {
            return;
        }
        out.push(Changed {
            virt: from,
            len: to - from,
            phys: old.phys,
            shift: page,
            old_shift: run.shift,
            old: run.perm,
            new: run.perm,
            assumed: false,
        });
        self.cut(from, to);
        self.put(from, Run { end: to, shift: page, ..old });
    }

    /// `[start, end)` as pieces that are uniformly mapped (with the run cut to the piece) or not
    /// mapped: the first `most` of them.
    fn pieces(&self, start: u64, end: u64, most: usize) -> Vec<Piece> {
        let mut out = Vec::new();
        self.pieces_into(start, end, most, &mut out);
        out
    }

    /// The same into memory that is there.
    fn pieces_into(&self, start: u64, end: u64, most: usize, out: &mut Vec<Piece>) {
        out.clear();
        let mut at = start;
        let first = match self.before(start) {
            // Mostly it lies in one run.
            Some((virt, run)) if start < end && end <= run.end && most > 0 => {
                let phys = run.phys.and_then(|p| p.checked_add(start - virt));
                out.push((start, end, Some(Run { end, phys, ..run })));
                return;
            }
            before => before.map_or(start, |(virt, _)| virt),
        };
        for (virt, run) in self.runs.range(first..end.max(first)) {
            if run.end <= at {
                continue;
            }
            if *virt > at && out.len() < most {
                out.push((at, *virt, None));
                at = *virt;
            }
            if out.len() >= most {
                return;
            }
            let to = run.end.min(end);
            let phys = run.phys.and_then(|p| p.checked_add(at - virt));
            out.push((at, to, Some(Run { end: to, phys, ..*run })));
            at = to;
        }
        if at < end && out.len() < most {
            out.push((at, end, None));
        }
    }

    /// Takes `[start, end)` out of the runs.
    fn cut(&mut self, start: u64, end: u64) {
        while let Some((&virt, &run)) = self.runs.range(..end).next_back()
            && run.end > start
        {
            self.runs.remove(&virt);
            if virt < start {
                self.runs.insert(virt, Run { end: start, ..run });
            }
            if run.end > end {
                let phys = run.phys.and_then(|p| p.checked_add(end - virt));
                self.runs.insert(end, Run { phys, ..run });
            }
        }
    }

    /// Puts a run into a hole and joins it with its neighbours where they continue each other.
    fn put(&mut self, mut virt: u64, mut run: Run) {
        let joins = |a_virt: u64, a: &Run, b_virt: u64, b: &Run| {
            a.end == b_virt
                && (a.shift, a.bits, a.denied) == (b.shift, b.bits, b.denied)
                && match (a.phys, b.phys) {
                    (None, None) => true,
                    (Some(x), Some(y)) => x.checked_add(b_virt - a_virt) == Some(y),
                    _ => false,
                }
        };
        if let Some((&before, &prev)) = self.runs.range(..virt).next_back()
            && joins(before, &prev, virt, &run)
        {
            self.runs.remove(&before);
            run = Run { end: run.end, ..prev };
            virt = before;
        }
        if let Some((&after, &next)) = self.runs.range(run.end..).next()
            && joins(virt, &run, after, &next)
        {
            self.runs.remove(&after);
            run.end = next.end;
        }
        self.runs.insert(virt, run);
    }
}

#[cfg(test)]
mod tests;
