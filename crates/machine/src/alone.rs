//! What a CPU may do without the machine looking on: for CPUs that run many instructions between
//! two looks.
//!
//! Two questions, each with a stamp by which it need not be asked again:
//!
//! - **Would a fetch give the same once more?** ([`Machine::fetch_repeats`].) If one translation
//!   leads there and the line has one version for this CPU, or a policy that answers the same
//!   question alike ([`crate::Policy::is_steady`]). It stays so as long as what decides the CPU's
//!   translations and fetches does ([`Machine::side`]) and its lines do not change
//!   ([`Machine::lines_stamp`]). Never with caches of sets and ways, where every fetch counts, nor
//!   where data accesses may be seen out of order.
//! - **Has the CPU a page to itself?** ([`Machine::alone`].) If no other CPU ever loaded from it or
//!   stored to it since it was allocated, and, for stores, if nothing in it can be fetched by any
//!   CPU and it holds no page tables. Accesses that cover whole frames (fills) are not counted:
//!   whoever looks later sees one event for all of it.
//!
//! A CPU that stores to its own page tells the machine later, by ordinary stores, before anything
//! else of it reaches the machine. Not modelled: what the bytes were in between.

use rustc_hash::FxHashMap;
use textbed_arch::paging::Controls;
use textbed_arch::{CpuId, FRAME_BYTES, FRAME_SHIFT, Pfn, PhysAddr, SpaceId, VirtAddr};
use textbed_event::Access;

use crate::Machine;
use crate::translate::grants;

/// Frames of one access beyond which only those that are known already are noted.
const MOST_NOTED: u64 = 64;

/// What decides a CPU's translations and fetches, beside the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    tlb: u64,
    executable: u64,
    space: SpaceId,
    asid: u16,
    controls: Controls,
    floor: u64,
    cursor: u64,
}

/// A frame, and a number that changes when what was said of it may be no longer true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamped {
    /// The frame.
    pub frame: Pfn,
    /// The number.
    pub stamp: u64,
}

#[derive(Clone, Copy)]
struct Use {
    /// `None` = several.
    by: Option<CpuId>,
    /// The change that was the last store to it.
    stored: u64,
}

/// Which CPUs used which frames for data.
#[derive(Clone, Default)]
pub(crate) struct Users {
    frames: FxHashMap<u64, Use>,
    changes: u64,
}

impl Users {
    /// A CPU loads from a range, or stores to it.
    pub(crate) fn note(&mut self, cpu: CpuId, phys: u64, len: u64, store: bool) {
        let Some(last) = len.checked_sub(1).map(|n| phys + n) else { return };
        let (first, last) = (phys >> FRAME_SHIFT, last >> FRAME_SHIFT);
        if last - first >= MOST_NOTED {
            let known = |n: &u64| (first..=last).contains(n);
            let known: Vec<u64> = self.frames.keys().copied().filter(known).collect();
            known.into_iter().for_each(|n| self.note_frame(cpu, n, store));
            return;
        }
        for n in first..=last {
            let start = n << FRAME_SHIFT;
            let whole = phys <= start && start + FRAME_BYTES <= phys + len;
            if !whole || self.frames.contains_key(&n) {
                self.note_frame(cpu, n, store);
            }
        }
    }

    fn note_frame(&mut self, cpu: CpuId, frame: u64, store: bool) {
        let slot = self.frames.entry(frame).or_insert(Use { by: Some(cpu), stored: 0 });
        let shared = slot.by.is_some_and(|by| by != cpu);
        if shared {
            slot.by = None;
        }
        if store || shared {
            self.changes += 1;
            slot.stored = self.changes;
        }
    }

    /// What the frames held is gone: by whom they were used says nothing any more.
    pub(crate) fn forget(&mut self, first: Pfn, count: u64) {
        self.changes += 1;
        let last = first.0.saturating_add(count);
        if count <= MOST_NOTED {
            for n in first.0..last {
                self.frames.remove(&n);
            }
        } else {
            self.frames.retain(|n, _| !(first.0..last).contains(n));
        }
    }

    fn alone(&self, cpu: CpuId, frame: Pfn) -> Option<u64> {
        let found = self.frames.get(&frame.0)?;
        (found.by == Some(cpu)).then_some(found.stored)
    }
}

impl Machine {
    /// What decides a CPU's translations and fetches now.
    #[must_use]
    pub fn side(&self, cpu: CpuId) -> Option<Side> {
        let c = self.cpus.get(cpu.index())?;
        Some(Side {
            tlb: c.tlb.changes(),
            executable: self.spaces.iter().map(|s| s.exec.changes()).sum(),
            space: c.space,
            asid: c.asid,
            controls: c.controls,
            floor: c.ahead.floor,
            cursor: c.ahead.cursor,
        })
    }

    /// Whether a fetch of `len` bytes at `virt` that a CPU just made gives the same if it is made
    /// again: then where they are. `len` bytes from there have a stamp ([`Machine::lines_stamp`]).
    #[must_use]
    pub fn fetch_repeats(&mut self, cpu: CpuId, virt: VirtAddr, len: u64) -> Option<PhysAddr> {
        if self.reorders() || self.has_sets() || virt.page_offset() + len > FRAME_BYTES {
            return None;
        }
        let c = self.cpus.get_mut(cpu.index())?;
        let asid = c.asid;
        let entry = c.tlb.only(virt.0, asid).filter(|e| grants(e.perm, Access::Exec, true))?;
        let past =
            |p: &crate::iside::Past| p.virt < virt.0 + len && virt.0 - p.virt.min(virt.0) < p.len;
        if c.ahead.past.iter().any(past) || entry.len - (virt.0 - entry.virt) < len {
            return None;
        }
        let phys = entry.phys_of(virt.0);
        let when = (entry.since, u64::MAX);
        let steady = self.choices.is_steady();
        let line = 1u64 << self.lines.shift();
        let mut at = phys;
        while at < phys + len {
            // Fetches are made to the end of a line.
            let next = (at | (line - 1)) + 1;
            let here = VirtAddr(virt.0 + (at - phys));
            if !steady && self.lines.get(at >> self.lines.shift()).is_some() {
                let found = self.candidates(cpu, here, PhysAddr(at), (next - at) as usize, when);
                if found.ok()?.len() != 1 {
                    return None;
                }
            }
            at = next;
        }
        Some(PhysAddr(phys))
    }

    /// Grows whenever a line of a physical range changes in what fetches may get of it.
    #[must_use]
    pub fn lines_stamp(&self, phys: PhysAddr, len: u64) -> u64 {
        self.lines.stamp(phys.0, len)
    }

    /// Grows whenever any line changes so.
    #[must_use]
    pub fn lines_changed(&self) -> u64 {
        self.lines.changes()
    }

    /// Whether a CPU has the page at `virt` to itself, which it may read, and with `write` store
    /// to: then its frame, with a stamp that changes with every store that the machine makes to it.
    #[must_use]
    pub fn alone(&mut self, cpu: CpuId, virt: VirtAddr, write: bool) -> Option<Stamped> {
        if self.reorders() {
            return None;
        }
        let access = if write { Access::Write } else { Access::Read };
        let page = virt.align_down(FRAME_SHIFT);
        let c = self.cpus.get_mut(cpu.index())?;
        let (asid, wp) = (c.asid, c.controls.x86_wp);
        let entry = c.tlb.only(page.0, asid).filter(|e| grants(e.perm, access, wp))?;
        let phys = PhysAddr(entry.phys_of(page.0));
        let frame = phys.pfn();
        let stamp = self.users.alone(cpu, frame)?;
        if self.frames.is_table(frame) || self.memory.check(phys, FRAME_BYTES).is_err() {
            return None;
        }
        if write && self.may_be_fetched(phys.0, FRAME_BYTES) {
            return None;
        }
        Some(Stamped { frame, stamp })
    }

    /// Whether some CPU can have fetched from a physical range until now.
    fn may_be_fetched(&self, phys: u64, len: u64) -> bool {
        let kernel = self.spaces.first().and_then(|s| s.exec.reaching(phys, len));
        self.all_cpus().any(|cpu| self.reaches(cpu, phys, len, kernel).is_some())
    }

    /// The stamp of [`Machine::alone`], as long as the CPU has the frame to itself.
    #[must_use]
    pub fn alone_stamp(&self, cpu: CpuId, frame: Pfn) -> Option<u64> {
        self.users.alone(cpu, frame)
    }

    /// Changes whenever a stamp of [`Machine::alone`] may.
    #[must_use]
    pub fn uses_changed(&self) -> u64 {
        self.users.changes
    }
}
