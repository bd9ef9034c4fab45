//! A class through the one-pass form of the stream checker.
//!
//! Events have to come in an order that has each thread's program order, a load after the store
//! that it returns, and loads returning the newest version at their place. A class with a value
//! from the future has none.

use std::collections::BTreeMap;

use textbed_arch::effect::{Barrier, Domain};
use textbed_arch::{Arch, CpuId};
use textbed_event::MemOrder;

use super::class::{Class, Kind};
use super::step::{Deps, Order, Step};
use crate::fetch::arm64::Weak;
use crate::fetch::caches::Caches;
use crate::fetch::versions::{Forgotten, Made, Version, Versions};
use crate::fetch::views::View;
use crate::span::Span;

/// The weak machine, fed by hand, with the windows of its fetches.
pub(crate) struct Stream {
    pub(crate) weak: Weak,
    versions: Versions,
    next: u64,
    /// Windows: word, low, high; by the number of the fetch.
    windows: BTreeMap<u64, (u64, usize, usize)>,
}

/// The 4 bytes at an address.
fn word(at: u64) -> Span {
    Span { first: at, last: at.saturating_add(3) }
}

impl Stream {
    pub(crate) fn new(caches: Caches) -> Self {
        let (versions, windows) = Default::default();
        let mut weak = Weak::new(caches);
        weak.follow = true;
        Self { weak, versions, next: 0, windows }
    }

    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A store; `taint` is what fed value and address.
    pub(crate) fn store(&mut self, p: u16, at: u64, order: MemOrder, taint: &View) {
        let stamp = self.tick();
        let newest = self.versions.newest(at).filter(|v| v.cpu != CpuId(p));
        let newest = newest.as_ref().and_then(|v| v.view.as_ref());
        let view = self.weak.store(CpuId(p), word(at), stamp, order, newest, taint);
        let version = Version { view: Some(view), ..Version::by_hand(stamp, CpuId(p)) };
        self.versions
            .store(Arch::Arm64, word(at), Made::New(version), false, |_, _| Forgotten::None);
        for (id, stamp) in std::mem::take(&mut self.weak.grown) {
            let Some((at, _, high)) = self.windows.get_mut(&id) else { continue };
            if let Some((_, history)) = self.versions.within(word(*at)).next() {
                *high = history.number_at(stamp) as usize;
            }
        }
    }

    /// A load that returns the newest version; `taint` is what it knows by its address, or by the
    /// store that it was forwarded from. Returns what its register knows.
    pub(crate) fn load(&mut self, p: u16, at: u64, order: MemOrder, taint: &View) -> View {
        let from = self.versions.newest(at).filter(|v| v.cpu != CpuId(p));
        self.weak.load(CpuId(p), word(at), order, from.as_deref(), Some(taint))
    }

    /// A clean of some bytes, or of everything.
    pub(crate) fn clean(&mut self, p: u16, lines: Option<Span>, taint: &View) {
        self.weak.clean(CpuId(p), lines, &self.versions, taint);
    }

    /// An invalidation of some bytes, or of everything.
    pub(crate) fn invalidate(&mut self, p: u16, lines: Option<Span>, taint: &View) {
        self.weak.invalidate(CpuId(p), lines, None, &self.versions, taint);
    }

    /// An invalidation of everything on `p` alone.
    pub(crate) fn invalidate_own(&mut self, p: u16) {
        self.weak.invalidate_own(CpuId(p), &self.versions);
    }

    pub(crate) fn barrier(&mut self, p: u16, barrier: Barrier, domain: Domain) {
        self.weak.barrier(CpuId(p), barrier, domain);
    }

    pub(crate) fn sync(&mut self, p: u16) {
        self.weak.sync(CpuId(p));
    }

    /// The window that a fetch would have now.
    pub(crate) fn would(&self, p: u16, at: u64) -> [usize; 2] {
        let Some((_, h)) = self.versions.within(word(at)).next() else { return [0, 0] };
        let low = h.number_at(self.weak.low(CpuId(p), word(at).into(), &h));
        [low as usize, h.newest_number() as usize]
    }

    /// A fetch that returned this version; its number.
    pub(crate) fn fetch(&mut self, p: u16, at: u64, returned: usize) -> u64 {
        let id = self.tick();
        let [low, high] = self.would(p, at);
        self.windows.insert(id, (at, low, high));
        let history = self.versions.within(word(at)).next().map(|(_, h)| h);
        let from = returned.checked_sub(1).and_then(|i| history.as_ref()?.versions.get(i).cloned());
        self.weak.fetch(CpuId(p), word(at), from.as_deref(), id);
        id
    }

    /// The window of a fetch, from all that came since.
    pub(crate) fn window(&self, fetch: u64) -> [usize; 2] {
        self.windows.get(&fetch).map_or([0, 0], |(_, low, high)| [*low, *high])
    }
}

impl Class<'_> {
    /// The window of each fetch, as the first and last version in it, by the one-pass form that
    /// judges streams. Nothing if no order of the events is one in which every load returns the
    /// newest version.
    #[must_use]
    pub fn stream_windows(&self) -> Option<Vec<(usize, [usize; 2])>> {
        let order = self.serial()?;
        let mut t = Stream::new(self.side.caches());
        let mut loads: Vec<Vec<View>> = vec![Vec::new(); self.steps.len()];
        let mut fetches = Vec::new();
        let none = View::default();
        for (cpu, at) in order {
            let p = usize::from(cpu);
            let effect = self.effect_at(cpu, at);
            let know = |deps: Deps| {
                let fed = loads[p].iter().enumerate();
                let fed = fed.filter(|(n, _)| deps.0 & Deps::load(*n).0 != 0);
                fed.fold(View::default(), |all, (_, view)| all.with(view))
            };
            let by = |order: Order| match order {
                Order::Plain => MemOrder::Plain,
                // Of the two only this one is also ordered after own releases.
                Order::Acquire => MemOrder::Full,
                Order::AcquirePc => MemOrder::Acquire,
                Order::Release => MemOrder::Release,
            };
            match self.steps[p][at] {
                Step::Load { at, order, address } => {
                    let address = know(address);
                    let forwarded = effect.and_then(|e| self.source(e)).map(|s| self.effects[s]);
                    let mut taint = address.clone();
                    if let Some(own) = forwarded.filter(|s| s.cpu == cpu)
                        && let Step::Store { address, data, .. } = self.steps[p][own.step]
                    {
                        taint = taint.with(&know(address.with(data)));
                    }
                    let known = t.load(cpu, at, by(order), &taint);
                    t.weak.address(CpuId(cpu), &address);
                    loads[p].push(known);
                }
                Step::Store { at, order, address, data, .. } => {
                    t.store(cpu, at, by(order), &know(address.with(data)));
                    t.weak.address(CpuId(cpu), &know(address));
                }
                Step::Fetch { at } => {
                    let effect = effect?;
                    fetches.push((effect, t.fetch(cpu, at, self.returned[effect])));
                }
                Step::Clean { lines, address } => t.clean(cpu, lines.span(), &know(address)),
                Step::Invalidate { alone: true, .. } => t.invalidate_own(cpu),
                Step::Invalidate { lines, address, .. } => {
                    t.invalidate(cpu, lines.span(), &know(address));
                }
                Step::Barrier(barrier, domain) => t.barrier(cpu, barrier, domain),
                Step::Branch { on } => t.weak.branch(CpuId(cpu), &know(on).with(&none)),
                Step::Sync => t.sync(cpu),
            }
        }
        Some(fetches.into_iter().map(|(effect, id)| (effect, t.window(id))).collect())
    }

    fn effect_at(&self, cpu: u16, step: usize) -> Option<usize> {
        self.effects.iter().position(|e| (e.cpu, e.step) == (cpu, step))
    }

    /// An order of all steps: thread and place. A thread goes on as far as it can.
    fn serial(&self) -> Option<Vec<(u16, usize)>> {
        let total: usize = self.steps.iter().map(|s| s.len()).sum();
        let mut at = vec![0usize; self.steps.len()];
        let mut done = vec![false; self.effects.len()];
        let mut out = Vec::with_capacity(total);
        while out.len() < total {
            let before = out.len();
            for (cpu, steps) in self.steps.iter().enumerate() {
                while at[cpu] < steps.len() {
                    let effect = self.effect_at(cpu as u16, at[cpu]);
                    if effect.is_some_and(|e| !self.may_come(e, &done)) {
                        break;
                    }
                    if let Some(e) = effect {
                        done[e] = true;
                    }
                    out.push((cpu as u16, at[cpu]));
                    at[cpu] += 1;
                }
            }
            if out.len() == before {
                return None;
            }
        }
        Some(out)
    }

    /// Whether all that has to come before an effect has come.
    fn may_come(&self, e: usize, done: &[bool]) -> bool {
        let came = |s: &usize| done[*s];
        match self.effects[e].kind {
            Kind::Fetch(_) | Kind::Load(_) => self.source(e).as_ref().is_none_or(came),
            Kind::Store(word) => {
                let number = self.number(word, e);
                let older = self.stores_of(word).iter().take(number.saturating_sub(1));
                // Loads that returned something older come first.
                let loads = self.effects.iter().enumerate().filter(|(l, effect)| {
                    effect.kind == Kind::Load(word) && self.returned[*l] < number
                });
                older.chain(&[]).all(came) && { loads }.all(|(l, _)| done[l])
            }
            _ => true,
        }
    }
}
