//! What waits for what: barriers, maintenance, loads and stores.

use textbed_arch::effect::{Barrier, CacheScope};
use textbed_litmus::{Op, Order};

use super::values::{cut, is_branch};
use super::{Model, Refused, State, World, Write};

impl Model<'_> {
    pub(super) fn branches_known(&self, w: &World, t: usize, i: usize) -> bool {
        (0..i).all(|j| !is_branch(w.threads[t].decoded[j].op.1) || self.leads(w, t, j).is_some())
    }

    pub(super) fn addresses_known(&self, w: &World, t: usize, i: usize) -> bool {
        (0..i).all(|j| {
            let is_access = matches!(w.threads[t].decoded[j].op.1, Op::Load(..) | Op::Store(..));
            !is_access || self.address(w, t, j).is_some()
        })
    }

    pub(super) fn isb_ready(&self, w: &World, t: usize, i: usize) -> bool {
        let dsb = |b| matches!(b, Barrier::DsbFull | Barrier::DsbLoad | Barrier::DsbStore);
        self.branches_known(w, t, i)
            && self.addresses_known(w, t, i)
            && self.barriers_done(w, t, i, dsb)
    }

    /// Whether the barriers before `i` that `which` names are committed.
    pub(super) fn barriers_done(
        &self,
        w: &World,
        t: usize,
        i: usize,
        which: impl Fn(Barrier) -> bool,
    ) -> bool {
        w.threads[t].decoded[..i].iter().all(|b| match b.op.1 {
            Op::Barrier(barrier, _) => b.state == State::Done || !which(barrier),
            Op::Isb => b.state == State::Done,
            _ => true,
        })
    }

    pub(super) fn barrier_ready(&self, w: &World, t: usize, i: usize, barrier: Barrier) -> bool {
        use Barrier::{DmbFull, DmbLoad, DmbStore, DsbFull, DsbLoad, DsbStore};
        let (loads, stores, cleans, ics) = match barrier {
            DmbFull => (true, true, true, false),
            DsbFull => (true, true, true, true),
            DmbLoad | DsbLoad => (true, false, false, false),
            DmbStore | DsbStore => (false, true, false, false),
            _ => (true, true, true, true),
        };
        self.barriers_done(w, t, i, |_| true)
            && w.threads[t].decoded[..i].iter().all(|x| match x.op.1 {
                Op::Load(..) => !loads || x.state != State::Open,
                Op::Store(..) => !stores || x.state == State::Done,
                Op::Clean(..) => !cleans || x.state == State::Done,
                Op::InvalidateIcache(..) => !ics || x.state == State::Done,
                _ => true,
            })
    }

    /// Whether a DC can be performed or (`ic`) an IC begin.
    pub(super) fn maintenance_ready(&self, w: &World, t: usize, i: usize, ic: bool) -> bool {
        use Barrier::{DmbFull, DsbFull, DsbLoad, DsbStore};
        let whole = matches!(
            w.threads[t].decoded[i].op.1,
            Op::InvalidateIcache(CacheScope::All, ..) | Op::Clean(CacheScope::All, _)
        );
        let at = self.address(w, t, i);
        let orders = |b| matches!(b, DsbFull | DsbLoad | DsbStore) || !ic && b == DmbFull;
        if !whole && at.is_none() || !self.branches_known(w, t, i) {
            return false;
        }
        self.barriers_done(w, t, i, orders)
            && (ic
                || (0..i).all(|j| {
                    let x = &w.threads[t].decoded[j];
                    let open = match x.op.1 {
                        Op::Load(..) => x.state == State::Open,
                        Op::Store(..) | Op::Clean(..) => x.state != State::Done,
                        _ => false,
                    };
                    !open || self.address(w, t, j).is_some_and(|other| Some(other) != at)
                }))
    }

    /// A load takes its value, if it may now.
    pub(super) fn satisfy(
        &self,
        w: &World,
        t: usize,
        i: usize,
        (bytes, order): (u8, Order),
        out: &mut Vec<World>,
    ) -> Result<(), Refused> {
        use Barrier::{DmbFull, DmbLoad, DsbFull, DsbLoad, DsbStore};
        let Some(at) = self.address(w, t, i) else { return Ok(()) };
        if self.is_code(at) && bytes != 4 {
            return Err("mixed sizes".to_owned());
        }
        let decoded = &w.threads[t].decoded;
        let orders = |b| matches!(b, DmbFull | DmbLoad | DsbFull | DsbLoad | DsbStore);
        if !self.barriers_done(w, t, i, orders) {
            return Ok(());
        }
        for x in &decoded[..i] {
            match x.op.1 {
                Op::Load(_, _, _, Order::Acquire | Order::AcquirePc) if x.state == State::Open => {
                    return Ok(());
                }
                Op::Store(_, _, _, Order::Release)
                    if order == Order::Acquire && x.state != State::Done =>
                {
                    return Ok(());
                }
                _ => {}
            }
        }
        let same = |j: &usize| {
            matches!(decoded[*j].op.1, Op::Store(..)) && self.address(w, t, *j) == Some(at)
        };
        let nearest = (0..i).rev().find(same).filter(|j| decoded[*j].state == State::Open);
        let (write, forwarded) = match nearest {
            Some(j) => {
                let Op::Store(n, _, size, _) = decoded[j].op.1 else { return Ok(()) };
                let Some(value) = self.register(w, t, j, n) else { return Ok(()) };
                (Write { at, value: cut(value, size), id: id(t, j) }, Some(j))
            }
            None => (self.newest(w, at), None),
        };
        // Later loads of the word that read something else would be restarted.
        for (k, later) in decoded.iter().enumerate().skip(i + 1) {
            if let State::Read(other, from) = &later.state
                && self.address(w, t, k) == Some(at)
                && *other != write
                && from.is_none_or(|j| j < i)
            {
                return Ok(());
            }
        }
        let mut next = w.clone();
        next.threads[t].decoded[i].state = State::Read(write, forwarded);
        out.push(next);
        Ok(())
    }

    /// The write of a store that can be propagated.
    pub(super) fn propagates(
        &self,
        w: &World,
        t: usize,
        i: usize,
        (n, bytes, order): (u8, u8, Order),
    ) -> Option<Write> {
        let at = self.address(w, t, i)?;
        let value = cut(self.register(w, t, i, n)?, bytes);
        let ready = self.branches_known(w, t, i)
            && self.addresses_known(w, t, i)
            && self.barriers_done(w, t, i, |_| true);
        let before = (0..i).all(|j| {
            let x = &w.threads[t].decoded[j];
            let same = || self.address(w, t, j) == Some(at);
            match x.op.1 {
                Op::Load(_, _, _, kind) => {
                    let waits = order == Order::Release || kind != Order::Plain || same();
                    !waits || x.state != State::Open
                }
                Op::Store(..) => !(order == Order::Release || same()) || x.state == State::Done,
                Op::Clean(..) => {
                    let elsewhere = self.address(w, t, j).is_some_and(|other| other != at);
                    elsewhere || x.state == State::Done
                }
                _ => true,
            }
        });
        (ready && before).then_some(Write { at, value, id: id(t, i) })
    }
}

/// The number of a write: who and which.
fn id(t: usize, i: usize) -> u32 {
    (t as u32) << 16 | (i as u32 + 1)
}
