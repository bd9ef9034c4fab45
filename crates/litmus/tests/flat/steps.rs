//! The steps: those that are taken at once, and those that are a choice.

use textbed_arch::effect::{CacheScope, Reach};
use textbed_litmus::Op;

use super::{Model, Refused, State, World, Write};

impl Model<'_> {
    /// Takes every step that only enables others; nothing if the trace ends here.
    pub(super) fn settle(&self, mut w: World) -> Result<Option<World>, Refused> {
        loop {
            let mut again = false;
            for t in 0..w.threads.len() {
                again |= self.settle_front(&mut w, t)?;
                if !self.consistent(&w, t) {
                    return Ok(None);
                }
                again |= self.settle_barriers(&mut w, t);
            }
            if !again {
                return Ok(Some(w));
            }
        }
    }

    /// Barriers that can be committed, ICs that begin or are complete.
    pub(super) fn settle_barriers(&self, w: &mut World, t: usize) -> bool {
        for i in 0..w.threads[t].decoded.len() {
            let now = &w.threads[t].decoded[i];
            match (now.op.1, &now.state) {
                (Op::Isb, State::Open) if self.isb_ready(w, t, i) => {
                    let thread = &mut w.threads[t];
                    thread.decoded[i].state = State::Done;
                    for (pc, fetched) in &mut thread.queue {
                        if self.modified.contains(pc) {
                            *fetched = None;
                        }
                    }
                    return true;
                }
                (Op::Barrier(barrier, _), State::Open) if self.barrier_ready(w, t, i, barrier) => {
                    w.threads[t].decoded[i].state = State::Done;
                    return true;
                }
                (Op::InvalidateIcache(scope, reach, _), State::Open)
                    if self.maintenance_ready(w, t, i, true) =>
                {
                    let word = match scope {
                        CacheScope::Line => self.address(w, t, i),
                        CacheScope::All => None,
                    };
                    for (n, thread) in w.threads.iter_mut().enumerate() {
                        if reach == Reach::Broadcast || n == t {
                            thread.pending.insert((t, i, word));
                        }
                    }
                    w.threads[t].decoded[i].state = State::Waits;
                    return true;
                }
                (_, State::Waits) => {
                    let all = w.threads.iter().flat_map(|x| &x.pending);
                    if all.clone().all(|p| (p.0, p.1) != (t, i)) {
                        w.threads[t].decoded[i].state = State::Done;
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// Every step from here that is a choice. `found`: a store to a word of code that was not
    /// known to be modified so.
    pub(super) fn steps(
        &self,
        w: &World,
        found: &mut Option<(u64, u32)>,
    ) -> Result<Vec<World>, Refused> {
        let mut out = Vec::new();
        for t in 0..w.threads.len() {
            let thread = &w.threads[t];
            if self.may_request(w, t) {
                for pc in self.requests(w, t)? {
                    let mut next = w.clone();
                    self.request(&mut next, t, pc);
                    out.push(next);
                }
            }
            self.fetch_steps(w, t, &mut out);
            let invalidations = thread.pending.iter();
            out.extend(invalidations.map(|invalidation| self.invalidated(w, t, *invalidation)));
            for i in 0..thread.decoded.len() {
                if thread.decoded[i].state != State::Open {
                    continue;
                }
                match thread.decoded[i].op.1 {
                    Op::Load(_, _, bytes, order) => {
                        self.satisfy(w, t, i, (bytes, order), &mut out)?
                    }
                    Op::Store(n, _, bytes, order) => {
                        if let Some(write) = self.propagates(w, t, i, (n, bytes, order)) {
                            if self.is_code(write.at) {
                                *found = Some((write.at, write.value as u32));
                                let known = self.ever.get(&write.at);
                                if known.is_some_and(|k| k.contains(&(write.value as u32))) {
                                    *found = None;
                                } else {
                                    return Ok(out);
                                }
                            }
                            out.push(self.stored(w, (t, i), write));
                        }
                    }
                    Op::Clean(scope, _) if self.maintenance_ready(w, t, i, false) => {
                        out.push(self.cleaned(w, (t, i), scope));
                    }
                    _ => {}
                }
            }
        }
        Ok(out)
    }

    /// A thread takes an invalidation: of instruction `i` of thread `by`, of a word or everything.
    pub(super) fn invalidated(
        &self,
        w: &World,
        t: usize,
        taken: (usize, usize, Option<u64>),
    ) -> World {
        let (_, _, word) = taken;
        let mut next = w.clone();
        let thread = &mut next.threads[t];
        thread.pending.remove(&taken);
        thread.icache.retain(|write| word.is_some_and(|at| at != write.at));
        for (pc, fetched) in &mut thread.queue {
            if self.modified.contains(pc) && word.is_none_or(|at| at == *pc) {
                *fetched = None;
            }
        }
        next
    }

    /// The store `i` of thread `t` propagates.
    pub(super) fn stored(&self, w: &World, (t, i): (usize, usize), write: Write) -> World {
        let mut next = w.clone();
        match self.test.idc {
            true => {
                next.mem.insert(write.at, write);
            }
            false => next.buf.insert(0, write),
        }
        next.threads[t].decoded[i].state = State::Done;
        next
    }

    /// The DC `i` of thread `t` is performed.
    pub(super) fn cleaned(&self, w: &World, (t, i): (usize, usize), scope: CacheScope) -> World {
        let at = self.address(w, t, i);
        let mut next = w.clone();
        let hit = |x: &Write| scope == CacheScope::All || Some(x.at) == at;
        for write in next.buf.iter().rev().filter(|x| hit(x)) {
            next.mem.insert(write.at, *write);
        }
        next.buf.retain(|x| !hit(x));
        next.threads[t].decoded[i].state = State::Done;
        next
    }

    /// Whether a trace ends here as it should: everything done.
    pub(super) fn is_final(&self, w: &World) -> bool {
        w.threads.iter().all(|t| {
            t.ended
                && t.queue.is_empty()
                && t.decoded.iter().all(|i| match i.op.1 {
                    Op::Load(..) => i.state != State::Open,
                    Op::Store(..) | Op::Clean(..) | Op::InvalidateIcache(..) => {
                        i.state == State::Done
                    }
                    Op::Barrier(..) | Op::Isb => i.state == State::Done,
                    _ => true,
                })
        })
    }
}
