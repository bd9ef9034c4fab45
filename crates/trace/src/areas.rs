//! Areas of kernel virtual memory: what `vmalloc`, `vmap` and the like reserved.
//!
//! Only living areas are kept. Not modelled: lists per node, lazy reuse of addresses.

use crate::bounds::Bound;
use std::collections::BTreeMap;

/// VM_FLUSH_RESET_PERMS (`include/linux/vmalloc.h`).
pub const VM_FLUSH_RESET_PERMS: u64 = 0x100;
/// VM_ALLOW_HUGE_VMAP (the same file).
pub const VM_ALLOW_HUGE_VMAP: u64 = 0x400;

/// A living area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Bytes without guard page.
    pub len: u64,
    /// `vm_flags`, where the log has them.
    pub flags: Option<u64>,
    /// The line that showed it: file and number; (0, 0) if it was there before.
    pub line: (u32, u64),
}

/// How many areas there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AreaCounts {
    /// Known when the log began.
    pub before: u64,
    /// Made while it ran.
    pub made: u64,
    /// Removed while it ran.
    pub removed: u64,
    /// Removals of areas that the log had not shown being made.
    pub removed_unknown: u64,
    /// Areas in the way of a new one: their removal was missed.
    pub replaced: u64,
    /// Alive at the end.
    pub alive: u64,
    /// Not followed: too many were alive.
    pub refused: u64,
}

/// The living areas.
#[derive(Debug, Clone, Default)]
pub struct Areas {
    alive: BTreeMap<u64, Area>,
    counts: AreaCounts,
}

impl Areas {
    /// One that was there before the log began.
    pub fn before(&mut self, virt: u64, area: Area) {
        if self.full() {
            return;
        }
        self.counts.before += 1;
        self.alive.insert(virt, area);
    }

    /// Whether no more can be followed; it is counted then.
    fn full(&mut self) -> bool {
        let full = self.alive.len() >= Bound::Areas.most();
        self.counts.refused += u64::from(full);
        full
    }

    /// A new one. Returns those that stood in its way (whose removal was missed), or `None` if it
    /// is known already.
    pub fn make(&mut self, virt: u64, area: Area) -> Option<Vec<(u64, Area)>> {
        if let Some(known) = self.alive.get_mut(&virt)
            && known.len == area.len
        {
            known.flags = known.flags.or(area.flags);
            return None;
        }
        if self.full() {
            return None;
        }
        let end = virt.saturating_add(area.len);
        let mut stale: Vec<(u64, Area)> = Vec::new();
        if let Some((v, a)) = self.alive.range(..virt).next_back()
            && v.saturating_add(a.len) > virt
        {
            stale.push((*v, *a));
        }
        stale.extend(self.alive.range(virt..end.max(virt)).map(|(v, a)| (*v, *a)));
        for (v, _) in &stale {
            self.alive.remove(v);
        }
        self.counts.replaced += stale.len() as u64;
        self.counts.made += 1;
        self.alive.insert(virt, area);
        Some(stale)
    }

    /// The area that holds an address, its guard page included: the kernel finds it so too.
    pub fn holding(&self, virt: u64, page: u64) -> Option<(u64, Area)> {
        let (start, area) = self.alive.range(..=virt).next_back()?;
        let end = start.saturating_add(area.len).saturating_add(page);
        (virt < end).then_some((*start, *area))
    }

    /// Removes the area that holds an address.
    pub fn remove(&mut self, virt: u64, page: u64) -> Option<(u64, Area)> {
        match self.holding(virt, page) {
            Some((start, area)) => {
                self.alive.remove(&start);
                self.counts.removed += 1;
                Some((start, area))
            }
            None => {
                self.counts.removed_unknown += 1;
                None
            }
        }
    }

    /// Forgets all living areas; they come back, first address and bytes.
    pub fn clear(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.alive).into_iter().map(|(v, a)| (v, a.len)).collect()
    }

    /// The living areas by address.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Area)> {
        self.alive.iter().map(|(v, a)| (*v, *a))
    }

    /// The counts so far.
    pub fn counts(&self) -> AreaCounts {
        AreaCounts { alive: self.alive.len() as u64, ..self.counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 0x1000;

    #[test]
    fn any_address_inside_finds_the_area() {
        let mut a = Areas::default();
        let area = Area { len: 0x3000, flags: None, line: (0, 1) };
        assert_eq!(a.make(0x10000, area), Some(vec![]));
        assert_eq!(a.make(0x10000, Area { flags: Some(0x100), ..area }), None);
        assert_eq!(a.holding(0x12fff, PAGE).unwrap().1.flags, Some(0x100));
        assert!(a.holding(0x13fff, PAGE).is_some() && a.holding(0x14000, PAGE).is_none());
        assert_eq!(a.remove(0x11000, PAGE).map(|(v, _)| v), Some(0x10000));
        assert!(a.remove(0x11000, PAGE).is_none());
        let c = a.counts();
        assert_eq!((c.made, c.removed, c.removed_unknown, c.alive), (1, 1, 1, 0));
    }

    #[test]
    fn what_stands_in_the_way_was_removed_unseen() {
        let mut a = Areas::default();
        let one = Area { len: 0x2000, flags: None, line: (0, 1) };
        a.make(0x10000, one);
        a.make(0x14000, one);
        a.make(0x20000, one);
        let stale = a.make(0x11000, Area { len: 0x4000, ..one }).unwrap();
        assert_eq!(stale.iter().map(|s| s.0).collect::<Vec<_>>(), [0x10000, 0x14000]);
        assert_eq!((a.counts().replaced, a.counts().alive), (2, 2));
    }
}
