//! The front of a thread: requests, the fetch queue, decoding, and whether the path that was
//! guessed is the one that is taken.

use textbed_litmus::Op;

use super::{Instruction, Model, Op2, Refused, State, World, Write};

/// Entries of a fetch queue that are not decoded.
const FETCH_LIMIT: usize = 12;
/// Instructions of one thread.
const MOST_INSTRUCTIONS: usize = 60;

impl Model<'_> {
    /// Addresses that may follow `pc` if the word there is `word`.
    pub(super) fn successors(&self, pc: u64, word: u32) -> Result<Vec<u64>, Refused> {
        Ok(match Op::decode(word) {
            Some(Op::Jump(offset, _)) => vec![pc.wrapping_add(offset as u64)],
            Some(Op::JumpIf(_, offset)) => vec![pc + 4, pc.wrapping_add(offset as u64)],
            Some(Op::JumpReg(..)) => self.targets.iter().copied().collect(),
            Some(Op::Trap(_) | Op::Eret | Op::SetElr(_)) | None => {
                return Err("exceptions".to_owned());
            }
            Some(_) => vec![pc + 4],
        })
    }

    /// Whether a thread may request another word.
    pub(super) fn may_request(&self, w: &World, t: usize) -> bool {
        !w.threads[t].ended && w.threads[t].queue.len() < FETCH_LIMIT
    }

    /// What may be requested next.
    pub(super) fn requests(&self, w: &World, t: usize) -> Result<Vec<u64>, Refused> {
        let thread = &w.threads[t];
        if let Some((pc, fetched)) = thread.queue.last() {
            let mut all = Vec::new();
            match fetched {
                Some(write) => all.extend(self.successors(*pc, write.value as u32)?),
                None => {
                    let first = self.words.get(pc).copied();
                    let ever = self.ever.get(pc).into_iter().flatten().copied();
                    for word in first.into_iter().chain(ever) {
                        all.extend(self.successors(*pc, word)?);
                    }
                }
            }
            all.sort_unstable();
            all.dedup();
            return Ok(all);
        }
        let Some(last) = thread.decoded.len().checked_sub(1) else {
            return Ok(vec![self.test.threads[t].entry.0]);
        };
        match self.leads(w, t, last) {
            Some(to) => Ok(vec![to]),
            None => self.successors(thread.decoded[last].pc, thread.decoded[last].op.0),
        }
    }

    /// Requests, fetches of constant words, decoding.
    pub(super) fn settle_front(&self, w: &mut World, t: usize) -> Result<bool, Refused> {
        if self.may_request(w, t) {
            let next = self.requests(w, t)?;
            if let [only] = next[..] {
                self.request(w, t, only);
                return Ok(true);
            }
        }
        let thread = &mut w.threads[t];
        let isb_open = thread.decoded.iter().any(|i| i.op.1 == Op::Isb && i.state != State::Done);
        if let Some((pc, Some(write))) = thread.queue.first().copied()
            && !isb_open
        {
            if thread.decoded.len() >= MOST_INSTRUCTIONS {
                return Err("a loop that is too long".to_owned());
            }
            let word = write.value as u32;
            let Some(op) = Op::decode(word) else { return Err("exceptions".to_owned()) };
            if matches!(op, Op::Trap(_) | Op::Eret | Op::SetElr(_)) {
                return Err("exceptions".to_owned());
            }
            thread.queue.remove(0);
            thread.decoded.push(Instruction { pc, op: Op2(word, op), state: State::Open });
            return Ok(true);
        }
        Ok(false)
    }

    pub(super) fn request(&self, w: &mut World, t: usize, pc: u64) {
        let thread = &mut w.threads[t];
        if !self.is_code(pc) {
            thread.ended = true;
            return;
        }
        let constant = (!self.modified.contains(&pc)).then(|| self.first(pc));
        thread.queue.push((pc, constant));
    }

    /// Whether no guess was wrong and no load has to be restarted.
    pub(super) fn consistent(&self, w: &World, t: usize) -> bool {
        let thread = &w.threads[t];
        for (i, now) in thread.decoded.iter().enumerate() {
            // Where the path goes on has to be where it leads.
            let follows = match thread.decoded.get(i + 1) {
                Some(next) => Some(next.pc),
                None => thread.queue.first().map(|(pc, _)| *pc),
            };
            if let Some(to) = self.leads(w, t, i) {
                match follows {
                    Some(pc) if pc != to => return false,
                    None if thread.ended && self.is_code(to) => return false,
                    _ => {}
                }
            }
            // Of a fetched word that waits in the queue nothing is known to be wrong yet.
            if let State::Read(_, forwarded) = &now.state {
                let from = forwarded.map_or(0, |j| j + 1);
                for j in from..i {
                    let store = &thread.decoded[j];
                    if matches!(store.op.1, Op::Store(..))
                        && store.state == State::Open
                        && self.address(w, t, j) == self.address(w, t, i)
                    {
                        return false;
                    }
                }
            }
        }
        for pair in thread.queue.windows(2) {
            let (pc, Some(write)) = pair[0] else { continue };
            let next = self.successors(pc, write.value as u32);
            if next.is_ok_and(|next| !next.contains(&pair[1].0)) {
                return false;
            }
        }
        if let (Some((pc, Some(write))), true) = (thread.queue.last(), thread.ended)
            && let Ok(next) = self.successors(*pc, write.value as u32)
            && next.iter().all(|to| self.is_code(*to))
        {
            return false;
        }
        true
    }

    /// Fetches of modified words, and what the instruction cache may take.
    pub(super) fn fetch_steps(&self, w: &World, t: usize, out: &mut Vec<World>) {
        let thread = &w.threads[t];
        for (k, (pc, fetched)) in thread.queue.iter().enumerate() {
            if fetched.is_some() {
                continue;
            }
            let mut all: Vec<Write> =
                thread.icache.iter().copied().filter(|write| write.at == *pc).collect();
            if self.test.dic {
                all = vec![self.in_memory(w, *pc)];
            }
            for write in all {
                let mut next = w.clone();
                next.threads[t].queue[k].1 = Some(write);
                out.push(next);
            }
            if self.test.dic {
                // In program order: fetches of one thread are coherent then.
                break;
            }
        }
        if self.test.dic {
            return;
        }
        for at in &self.modified {
            let there = w.buf.iter().copied().filter(|x| x.at == *at);
            for write in there.chain([self.in_memory(w, *at)]) {
                if !thread.icache.contains(&write) {
                    let mut next = w.clone();
                    next.threads[t].icache.insert(write);
                    out.push(next);
                }
            }
        }
    }
}
