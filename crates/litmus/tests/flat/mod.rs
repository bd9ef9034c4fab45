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
//! `values` has what operands are, `front` the fetch queue, `order` what waits for what, `steps`
//! the steps themselves.
//!
//! Not modelled: exceptions, mixed sizes, constrained unpredictable results.

// This file is no test by itself to clippy.
#![allow(clippy::unwrap_used)]

mod front;
mod order;
mod steps;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use textbed_arch::VirtAddr;
use textbed_litmus::kinds::Kind;
use textbed_litmus::{FaultKind, Final, Op, Test};

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

/// An operation with its word, by which it is compared and hashed.
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

    fn is_code(&self, pc: u64) -> bool {
        self.words.contains_key(&pc)
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
}
