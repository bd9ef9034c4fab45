//! Which addresses of a space are executable now, where they lead, and since when: a second form of
//! the tables, kept in step with every edit, to find the executable addresses of a physical line.

use std::collections::BTreeMap;

/// A run of addresses that lead to ascending frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExecRun {
    /// Bytes.
    pub(crate) len: u64,
    /// Physical address of the first byte.
    pub(crate) phys: u64,
    /// Moment from which it has been so.
    pub(crate) since: u64,
}

/// The executable addresses of one space.
#[derive(Clone, Default, Debug)]
pub(crate) struct ExecMap {
    /// By first virtual address; runs do not overlap. The end of the last one may be 2^64.
    runs: BTreeMap<u64, ExecRun>,
    /// Counts edits.
    changes: u64,
}

impl ExecMap {
    /// From `now` on, `len` bytes from `virt` lead to `phys` for execution, or are not executable.
    /// Where that was so before, `since` stays.
    pub(crate) fn set(&mut self, virt: u64, len: u64, phys: Option<u64>, now: u64) {
        let Some(last) = len.checked_sub(1).and_then(|n| virt.checked_add(n)) else { return };
        self.changes += 1;
        let mut kept = Vec::new();
        let first = self.runs.range(..=virt).next_back().map_or(virt, |(v, _)| *v);
        let touched: Vec<u64> = self
            .runs
            .range(first..=last)
            .filter(|(v, r)| **v + (r.len - 1) >= virt)
            .map(|(v, _)| *v)
            .collect();
        for start in touched {
            let Some(run) = self.runs.remove(&start) else { continue };
            let run_last = start + (run.len - 1);
            if start < virt {
                kept.push((start, ExecRun { len: virt - start, ..run }));
            }
            if run_last > last {
                let skip = last + 1 - start;
                let rest = ExecRun { len: run.len - skip, phys: run.phys + skip, since: run.since };
                kept.push((last + 1, rest));
            }
            // What stays as it was keeps its age.
            let (a, b) = (start.max(virt), run_last.min(last));
            let same =
                phys.is_some_and(|p| p.wrapping_add(a - virt) == run.phys.wrapping_add(a - start));
            if same {
                let phys = run.phys + (a - start);
                kept.push((a, ExecRun { len: b - a + 1, phys, since: run.since }));
            }
        }
        if let Some(phys) = phys {
            // Fill what is not covered by parts that kept their age.
            let mut old: Vec<(u64, u64)> = kept
                .iter()
                .filter(|(v, _)| *v >= virt && *v <= last)
                .map(|(v, r)| (*v, *v + (r.len - 1)))
                .collect();
            old.sort_unstable();
            let mut at = Some(virt);
            for (a, b) in old {
                if let Some(from) = at.filter(|from| *from < a) {
                    kept.push((
                        from,
                        ExecRun { len: a - from, phys: phys + (from - virt), since: now },
                    ));
                }
                at = b.checked_add(1);
            }
            if let Some(from) = at.filter(|from| *from <= last) {
                let run = ExecRun { len: last - from + 1, phys: phys + (from - virt), since: now };
                kept.push((from, run));
            }
        }
        self.runs.extend(kept);
        self.join(virt, last);
    }

    /// Joins runs of one age that continue each other, around a range.
    fn join(&mut self, virt: u64, last: u64) {
        let from = self.runs.range(..virt).next_back().map_or(virt, |(v, _)| *v);
        let to = last.saturating_add(1);
        let keys: Vec<u64> = self.runs.range(from..=to).map(|(v, _)| *v).collect();
        let mut head: Option<u64> = None;
        for key in keys {
            let (Some(h), Some(run)) = (head, self.runs.get(&key).copied()) else {
                head = Some(key);
                continue;
            };
            match self.runs.get_mut(&h) {
                Some(r)
                    if h.wrapping_add(r.len) == key
                        && r.phys.wrapping_add(r.len) == run.phys
                        && r.since == run.since =>
                {
                    r.len += run.len;
                    self.runs.remove(&key);
                }
                _ => head = Some(key),
            }
        }
    }

    /// Where an address leads for execution, and since when.
    pub(crate) fn lookup(&self, virt: u64) -> Option<(u64, u64)> {
        let (start, run) = self.runs.range(..=virt).next_back()?;
        let offset = virt - start;
        (offset < run.len).then(|| (run.phys + offset, run.since))
    }

    /// Changes with every edit.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// An executable address that leads into `len` bytes from `phys`.
    pub(crate) fn reaching(&self, phys: u64, len: u64) -> Option<u64> {
        self.runs.iter().find_map(|(virt, run)| {
            overlap(run.phys, run.len, phys, len).map(|at| virt + (at - run.phys))
        })
    }

    /// Number of runs.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }
}

/// First byte that two ranges have in common.
pub(crate) fn overlap(a: u64, a_len: u64, b: u64, b_len: u64) -> Option<u64> {
    let at = a.max(b);
    (at - a < a_len && at - b < b_len).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn age_is_kept_where_nothing_changes() {
        let mut m = ExecMap::default();
        m.set(0x1000, 0x4000, Some(0x8000), 1);
        m.set(0x2000, 0x1000, Some(0x9000), 2);
        assert_eq!(m.lookup(0x2010), Some((0x9010, 1)));
        assert_eq!(m.len(), 1);
        m.set(0x2000, 0x1000, Some(0x2_0000), 3);
        assert_eq!(m.lookup(0x2010), Some((0x2_0010, 3)));
        m.set(0x0, 0x10000, None, 4);
        assert_eq!(m.len(), 0);
        m.set(u64::MAX - 0xfff, 0x1000, Some(0), 5);
        assert_eq!(m.lookup(u64::MAX), Some((0xfff, 5)));
        m.set(u64::MAX - 0xfff, 0x1000, None, 6);
        assert_eq!(m.lookup(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn it_is_a_map_of_pages(
            edits in prop::collection::vec((0u64..24, 1u64..9, prop::option::of(0u64..40)), 1..40)
        ) {
            let mut m = ExecMap::default();
            let mut flat = [None::<(u64, u64)>; 32];
            for (now, (page, count, frame)) in edits.into_iter().enumerate() {
                let now = now as u64 + 1;
                m.set(page << 12, count << 12, frame.map(|f| f << 12), now);
                for i in 0..count {
                    let slot = &mut flat[(page + i) as usize];
                    *slot = match (frame, *slot) {
                        (Some(f), Some((g, since))) if f + i == g => Some((g, since)),
                        (Some(f), _) => Some((f + i, now)),
                        (None, _) => None,
                    };
                }
                for (page, slot) in flat.iter().enumerate() {
                    let virt = ((page as u64) << 12) + 8;
                    prop_assert_eq!(m.lookup(virt), slot.map(|(f, s)| ((f << 12) + 8, s)));
                }
                for frame in 0..60u64 {
                    let found = m.reaching(frame << 12, 4096);
                    let known = flat.iter().any(|s| s.is_some_and(|(f, _)| f == frame));
                    prop_assert_eq!(found.is_some(), known);
                    if let Some(v) = found {
                        prop_assert_eq!(m.lookup(v).unwrap().0 >> 12, frame);
                    }
                }
            }
        }
    }
}
