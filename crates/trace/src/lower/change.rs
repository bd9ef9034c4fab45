//! Permission changes, by architecture, and the direct map aliases that go with them.
//!
//! x86: `change_page_attr_set_clr` has the masks; the walk inside it is probed once for the range
//! and once for each page's alias in the direct map, in the order of the pages: so the k-th alias
//! is the k-th page's, and its address tells the frame. The alias
//! takes the same masks but for NX (since 6.2; before, calls that change nothing but NX have no
//! alias step). arm64: the aliases of all pages of the area come before the range itself (to 6.18,
//! from 6.19 on those of the pages asked for), each as a call of its own with masks. powerpc: a
//! call per page, no alias.
//!
//! Source: linux-semantics 2.2 to 2.4 as read at 6.12, and the recorded logs. Not modelled: which
//! pages were changed before a call failed.

use super::Lower;
use super::areas::sane;
use crate::bounds::Bound;
use crate::calls::{Frame, Stack};
use crate::ftrace::Fields;
use crate::functions::{Function, Meaning};
use crate::perms::{Action, Masks, action_from_number, masks, page_kernel};
use rustc_hash::FxHashMap;
use textbed_arch::{Arch, VirtAddr};
use textbed_event::{Promise, Provenance, RefusalReason, View};
use textbed_kernel::Version;

const X86_NX: u64 = 1 << 63;
/// x86: what lies above is the kernel image's mapping and modules, never the direct map.
const X86_IMAGE: u64 = 0xffff_ffff_8000_0000;
/// Bytes of `struct page`, on 64-bit kernels without debugging options (from memory).
const STRUCT_PAGE_BYTES: u64 = 64;

/// Since then the alias of a change keeps its NX bit (Linux 6.2 arch/x86/mm/pat/set_memory.c).
const ALIAS_KEEPS_NX: Version = Version::candidate(6, 2, 1);

/// A call that is being followed.
#[derive(Debug, Clone)]
struct Range {
    addr: u64,
    pages: u64,
    masks: Masks,
    /// x86: pages changed so far. arm64: not used.
    done: u64,
    walking: bool,
    /// arm64: direct map addresses changed so far.
    aliases: Vec<u64>,
}

/// A freed area, whose pages' direct map entries follow.
#[derive(Debug, Clone, Default)]
struct Freed {
    start: u64,
    next: u64,
    /// Ranges with known frames: (first, end, physical).
    frames: Vec<(u64, u64, u64)>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    ranges: FxHashMap<Stack, Range>,
    /// The direct map call being followed, for x86's walk.
    direct: FxHashMap<Stack, Action>,
    freed: FxHashMap<Stack, Freed>,
    /// Distance from physical to virtual in the direct map.
    pub(super) direct_map: Option<u64>,
    /// Address of the `struct page` of frame 0, derived.
    vmemmap: Option<u64>,
    /// Freed and not yet purged.
    pub(super) lazy: Option<(u64, u64)>,
}

impl State {
    /// Nothing is followed yet; the direct map is there, if that is known.
    pub(super) fn at(direct_map: Option<u64>) -> Self {
        Self { direct_map, ..Self::default() }
    }
}

impl Lower<'_> {
    /// Where the direct map is, if something said so.
    pub(crate) fn set_direct_map(&mut self, distance: Option<u64>) {
        self.change.direct_map = distance;
    }

    pub(crate) fn direct_map(&self) -> Option<u64> {
        self.change.direct_map
    }

    pub(super) fn change_entry(&mut self, f: &'static Function, e: &Fields<'_>) -> Option<()> {
        let arch = self.kernel.arch;
        let State { ranges, direct, freed, .. } = &mut self.change;
        if ranges.len().max(direct.len()).max(freed.len()) > Bound::ChangeTasks.most() {
            self.dropped.add(Bound::ChangeTasks, ranges.len() + direct.len() + freed.len());
            ranges.clear();
            direct.clear();
            freed.clear();
        }
        let stack = self.now.stack;
        match f.meaning {
            Meaning::SetMemory(action) => {
                let (addr, pages) = (e.number(b"addr")?, pages_of(e)?);
                let returns = self.probed.returns.contains(f.name);
                if !returns && !self.seen.changes_inside {
                    self.apply_by_rule(addr, pages, action);
                }
            }
            Meaning::CpaCall => {
                self.finish_range(stack);
                let range = range_of(e)?;
                if self.seen.cpa_walk {
                    self.change.ranges.insert(stack, range);
                } else {
                    self.apply(range.addr, range.pages, range.masks, Provenance::Recorded);
                    self.model_alias(range.addr, range.pages, range.masks);
                }
            }
            Meaning::CpaWalk => self.cpa_walk(e.number(b"vaddr")?),
            Meaning::CpaFlush => self.finish_range(stack),
            Meaning::ChangeMemoryCall => {
                let range = range_of(e)?;
                if self.seen.change_apply {
                    self.change.ranges.insert(stack, range);
                } else {
                    self.apply(range.addr, range.pages, range.masks, Provenance::Recorded);
                    let end = self.end_of(range.addr, range.pages);
                    self.model_flush(range.addr, end);
                }
            }
            Meaning::ChangeMemoryApply => {
                let (start, size) = (e.number(b"start")?, e.number(b"size")?);
                sane(start, start.checked_add(size)?)?;
                let masks = Masks { set: e.number(b"set")?, clear: e.number(b"clr")? };
                self.change_memory(start, size, masks);
            }
            Meaning::AttrCall => {
                let (addr, pages) = (e.number(b"addr")?, pages_of(e)?);
                let action = action_from_number(e.number(b"action")?)?;
                if !self.seen.attr_page {
                    self.apply_by_rule(addr, pages, action);
                }
            }
            Meaning::AttrPage => {
                let addr = e.number(b"addr")?;
                let masks = masks(arch, action_from_number(e.number(b"data")?)?)?;
                self.apply(addr, 1, masks, Provenance::Recorded);
            }
            Meaning::DirectMap(action) => self.direct_map_page(e.number(b"page")?, action),
            _ => {}
        }
        Some(())
    }

    fn end_of(&self, addr: u64, pages: u64) -> u64 {
        let bytes = pages.checked_shl(self.mappings.page_shift().into()).unwrap_or(u64::MAX);
        addr.saturating_add(bytes)
    }

    /// Changes entries; unknown ones are taken to be PAGE_KERNEL, and said to be.
    fn apply(&mut self, addr: u64, pages: u64, masks: Masks, known_by: Provenance) {
        let addr = VirtAddr(addr).align_down(self.mappings.page_shift().into()).0;
        let end = self.end_of(addr, pages);
        let assume = Some(page_kernel(self.kernel.arch));
        self.mappings.change(addr, end, masks, assume, &mut self.changed);
        self.emit_changed(known_by);
    }

    /// By the table alone, where no probe sees the change of entries.
    fn apply_by_rule(&mut self, addr: u64, pages: u64, action: Action) {
        let Some(masks) = masks(self.kernel.arch, action) else { return };
        self.apply(addr, pages, masks, Provenance::Inferred);
        self.model_alias(addr, pages, masks);
        let end = self.end_of(addr, pages);
        self.model_flush(addr, end);
    }

    /// The alias masks of a change; `None` if it has no alias.
    fn alias_masks(&self, masks: Masks) -> Option<Masks> {
        match self.kernel.arch {
            Arch::X86_64 => {
                let nx_only = (masks.set | masks.clear) & !X86_NX == 0;
                if self.kernel.version < ALIAS_KEEPS_NX {
                    return (!nx_only).then_some(masks);
                }
                let rest = Masks { set: masks.set & !X86_NX, clear: masks.clear & !X86_NX };
                (!nx_only).then_some(rest)
            }
            Arch::Arm64 => {
                let bits = self.mappings.bits();
                let table = [Action::Ro, Action::Rw].map(|a| super::change::masks(Arch::Arm64, a));
                let same = |m: &Option<Masks>| {
                    m.is_some_and(|m| {
                        bits.of(masks.set) == m.set && bits.of(masks.clear) == m.clear
                    })
                };
                let full = !self.kernel.rodata_less;
                (full && table.iter().any(same)).then_some(masks)
            }
            _ => None,
        }
    }

    /// Changes the direct map aliases by the kernel's rule, page by page where frames are known.
    fn model_alias(&mut self, addr: u64, pages: u64, masks: Masks) {
        let (Some(distance), Some(masks)) = (self.change.direct_map, self.alias_masks(masks))
        else {
            return;
        };
        let end = self.end_of(addr, pages);
        let known: Vec<(u64, u64)> = self
            .mappings
            .runs_in(addr, end)
            .take(self.mappings.may_touch())
            .filter_map(|r| Some((r.phys?, r.end - r.virt)))
            .collect();
        for (phys, len) in known {
            let virt = phys.wrapping_add(distance);
            if virt != addr {
                let pages = len >> self.mappings.page_shift();
                self.apply(virt, pages, masks, Provenance::Modelled);
            }
        }
    }

    /// The first walk of a call is over the range asked for, later ones are over aliases. The
    /// function's own argument does not tell: it is `checkalias` up to 6.1 and `primary` later.
    fn cpa_walk(&mut self, vaddr: u64) {
        let stack = self.now.stack;
        let page = 1u64 << self.mappings.page_shift();
        if let Some(range) = self.change.ranges.get_mut(&stack)
            && range.addr == vaddr
            && !range.walking
        {
            range.walking = true;
            // Where nothing later tells that the walk is over: all at once.
            if !self.seen.cpa_end {
                self.finish_range(stack);
            }
            return;
        }
        if let Some(action) = self.change.direct.remove(&stack) {
            let Some(masks) = masks(Arch::X86_64, action) else { return };
            if let Some(distance) = self.change.direct_map {
                self.mappings.learn_phys(vaddr, page, vaddr.wrapping_sub(distance));
            }
            self.apply(vaddr, 1, masks, Provenance::Recorded);
            return;
        }
        let Some(range) = self.change.ranges.get_mut(&stack).filter(|r| r.walking) else {
            self.counts.masks_unknown += 1;
            return;
        };
        let masks = range.masks;
        let in_image = vaddr >= X86_IMAGE;
        let mut changed_page = None;
        if !in_image && range.done < range.pages {
            changed_page = Some(range.addr.wrapping_add(range.done.wrapping_mul(page)));
            range.done += 1;
        }
        let phys = self.change.direct_map.map(|d| vaddr.wrapping_sub(d)).filter(|_| !in_image);
        if let Some(virt) = changed_page {
            if let Some(phys) = phys {
                self.learn_frame(virt, page, phys);
            }
            self.apply(virt, 1, masks, Provenance::Recorded);
        }
        let alias = Masks { set: masks.set & !X86_NX, clear: masks.clear & !X86_NX };
        let alias = if self.kernel.version < ALIAS_KEEPS_NX { masks } else { alias };
        self.apply(vaddr, 1, alias, Provenance::Inferred);
        if let Some(phys) = phys {
            self.mappings.learn_phys(vaddr, page, phys);
        }
    }

    /// The walk is over: pages for which no alias was shown were changed too.
    fn finish_range(&mut self, stack: Stack) {
        let Some(range) = self.change.ranges.remove(&stack) else { return };
        if range.walking && range.done < range.pages {
            let from = self.end_of(range.addr, range.done);
            self.apply(from, range.pages - range.done, range.masks, Provenance::Recorded);
        }
    }

    /// arm64: entries are changed, of an alias or of the range itself.
    fn change_memory(&mut self, start: u64, size: u64, masks: Masks) {
        let shift = self.mappings.page_shift();
        let stack = self.now.stack;
        let linear = self.kernel.map().is_some_and(|map| start < map.modules.0);
        if let Some(range) = self.change.ranges.get_mut(&stack) {
            if linear && start != range.addr {
                if range.aliases.len() < Bound::Aliases.most() {
                    range.aliases.push(start);
                } else {
                    self.dropped.add(Bound::Aliases, 1);
                }
            } else if start == range.addr {
                let range = self.change.ranges.remove(&stack);
                if let Some(range) = range {
                    self.learn_aliases(&range);
                }
            }
        }
        let known_by = Provenance::Recorded;
        if linear && let Some(distance) = self.change.direct_map {
            self.mappings.learn_phys(start, size, start.wrapping_sub(distance));
        }
        self.apply(start, size >> shift, masks, known_by);
        self.model_flush(start, start.saturating_add(size));
    }

    /// arm64: the aliases were those of all pages of the area, or of the pages asked for, in order.
    fn learn_aliases(&mut self, range: &Range) {
        let page = 1u64 << self.mappings.page_shift();
        let Some(distance) = self.change.direct_map else { return };
        let Some((start, area)) = self.areas.holding(range.addr, 0) else { return };
        let count = range.aliases.len() as u64;
        let first = if count == area.len / page {
            start
        } else if count == range.pages {
            range.addr
        } else {
            return;
        };
        for (i, alias) in range.aliases.iter().enumerate() {
            let virt = first.wrapping_add(page.wrapping_mul(i as u64));
            self.learn_frame(virt, page, alias.wrapping_sub(distance));
        }
    }

    /// Remembers the frames of an area that is being freed, for the direct map calls that follow.
    pub(super) fn remember_freed(&mut self, start: u64, end: u64) {
        if self.kernel.arch != Arch::Arm64 {
            return;
        }
        let most = Bound::FreedFrames.most();
        let known = self.mappings.runs_in(start, end).take(most + 1);
        let mut frames: Vec<_> = known.filter_map(|r| Some((r.virt, r.end, r.phys?))).collect();
        if frames.len() > most {
            self.dropped.add(Bound::FreedFrames, 1);
            frames.truncate(most);
        }
        self.change.freed.insert(self.now.stack, Freed { start, next: 0, frames });
    }

    fn direct_map_page(&mut self, page_struct: u64, action: Action) {
        let stack = self.now.stack;
        if self.kernel.arch == Arch::X86_64 && self.seen.cpa_walk {
            self.change.direct.insert(stack, action);
            return;
        }
        if self.kernel.rodata_less {
            return;
        }
        let page = 1u64 << self.mappings.page_shift();
        // The area's pages come in order, once for each of the two calls.
        let known = match (action, self.change.freed.get_mut(&stack)) {
            (Action::DirectInvalid, Some(freed)) => {
                let virt = freed.start.wrapping_add(freed.next.wrapping_mul(page));
                freed.next += 1;
                let inside = |(a, b, _): &&(u64, u64, u64)| (*a..*b).contains(&virt);
                freed.frames.iter().find(inside).map(|(a, _, p)| p.wrapping_add(virt - a))
            }
            _ => None,
        };
        if let Some(phys) = known {
            let frames = phys >> self.mappings.page_shift();
            let base = page_struct.wrapping_sub(frames.wrapping_mul(STRUCT_PAGE_BYTES));
            if *self.change.vmemmap.get_or_insert(base) != base {
                self.counts.direct_map_conflicts += 1;
            }
        }
        let by_struct = self.change.vmemmap.map(|base| {
            (page_struct.wrapping_sub(base) / STRUCT_PAGE_BYTES)
                .wrapping_shl(self.mappings.page_shift().into())
        });
        let (Some(phys), Some(distance), Some(masks)) =
            (known.or(by_struct), self.change.direct_map, masks(self.kernel.arch, action))
        else {
            self.counts.direct_map_unplaced += 1;
            return;
        };
        let virt = phys.wrapping_add(distance);
        self.mappings.learn_phys(virt, page, phys);
        self.apply(virt, 1, masks, Provenance::Inferred);
    }

    /// Before a call's return is known to the stack: what it followed is over.
    pub(super) fn before_return(&mut self, f: &'static Function, failed: bool) {
        let stack = self.now.stack;
        match f.meaning {
            Meaning::CpaCall if failed => {
                self.change.ranges.remove(&stack);
            }
            Meaning::CpaCall => self.finish_range(stack),
            Meaning::ChangeMemoryCall | Meaning::SetMemory(_) => {
                self.change.ranges.remove(&stack);
            }
            Meaning::DirectMap(_) => {
                self.change.direct.remove(&stack);
            }
            _ => {}
        }
    }

    /// After a call's return: what it promised, or that it refused.
    pub(super) fn change_return(&mut self, frame: &Frame, failed: bool) {
        let action = match frame.function.meaning {
            Meaning::SetMemory(action) => Some(action),
            // powerpc's set_memory_* are inline around it.
            Meaning::AttrCall => frame.arg("action").and_then(action_from_number),
            _ => None,
        };
        let Some(action) = action else { return };
        let pages = frame.arg("numpages").filter(|n| i32::try_from(*n).is_ok());
        let (Some(addr), Some(pages)) = (frame.arg("addr"), pages) else { return };
        let what = promise(action);
        let call = frame.call;
        let len = self.end_of(addr, pages).saturating_sub(addr);
        let virt = VirtAddr(addr);
        if failed {
            self.counts.changes_failed += 1;
            let reason = RefusalReason::Other;
            self.emit(View::Refused { call, what, reason, virt, len }, Provenance::Inferred);
            return;
        }
        if !self.seen.changes_inside {
            self.apply_by_rule(addr, pages, action);
        }
        // A hit that the kernel missed, or a line that is gone, is no change that was not made.
        if len > 0 {
            self.emit(View::Promised { call, what, virt, len }, Provenance::Modelled);
        }
    }
}

/// `numpages` is an int; a negative one is no number of pages.
fn pages_of(e: &Fields<'_>) -> Option<u64> {
    e.number(b"numpages").filter(|n| i32::try_from(*n).is_ok())
}

fn range_of(e: &Fields<'_>) -> Option<Range> {
    Some(Range {
        addr: e.number(b"addr")?,
        pages: pages_of(e)?,
        masks: Masks { set: e.number(b"set")?, clear: e.number(b"clr")? },
        done: 0,
        walking: false,
        aliases: Vec::new(),
    })
}

fn promise(action: Action) -> Promise {
    match action {
        Action::Ro => Promise::NoWrite,
        Action::Nx => Promise::NoExec,
        Action::Rox => Promise::ReadOnlyExec,
        Action::Rw => Promise::Write,
        Action::X => Promise::Exec,
        Action::Np => Promise::NoAccess,
        Action::P | Action::DirectInvalid | Action::DirectDefault => Promise::Other,
    }
}
