//! What one CPU knows, by type of effect, and what barriers, invalidations and context
//! synchronisation do with it: rules R5 to R8.
//!
//! The types are those of [`super::arm64`], which has the rules about effects. Not here: whom a
//! barrier reaches; a CPU keeps public and private knowledge for that.

use textbed_arch::effect::Barrier;

use super::caches::Caches;
use super::versions::Versions;
use super::views::View;
use crate::mistakes::{Mistake, made};
use crate::span::Span;

/// Types of effect, as indexes of bases.
pub(super) const LOAD: usize = 0;
pub(super) const STORE: usize = 1;
pub(super) const CLEAN: usize = 2;
pub(super) const INVALIDATE: usize = 3;
pub(super) const FETCH: usize = 4;

/// Knowledge by type of effect.
#[derive(Clone, Default, Debug)]
pub(super) struct Knowledge {
    pub(super) base: [View; 5],
    pub(super) gathered: [View; 4],
    /// What the next context synchronisation hands to fetches.
    pub(super) to_sync: View,
    /// Join of what fed an executed branch, and of what fed an address.
    pub(super) branch: View,
    pub(super) address: View,
    /// Join of its store-releases, which a load-acquire comes after.
    pub(super) releases: View,
}

impl Knowledge {
    /// R5; `virt` is the line's address if the cache is indexed by it.
    pub(super) fn invalidate(
        &mut self,
        caches: Caches,
        line: Option<Span>,
        virt: Option<u64>,
        versions: &Versions,
        taint: &View,
    ) {
        let mut k = self.base[INVALIDATE].clone().with(taint);
        k.join(&self.branch);
        match (line, virt) {
            (Some(line), Some(virt)) => {
                k.invalidate_by_virt(line, virt, !caches.clean, versions);
            }
            _ => k.invalidate(line, !caches.clean, versions),
        }
        self.gathered[INVALIDATE].join(&k);
    }

    fn hand(&mut self, to: &[usize], from: &[&View]) {
        let mut all = View::default();
        from.iter().for_each(|view| all.join(view));
        let bases = self.base.iter_mut().enumerate().filter(|(at, _)| to.contains(at));
        View::join_each(bases.map(|(_, base)| base), all);
    }

    /// R6, R7.
    pub(super) fn barrier(&mut self, barrier: Barrier) {
        let [r, w, d, i] = self.gathered.clone();
        const DATA: &[usize] = &[LOAD, STORE, CLEAN];
        const ALL: &[usize] = &[LOAD, STORE, CLEAN, INVALIDATE];
        let all: &[&View] = match barrier {
            Barrier::DmbStore if made(Mistake::DmbStoreCarriesClean) => {
                return self.hand(&[STORE], &[&w, &d]);
            }
            Barrier::DmbLoad if made(Mistake::DmbLoadCarriesLoadToClean) => {
                return self.hand(DATA, &[&r]);
            }
            Barrier::DmbFull if made(Mistake::DmbCompletes) => &[&r, &w, &d, &i],
            Barrier::DmbFull => return self.hand(DATA, &[&r, &w, &d]),
            Barrier::DmbLoad => return self.hand(&[LOAD, STORE], &[&r]),
            Barrier::DmbStore | Barrier::Eieio => return self.hand(&[STORE], &[&w]),
            Barrier::Lwsync if made(Mistake::LwsyncCompletes) => &[&r, &w, &d, &i],
            Barrier::Lwsync => {
                if made(Mistake::LwsyncCarriesClean) {
                    self.hand(&[STORE], &[&d]);
                }
                self.hand(&[LOAD, STORE], &[&r]);
                return self.hand(&[STORE], &[&w]);
            }
            Barrier::DsbFull | Barrier::Sync | Barrier::Ptesync => &[&r, &w, &d, &i],
            Barrier::DsbLoad => &[&r],
            Barrier::DsbStore => &[&w],
            Barrier::Mfence | Barrier::Lfence | Barrier::Sfence | Barrier::Tlbsync => return,
        };
        self.hand(ALL, all);
        all.iter().for_each(|view| self.to_sync.join(view));
        if made(Mistake::DsbOrdersFetches) {
            self.hand(&[FETCH], all);
        }
    }

    /// R8.
    pub(super) fn sync(&mut self) {
        let mut handed = self.to_sync.clone().with(&self.branch).with(&self.address);
        if made(Mistake::SyncTakesAllLoads) {
            handed.join(&self.gathered[LOAD]);
        }
        View::join_each(self.base.iter_mut(), handed);
    }
}
