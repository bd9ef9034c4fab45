//! What a call does besides giving a value: pages that it changes, translations that it has
//! forgotten, locks, interrupts, and which other CPUs synchronise by these.
//!
//! Said in order is what happens to pages, each kind once with its number of leaves; the rest is
//! counted. What lies behind a patcher's alias is said by the alias alone.

use std::collections::BTreeSet;

use textbed_arch::effect::{Reach, TlbScope};
use textbed_arch::paging::MemoryType;
use textbed_arch::{CpuId, Perm};
use textbed_event::{LeafChange, View, WindowPurpose};

/// Which pages changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pages {
    /// Those of the call's own addresses.
    Own,
    /// Their aliases in the direct map.
    DirectMap,
}

/// Bytes from which on a range is all of the kernel's (powerpc's process 0 is a quarter of 2^64).
const WHOLE: u64 = 1 << 48;

/// What a call did.
#[derive(Default)]
pub(super) struct Effects {
    pages: Vec<(Pages, LeafChange)>,
    /// An authorised alias is open.
    alias: bool,
    aliases: Vec<WindowPurpose>,
    locks: Vec<String>,
    /// Of addresses, of everything; on this CPU alone, on others.
    flushed: BTreeSet<(bool, bool)>,
    broadcasts: u32,
    ipis: u32,
    stops: u32,
    synchronised: BTreeSet<CpuId>,
}

impl Effects {
    /// Something that the calling CPU did; `name` reads names, `own` says which pages a leaf's are.
    pub(super) fn here(
        &mut self,
        view: View,
        name: impl Fn(textbed_event::NameId) -> String,
        own: impl Fn(textbed_arch::VirtAddr) -> Option<Pages>,
    ) {
        match view {
            View::WindowOpened { purpose, .. } => {
                self.alias = true;
                if !self.aliases.contains(&purpose) {
                    self.aliases.push(purpose);
                }
            }
            View::WindowClosed { .. } => self.alias = false,
            View::Leaf { virt, change, .. } if !self.alias => {
                if let Some(pages) = own(virt) {
                    self.changed(pages, change);
                }
            }
            View::LockAcquired { lock } => {
                let lock = name(lock);
                if !self.locks.contains(&lock) {
                    self.locks.push(lock);
                }
            }
            View::TlbInvalidate { scope, reach, len, .. } => {
                self.broadcasts += u32::from(reach == Reach::Broadcast);
                self.flushes(scope, len, reach == Reach::Broadcast);
            }
            View::IpiSent { .. } => self.ipis += 1,
            View::StopMachine { begin: true } => self.stops += 1,
            _ => {}
        }
    }

    /// Something that another CPU did which the call interrupted or stopped.
    pub(super) fn there(&mut self, cpu: CpuId, view: View) {
        match view {
            View::ContextSync { .. } => {
                self.synchronised.insert(cpu);
            }
            View::TlbInvalidate { scope, len, .. } => self.flushes(scope, len, true),
            _ => {}
        }
    }

    fn flushes(&mut self, scope: TlbScope, len: u64, others: bool) {
        let addressed = matches!(scope, TlbScope::Address | TlbScope::AddressLastLevel);
        let everything = !addressed || len >= WHOLE;
        self.flushed.insert((everything, others));
    }

    fn changed(&mut self, pages: Pages, change: LeafChange) {
        let same = |c: &LeafChange| LeafChange { count: 0, ..*c };
        let last = self.pages.iter_mut().find(|(p, c)| *p == pages && same(c) == same(&change));
        match last {
            Some((_, known)) => known.count = known.count.saturating_add(change.count),
            None => self.pages.push((pages, change)),
        }
    }

    /// All of it, a line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.pages.iter().map(|(p, c)| page_line(*p, *c)).collect();
        lines.extend(self.aliases.iter().map(|purpose| format!("by a {}", purpose.text())));
        if !self.locks.is_empty() {
            lines.push(format!("under {}", self.locks.join(", ")));
        }
        for everything in [false, true] {
            let what = if everything { "all translations" } else { "translations of addresses" };
            let reaches = |others| self.flushed.contains(&(everything, others));
            if reaches(true) {
                lines.push(format!("flushes {what}"));
            } else if reaches(false) {
                lines.push(format!("flushes {what} of its CPU"));
            }
        }
        let counted = [
            (self.ipis, "interrupt", "interrupts"),
            (self.broadcasts, "broadcast", "broadcasts"),
            (self.stops, "halt of all CPUs", "halts of all CPUs"),
        ];
        for (count, one, many) in counted {
            match count {
                0 => {}
                1 => lines.push(format!("1 {one}")),
                n => lines.push(format!("{n} {many}")),
            }
        }
        match self.synchronised.len() {
            0 => {}
            1 => lines.push("1 other CPU synchronises".to_owned()),
            n => lines.push(format!("{n} other CPUs synchronise")),
        }
        lines
    }
}

/// `1 page rw- to r--`, `direct map: 512 leaves of 2 MiB from one of 1 GiB`.
fn page_line(pages: Pages, change: LeafChange) -> String {
    let LeafChange { count, shift, old_shift, old, new, attributes, was_contiguous, .. } = change;
    let size = |shift: u8| match shift {
        shift @ 0..20 => format!("{} KiB", 1u64 << shift.saturating_sub(10)),
        shift @ 20..30 => format!("{} MiB", 1u64 << (shift - 20)),
        shift => format!("{} GiB", 1u64 << shift.saturating_sub(30).min(20)),
    };
    let leaves = match (count, shift) {
        (1, 12) => "1 page".to_owned(),
        (n, 12) => format!("{n} pages"),
        (1, shift) => format!("1 leaf of {}", size(shift)),
        (n, shift) => format!("{n} leaves of {}", size(shift)),
    };
    let kept = old.letters() == new.letters();
    let what = match old.contains(Perm::PRESENT) && new.contains(Perm::PRESENT) {
        true if old_shift > shift => format!("split from {}", size(old_shift)),
        true if old_shift < shift => format!("joined from {}", size(old_shift)),
        true if kept => format!("stay {}", new.letters()),
        _ => format!("{} to {}", old.letters(), new.letters()),
    };
    let of = if pages == Pages::DirectMap { "direct map: " } else { "" };
    let bit = match (was_contiguous, attributes.contiguous) {
        (false, true) => ", contiguous",
        (true, false) if new.contains(Perm::PRESENT) => ", no longer contiguous",
        _ => "",
    };
    let memory = match attributes.memory {
        MemoryType::WriteBack => String::new(),
        other => format!(", {}", other.text()),
    };
    format!("{of}{leaves} {what}{bit}{memory}")
}
