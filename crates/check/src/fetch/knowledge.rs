//! What one CPU knows, by type of effect, and what barriers, invalidations and context
//! synchronisation do with it: rules R5 to R8.
//!
//! The types are those of [`super::arm64`], which has the rules about effects. Not here: whom a
//! barrier reaches; a CPU keeps public and private knowledge for that.

use textbed_arch::CpuId;
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

/// Stores of the CPU itself that are not gathered yet: all that it did up to one, and what it knew
/// then, which was the same for each of them.
#[derive(Clone, Debug)]
struct OwnStores {
    cpu: CpuId,
    stamp: u64,
    knew: View,
}

/// Knowledge by type of effect.
#[derive(Clone, Default, Debug)]
pub(super) struct Knowledge {
    pub(super) base: [View; 5],
    /// Of stores without what waits in `stores`.
    pub(super) gathered: [View; 4],
    stores: Option<OwnStores>,
    /// Of stores before these, not gathered yet: each view has more than half again of what the
    /// next one has, so that many that differ are joined in few passes over all that they know.
    aside: Vec<View>,
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

    /// A store of its CPU, which knew `k` before it: gathered when somebody asks.
    pub(super) fn stored(&mut self, k: &View, cpu: CpuId, stamp: u64) {
        match &mut self.stores {
            Some(stores) if k.is_with_own_store(&stores.knew, cpu, stores.stamp) => {
                stores.stamp = stamp;
            }
            _ => {
                self.put_aside();
                self.stores = Some(OwnStores { cpu, stamp, knew: k.clone() });
            }
        }
    }

    fn put_aside(&mut self) {
        let Some(OwnStores { cpu, stamp, mut knew }) = self.stores.take() else { return };
        knew.stored_up_to(cpu, stamp);
        while let Some(before) = self.aside.pop_if(|v| v.entries() <= knew.entries() * 3 / 2) {
            knew.join(&before);
        }
        self.aside.push(knew);
    }

    /// All stores of its CPU are gathered.
    pub(super) fn gather_stores(&mut self) {
        self.put_aside();
        for view in self.aside.drain(..).rev() {
            self.gathered[STORE].join(&view);
        }
    }

    fn hand(&mut self, to: &[usize], from: &[&View]) {
        let bases = self.base.iter_mut().enumerate().filter(|(at, _)| to.contains(at));
        View::join_each(bases.map(|(_, base)| base), View::all(from));
    }

    /// R6, R7.
    pub(super) fn barrier(&mut self, barrier: Barrier) {
        self.gather_stores();
        let [r, w, d, i] = self.gathered.clone();
        const DATA: &[usize] = &[LOAD, STORE, CLEAN];
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
        // What the next context synchronisation hands on is mostly what these know already.
        let bases = self.base[..FETCH].iter_mut().chain([&mut self.to_sync]);
        View::join_each(bases, View::all(all));
        // Whoever asks for what was gathered begins with one of these, and so has it.
        let done: &[usize] = match barrier {
            Barrier::DsbLoad => &[LOAD],
            Barrier::DsbStore => &[STORE],
            Barrier::DsbFull | Barrier::Sync | Barrier::Ptesync => {
                &[LOAD, STORE, CLEAN, INVALIDATE]
            }
            // Mistakes that tests make.
            _ => &[],
        };
        done.iter().for_each(|gathered| self.gathered[*gathered] = View::default());
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

#[cfg(test)]
mod tests {
    use super::super::versions::key_of;
    use super::*;

    /// Each store knows a word that no other knows: all are gathered, and what waits to be is never
    /// a long list, nor is one view joined with all of the others for each store.
    #[test]
    fn stores_that_know_different_words_are_gathered_together() {
        let (p, q, count) = (CpuId(0), CpuId(1), 3000);
        let word = |n: u64| Span { first: 64 * n, last: 64 * n + 7 };
        let mut known = Knowledge::default();
        for n in 1..=count {
            let mut k = View::default();
            // Many words of neighbours in no order, as others stored them.
            k.stored(word(n * 1_000_003 % count), key_of(n, q));
            known.stored(&k, p, count + n);
            assert!(known.aside.len() <= 20, "{} views wait", known.aside.len());
        }
        known.gather_stores();
        let gathered = &known.gathered[STORE];
        assert!(known.aside.is_empty() && known.stores.is_none());
        assert_eq!(gathered.stored_by(p), 2 * count, "its own");
        assert_eq!(gathered.entries(), count as usize, "and those of the other");
    }
}
