//! x86: a change of page attributes on its way over a range, and over the aliases of what it
//! changed.
//!
//! Modelled: one leaf at a time; its aliases before the next; a split and its flush before the leaf
//! that it makes room for. cpa_lock is held for one leaf and given up before its aliases and the
//! next one, and in the middle of a leaf while the page for a table is allocated, behind which the
//! entry is looked at once more; the flush of a split is inside of it. With debug_pagealloc nobody
//! takes it. From: Linux 5.19, 6.1 and 6.12 arch/x86/mm/pat/set_memory.c
//! __change_page_attr_set_clr(), split_large_page(). Not modelled: the lock of the top table
//! (pgd_lock), which whoever splits or joins tables has as well.

use std::collections::VecDeque;

use textbed_arch::{CpuId, FRAME_BYTES, Perm, VirtAddr};

use crate::error::Stop;
use crate::kernel::Kernel;
use crate::steps::{self, flush_step, lock_step, once, pause, unlock_step};
use crate::x86::cpa::CPA_LOCK;

/// A change under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpa {
    pub(super) set: Perm,
    pub(super) clear: Perm,
    /// Bits of the index into the PAT.
    pub(super) pat_set: u8,
    pub(super) pat_clear: u8,
    /// Whether other mappings of the same frames follow.
    pub(super) check_alias: bool,
    /// Large leaves are split whether they have to change or not.
    pub(super) split: bool,
}

impl Cpa {
    /// Permissions that come and go, in aliases too.
    pub(super) fn rights(set: Perm, clear: Perm) -> Self {
        Self { set, clear, pat_set: 0, pat_clear: 0, check_alias: true, split: false }
    }

    /// Bits of the memory type that come and go.
    pub(super) fn caching(pat_set: u8, pat_clear: u8) -> Self {
        Self { pat_set, pat_clear, ..Self::rights(Perm::empty(), Perm::empty()) }
    }

    /// Whether an entry has anything to change at all.
    fn changes(self) -> bool {
        self.split || !(self.set | self.clear).is_empty() || self.pat_set | self.pat_clear != 0
    }
}

/// Pages that are changed.
#[derive(Clone, Debug)]
pub(super) enum Pages {
    /// So many from an address on.
    Range(VirtAddr, u64),
    /// Single ones (`CPA_PAGES_ARRAY`), of which none makes up a large leaf with others.
    Array(Vec<VirtAddr>),
}

impl Pages {
    pub(super) fn count(&self) -> u64 {
        match self {
            Pages::Range(_, pages) => *pages,
            Pages::Array(pages) => pages.len() as u64,
        }
    }

    /// The page of a number.
    pub(super) fn at(&self, page: u64) -> VirtAddr {
        match self {
            Pages::Range(start, _) => start.offset(page * FRAME_BYTES),
            Pages::Array(pages) => {
                let page = usize::try_from(page).ok().and_then(|page| pages.get(page));
                page.copied().unwrap_or(VirtAddr(0))
            }
        }
    }

    /// How many from there on may change together.
    fn together(&self, page: u64) -> u64 {
        match self {
            Pages::Range(_, pages) => pages - page,
            Pages::Array(_) => 1,
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Outcome {
    /// 0, or a negative error number.
    pub(super) error: i64,
    /// Pages done before the error.
    pub(super) done: u64,
    /// An entry of the range itself changed.
    pub(super) changed: bool,
    /// Another mapping was looked at: the flush is a full one.
    pub(super) alias: bool,
}

/// What came of a look at one leaf.
pub(super) enum AtLeaf {
    Done(u64),
    Error(i64),
    /// A large leaf has to be split before anything else.
    Split,
}

/// Another mapping of what was changed last, that is still to follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alias {
    pub(super) at: VirtAddr,
    pub(super) pages: u64,
    /// Its errors end the change.
    pub(super) checked: bool,
}

/// A change under way over a range, leaf by leaf, aliases after each.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pages: Pages,
    cpa: Cpa,
    pub(super) outcome: Outcome,
    aliases: VecDeque<Alias>,
    /// Pages that are done once their aliases are.
    pending: u64,
}

/// What one turn of a walk did.
pub(super) enum Turned {
    /// One leaf.
    Changed,
    /// Nothing yet: the large leaf there has to be split first, and everybody told of that.
    Split(VirtAddr),
    Failed,
}

impl Walk {
    /// A change that has not begun.
    pub(super) fn new(pages: Pages, cpa: Cpa) -> Self {
        let (outcome, aliases) = (Outcome::default(), VecDeque::new());
        Self { pages, cpa, outcome, aliases, pending: 0 }
    }

    /// What is changed in aliases. NX is no alias's business: the direct map never executes.
    fn of_alias(&self) -> Cpa {
        let Cpa { set, clear, .. } = self.cpa;
        Cpa { set: set - Perm::EXEC, clear: clear - Perm::EXEC, ..self.cpa }
    }

    /// Whether nothing is left to change.
    pub(super) fn is_over(&mut self) -> bool {
        let changes = self.of_alias().changes();
        self.aliases.retain(|alias| changes && alias.pages > 0);
        if self.aliases.is_empty() {
            self.outcome.done += std::mem::take(&mut self.pending);
        }
        self.outcome.error != 0
            || self.aliases.is_empty() && self.outcome.done >= self.pages.count()
    }

    /// Goes one leaf further, where it is not over.
    pub(super) fn turn(&mut self, k: &mut Kernel, cpu: CpuId) -> Result<Turned, Stop> {
        let cpa = self.of_alias();
        if let Some(alias) = self.aliases.front().copied() {
            match k.cpa_step(cpu, alias.at, alias.pages, cpa, false, &mut self.outcome)? {
                AtLeaf::Split => return Ok(Turned::Split(alias.at)),
                AtLeaf::Done(n) => {
                    if let Some(front) = self.aliases.front_mut() {
                        front.at = front.at.offset(n * FRAME_BYTES);
                        front.pages -= n;
                    }
                }
                AtLeaf::Error(error) => return Ok(self.fails(error)),
            }
            return Ok(Turned::Changed);
        }
        let at = self.pages.at(self.outcome.done);
        let phys = k.entry_at(at).map(|m| m.phys.offset(at.0.wrapping_sub(m.virt.0)));
        let left = self.pages.together(self.outcome.done);
        match k.cpa_step(cpu, at, left, self.cpa, true, &mut self.outcome)? {
            AtLeaf::Split => Ok(Turned::Split(at)),
            AtLeaf::Error(error) => Ok(self.fails(error)),
            AtLeaf::Done(n) => {
                self.pending = n;
                if let (true, Some(phys)) = (self.cpa.check_alias, phys) {
                    self.aliases = k.cpa_aliases(at, phys, n);
                    self.outcome.alias |= !self.aliases.is_empty();
                }
                Ok(Turned::Changed)
            }
        }
    }

    /// An error ends the change, but for one in an alias of which nobody looks at that.
    pub(super) fn fails(&mut self, error: i64) -> Turned {
        if self.aliases.front().is_some_and(|alias| !alias.checked) {
            self.aliases.pop_front();
            return Turned::Changed;
        }
        self.outcome.error = error;
        Turned::Failed
    }

    /// The walk in steps, others let in after each; `behind` are the steps that its outcome asks
    /// for.
    pub(super) fn steps(
        mut self,
        behind: impl FnOnce(Outcome) -> Vec<steps::Step> + 'static,
    ) -> steps::Step {
        once(move |k, _| {
            if self.is_over() {
                k.later(behind(self.outcome));
            } else {
                k.later([cpa_lock_step(), self.leaf_steps(behind)]);
            }
            Ok(())
        })
    }

    /// One leaf, under the lock, and what follows it.
    fn leaf_steps(
        mut self,
        behind: impl FnOnce(Outcome) -> Vec<steps::Step> + 'static,
    ) -> steps::Step {
        once(move |k, cpu| {
            match self.turn(k, cpu)? {
                Turned::Failed | Turned::Changed => {
                    k.later([cpa_unlock_step(), pause(), self.steps(behind)]);
                }
                Turned::Split(at) => {
                    let rest = once(move |k, cpu| {
                        match k.split_large(cpu, at)? {
                            Err(error) => {
                                self.fails(error);
                                k.later([cpa_unlock_step(), pause(), self.steps(behind)]);
                            }
                            Ok(split) => {
                                k.later(split.then(split_flush_steps).into_iter().flatten());
                                k.later([self.leaf_steps(behind)]);
                            }
                        }
                        Ok(())
                    });
                    k.later([cpa_unlock_step(), pause(), cpa_lock_step(), rest]);
                }
            }
            Ok(())
        })
    }
}

/// Others see the new table, and all forget the large leaf.
fn split_flush_steps() -> [steps::Step; 2] {
    [pause(), flush_step(|k, cpu| k.flush_tlb_all(cpu))]
}

/// Takes the lock of those who change attributes, where there is one.
fn cpa_lock_step() -> steps::Step {
    once(|k, _| {
        k.later(k.has_cpa_lock().then(|| lock_step(CPA_LOCK)));
        Ok(())
    })
}

/// Gives it up again.
fn cpa_unlock_step() -> steps::Step {
    once(|k, _| {
        k.later(k.has_cpa_lock().then(|| unlock_step(CPA_LOCK)));
        Ok(())
    })
}
