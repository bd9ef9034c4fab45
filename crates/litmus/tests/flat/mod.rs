//! The operational model of instruction fetch, step by step, as a slow oracle.
//!
//! From the description of iFlat in Simner et al. (ESOP 2020, section 4): flat memory, an abstract
//! data cache of writes (`buf`, unless IDC), per thread an instruction cache that may hold several
//! writes of one word (unless DIC), a fetch queue of requested and fetched words, and decoded
//! instructions that execute out of order. Caches fill at any time, a fetch takes any write that
//! its cache holds, an invalidation reaches thread by thread and sends fetched words back to
//! unfetched, an ISB does that with its own thread's queue. Nothing here is shared with the
//! simulator but the reading of instructions.
//!
//! Steps that only enable others (requests with one successor, fetches of words that nobody stores
//! to, decoding, committing a barrier, beginning and completing an IC) are taken at once. A load
//! that the model would restart ends the trace instead: another trace satisfies it later. A branch
//! is guessed, and a wrong guess ends the trace. Lines are one word.
//!
//! With DIC words are fetched in program order, which the recorded verdicts need.
//!
//! Not modelled: exceptions, mixed sizes, constrained unpredictable results.

// Each test file uses a part; and this file is no test by itself to clippy.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashSet};

use textbed_arch::VirtAddr;
use textbed_arch::effect::{Barrier, CacheScope, Reach};
use textbed_litmus::kinds::Kind;
use textbed_litmus::{Address, FaultKind, Final, If, Next, Op, Order, Registers, Rhs, Test};

/// Entries of a fetch queue that are not decoded.
const FETCH_LIMIT: usize = 12;
/// Instructions of one thread.
const MOST_INSTRUCTIONS: usize = 60;

/// A write to a word; `id` is 0 for what was there before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Write {
    at: u64,
    value: u64,
    id: u32,
}

/// How far an instruction is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    /// Not done yet.
    Open,
    /// A load: what it read, and the store of its thread that handed it on, if one did.
    Read(Write, Option<usize>),
    /// An IC that waits for threads.
    Waits,
    /// Propagated, performed, committed.
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Instruction {
    pc: u64,
    op: Op2,
    state: State,
}

/// An operation, hashed by its debug text's source: the word.
#[derive(Clone, Copy, Debug)]
struct Op2(u32, Op);

impl PartialEq for Op2 {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Op2 {}
impl std::hash::Hash for Op2 {
    fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
        self.0.hash(h);
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Thread {
    decoded: Vec<Instruction>,
    /// Requested: address, and the write fetched.
    queue: Vec<(u64, Option<Write>)>,
    /// The path left the code.
    ended: bool,
    icache: BTreeSet<Write>,
    /// ICs to take: thread, instruction, word (`None` = all).
    pending: BTreeSet<(usize, usize, Option<u64>)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct World {
    mem: BTreeMap<u64, Write>,
    /// The newest first.
    buf: Vec<Write>,
    threads: Vec<Thread>,
}

struct Model<'a> {
    test: &'a Test,
    words: BTreeMap<u64, u32>,
    /// Words of code that some thread stores to.
    modified: BTreeSet<u64>,
    /// Opcodes that a modified word may hold.
    ever: BTreeMap<u64, BTreeSet<u32>>,
    aliases: BTreeMap<u64, u64>,
    initial: BTreeMap<u64, u64>,
    targets: BTreeSet<u64>,
}

/// Why the oracle does not decide a test.
pub(crate) type Refused = String;

/// Shows every final state to `visit`; how many states there were, or `None` if more than `most`.
pub(crate) fn walk(
    test: &Test,
    most: usize,
    mut visit: impl FnMut(&dyn Final),
) -> Result<Option<usize>, Refused> {
    let mut model = Model::new(test)?;
    'again: loop {
        let mut seen: HashSet<World> = HashSet::new();
        let first =
            World { threads: vec![Thread::default(); test.threads.len()], ..World::default() };
        let mut open: Vec<World> = model.settle(first)?.into_iter().collect();
        let mut last: Vec<World> = Vec::new();
        while let Some(world) = open.pop() {
            if seen.contains(&world) {
                continue;
            }
            if seen.len() >= most {
                return Ok(None);
            }
            let mut found = None;
            for next in model.steps(&world, &mut found)? {
                open.extend(model.settle(next)?);
            }
            if let Some((at, word)) = found
                && model.learns(at, word)
            {
                continue 'again;
            }
            if model.is_final(&world) {
                last.push(world.clone());
            }
            seen.insert(world);
        }
        last.iter().for_each(|world| visit(&End { model: &model, world }));
        return Ok(Some(seen.len()));
    }
}

/// The answer of the model; `None` if there are more states than `most`.
pub(crate) fn decide(test: &Test, most: usize) -> Result<Option<Kind>, Refused> {
    let (mut any, mut all) = (false, true);
    let whole = walk(test, most, |state| {
        let holds = test.condition.formula.holds(state);
        any |= holds;
        all &= holds;
    })?;
    Ok(whole.map(|_| Kind::of(test.condition.quantifier, any, all)))
}

struct End<'a> {
    model: &'a Model<'a>,
    world: &'a World,
}

impl Final for End<'_> {
    fn register(&self, thread: usize, n: u8) -> u64 {
        let count = self.world.threads[thread].decoded.len();
        self.model.register(self.world, thread, count, n).unwrap_or(0)
    }

    fn memory(&self, virt: VirtAddr, _bytes: u8) -> u64 {
        self.model.newest(self.world, self.model.location(virt.0)).value
    }

    fn faulted(&self, _: usize, _: VirtAddr, _: FaultKind) -> bool {
        false
    }
}

/// Registers that feed an instruction's result, and whether flags do.
fn sources(op: Op) -> (Vec<u8>, bool) {
    let of = |a: Address| {
        let mut all = vec![a.base];
        all.extend(a.index.map(|(m, _)| m));
        all
    };
    match op {
        Op::Alu(_, _, _, n, Rhs::Reg(m), _) => (vec![n, m], false),
        Op::Alu(_, _, _, n, Rhs::Imm(_), _) => (vec![n], false),
        Op::Select(_, _, n, m, _, _) => (vec![n, m], true),
        Op::Load(_, a, _, _) | Op::Store(_, a, _, _) => (of(a), false),
        Op::Clean(_, n) | Op::InvalidateIcache(_, _, n) | Op::JumpReg(n, _) => (vec![n], false),
        Op::JumpIf(If::Flags(_), _) => (vec![], true),
        Op::JumpIf(If::Zero(t, _, _) | If::Bit(t, _, _), _) => (vec![t], false),
        _ => (vec![], false),
    }
}

fn writes_register(op: Op, n: u8) -> bool {
    match op {
        Op::Move(d, _) | Op::Alu(_, _, d, _, _, _) | Op::Select(_, d, _, _, _, _) => d == n,
        Op::Adr(d, _) | Op::Load(d, _, _, _) => d == n,
        Op::Jump(_, link) | Op::JumpReg(_, link) => link && n == 30,
        _ => false,
    }
}

fn is_branch(op: Op) -> bool {
    matches!(op, Op::JumpIf(..) | Op::JumpReg(..))
}

impl<'a> Model<'a> {
    fn new(test: &'a Test) -> Result<Self, Refused> {
        let mut words = BTreeMap::new();
        for t in &test.threads {
            if !t.handler.is_empty() {
                return Err("exceptions".to_owned());
            }
            words.extend(t.all().map(|i| (i.virt.0, i.word)));
        }
        let mut targets = BTreeSet::new();
        for (pc, word) in &words {
            if let Some(Op::Jump(_, true) | Op::JumpReg(_, true)) = Op::decode(*word) {
                targets.insert(pc + 4);
            }
        }
        let values = test.threads.iter().flat_map(|t| t.registers.iter().map(|(_, v)| *v));
        let places = test.places.iter().map(|p| p.value);
        targets.extend(values.chain(places).filter(|v| words.contains_key(v)));
        let aliases = test.places.iter().filter_map(|p| Some((p.virt.0, p.alias_of?.0)));
        let initial = test.places.iter().filter(|p| p.alias_of.is_none());
        Ok(Self {
            test,
            modified: BTreeSet::new(),
            ever: BTreeMap::new(),
            aliases: aliases.collect(),
            initial: initial.map(|p| (p.virt.0, p.value)).collect(),
            targets,
            words,
        })
    }

    /// Notes that a word of code may hold an opcode; whether that is new.
    fn learns(&mut self, at: u64, word: u32) -> bool {
        self.modified.insert(at) | self.ever.entry(at).or_default().insert(word)
    }

    fn location(&self, at: u64) -> u64 {
        self.aliases.get(&at).copied().unwrap_or(at)
    }

    fn first(&self, at: u64) -> Write {
        let code = self.words.get(&at).map(|w| u64::from(*w));
        let value = code.or_else(|| self.initial.get(&at).copied()).unwrap_or(0);
        Write { at, value, id: 0 }
    }

    fn in_memory(&self, w: &World, at: u64) -> Write {
        w.mem.get(&at).copied().unwrap_or_else(|| self.first(at))
    }

    fn newest(&self, w: &World, at: u64) -> Write {
        w.buf.iter().find(|x| x.at == at).copied().unwrap_or_else(|| self.in_memory(w, at))
    }

    /// A register before instruction `i` of a thread; `None` while it is not known.
    fn register(&self, w: &World, t: usize, i: usize, n: u8) -> Option<u64> {
        if n >= 31 {
            return Some(0);
        }
        let decoded = &w.threads[t].decoded;
        match (0..i).rev().find(|j| writes_register(decoded[*j].op.1, n)) {
            Some(j) => match (&decoded[j].op.1, &decoded[j].state) {
                (Op::Load(_, _, bytes, _), State::Read(write, _)) => Some(cut(write.value, *bytes)),
                (Op::Load(..), _) => None,
                (op, _) => Some(self.result(w, t, j, *op)?.get(n)),
            },
            None => {
                let initial = self.test.threads[t].registers.iter().find(|(r, _)| *r == n);
                Some(initial.map_or(0, |(_, value)| *value))
            }
        }
    }

    /// The registers after an instruction, as far as it concerns them.
    fn result(&self, w: &World, t: usize, i: usize, op: Op) -> Option<Registers> {
        let pc = w.threads[t].decoded[i].pc;
        let mut r = Registers { pc, ..Registers::default() };
        let (registers, flags) = sources(op);
        for n in registers {
            let value = self.register(w, t, i, n)?;
            r.set(n, value);
        }
        if flags {
            r.flags = self.flags(w, t, i)?;
        }
        let _ = r.step(op);
        Some(r)
    }

    fn flags(&self, w: &World, t: usize, i: usize) -> Option<(bool, bool, bool, bool)> {
        let decoded = &w.threads[t].decoded;
        let sets = |j: &usize| matches!(decoded[*j].op.1, Op::Alu(_, _, _, _, _, true));
        match (0..i).rev().find(sets) {
            Some(j) => Some(self.result(w, t, j, decoded[j].op.1)?.flags),
            None => Some((false, false, false, false)),
        }
    }

    /// The word that a memory access or a maintenance instruction is about; `None` while that is
    /// not known, or for one that is about everything.
    fn address(&self, w: &World, t: usize, i: usize) -> Option<u64> {
        let op = w.threads[t].decoded[i].op.1;
        let mut r = Registers::default();
        for n in sources(op).0 {
            r.set(n, self.register(w, t, i, n)?);
        }
        let at = match r.step(op) {
            Next::Load { virt, .. }
            | Next::Store { virt, .. }
            | Next::Clean(_, virt)
            | Next::InvalidateIcache(_, _, virt) => virt.0,
            _ => return None,
        };
        Some(self.location(at))
    }

    /// Where an instruction leads; `None` while that is not known.
    fn leads(&self, w: &World, t: usize, i: usize) -> Option<u64> {
        let Instruction { pc, op, .. } = &w.threads[t].decoded[i];
        match op.1 {
            Op::Jump(offset, _) => Some(pc.wrapping_add(offset as u64)),
            op if is_branch(op) => Some(self.result(w, t, i, op)?.pc),
            _ => Some(pc + 4),
        }
    }

    /// Addresses that may follow `pc` if the word there is `word`.
    fn successors(&self, pc: u64, word: u32) -> Result<Vec<u64>, Refused> {
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

    /// What may be requested next.
    fn requests(&self, w: &World, t: usize) -> Result<Vec<u64>, Refused> {
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

    fn is_code(&self, pc: u64) -> bool {
        self.words.contains_key(&pc)
    }

    /// Takes every step that only enables others; nothing if the trace ends here.
    fn settle(&self, mut w: World) -> Result<Option<World>, Refused> {
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

    /// Requests, fetches of constant words, decoding.
    fn settle_front(&self, w: &mut World, t: usize) -> Result<bool, Refused> {
        let thread = &w.threads[t];
        if !thread.ended && thread.queue.len() < FETCH_LIMIT {
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

    fn request(&self, w: &mut World, t: usize, pc: u64) {
        let thread = &mut w.threads[t];
        if !self.is_code(pc) {
            thread.ended = true;
            return;
        }
        let constant = (!self.modified.contains(&pc)).then(|| self.first(pc));
        thread.queue.push((pc, constant));
    }

    /// Whether no guess was wrong and no load has to be restarted.
    fn consistent(&self, w: &World, t: usize) -> bool {
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

    /// Barriers that can be committed, ICs that begin or are complete.
    fn settle_barriers(&self, w: &mut World, t: usize) -> bool {
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

    fn branches_known(&self, w: &World, t: usize, i: usize) -> bool {
        (0..i).all(|j| !is_branch(w.threads[t].decoded[j].op.1) || self.leads(w, t, j).is_some())
    }

    fn addresses_known(&self, w: &World, t: usize, i: usize) -> bool {
        (0..i).all(|j| {
            let is_access = matches!(w.threads[t].decoded[j].op.1, Op::Load(..) | Op::Store(..));
            !is_access || self.address(w, t, j).is_some()
        })
    }

    fn isb_ready(&self, w: &World, t: usize, i: usize) -> bool {
        let dsb = |b| matches!(b, Barrier::DsbFull | Barrier::DsbLoad | Barrier::DsbStore);
        self.branches_known(w, t, i)
            && self.addresses_known(w, t, i)
            && self.barriers_done(w, t, i, dsb)
    }

    /// Whether the barriers before `i` that `which` names are committed.
    fn barriers_done(
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

    fn barrier_ready(&self, w: &World, t: usize, i: usize, barrier: Barrier) -> bool {
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
    fn maintenance_ready(&self, w: &World, t: usize, i: usize, ic: bool) -> bool {
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

    /// Every step from here that is a choice. `found`: a store to a word of code that was not
    /// known to be modified so.
    fn steps(&self, w: &World, found: &mut Option<(u64, u32)>) -> Result<Vec<World>, Refused> {
        let mut out = Vec::new();
        for t in 0..w.threads.len() {
            let thread = &w.threads[t];
            if !thread.ended && thread.queue.len() < FETCH_LIMIT {
                for pc in self.requests(w, t)? {
                    let mut next = w.clone();
                    self.request(&mut next, t, pc);
                    out.push(next);
                }
            }
            self.fetch_steps(w, t, &mut out);
            for (by, i, word) in thread.pending.iter().copied() {
                let mut next = w.clone();
                let x = &mut next.threads[t];
                x.pending.remove(&(by, i, word));
                x.icache.retain(|write| word.is_some_and(|at| at != write.at));
                for (pc, fetched) in &mut x.queue {
                    if self.modified.contains(pc) && word.is_none_or(|at| at == *pc) {
                        *fetched = None;
                    }
                }
                out.push(next);
            }
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
                            let mut next = w.clone();
                            match self.test.idc {
                                true => {
                                    next.mem.insert(write.at, write);
                                }
                                false => next.buf.insert(0, write),
                            }
                            next.threads[t].decoded[i].state = State::Done;
                            out.push(next);
                        }
                    }
                    Op::Clean(scope, _) if self.maintenance_ready(w, t, i, false) => {
                        let at = self.address(w, t, i);
                        let mut next = w.clone();
                        let hit = |x: &Write| scope == CacheScope::All || Some(x.at) == at;
                        for write in next.buf.iter().rev().filter(|x| hit(x)) {
                            next.mem.insert(write.at, *write);
                        }
                        next.buf.retain(|x| !hit(x));
                        next.threads[t].decoded[i].state = State::Done;
                        out.push(next);
                    }
                    _ => {}
                }
            }
        }
        Ok(out)
    }

    /// Fetches of modified words, and what the instruction cache may take.
    fn fetch_steps(&self, w: &World, t: usize, out: &mut Vec<World>) {
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

    fn satisfy(
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
    fn propagates(
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

    fn is_final(&self, w: &World) -> bool {
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

fn id(t: usize, i: usize) -> u32 {
    (t as u32) << 16 | (i as u32 + 1)
}

fn cut(value: u64, bytes: u8) -> u64 {
    if bytes >= 8 { value } else { value & ((1 << (8 * bytes)) - 1) }
}
