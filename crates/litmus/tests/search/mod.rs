//! Every run of a litmus test on the simulator, within a bound: schedules and the machine's own
//! choices are one list of decisions, and lists are enumerated depth first by running again. A run
//! that comes to a state in which another one was ends there.
//!
//! A thread's steps between two accesses that others can see are one step, as are the parts whose
//! moment the machine chooses itself: a clean or invalidation is issued with the step before it
//! (it takes effect anywhere up to its barrier), and an ISB is executed as early as possible (the
//! earlier, the older what a later fetch may return). Only words that some thread stores to are
//! fetched through the machine; which these are is found by running. Lines are of 4 bytes, so that
//! no two words share one, as in the models that the recorded verdicts come from.
//!
//! What registers depend on is followed, so that the machine knows which loads order what comes
//! after them; a waiting store is performed when the schedule says so.
//!
//! Not modelled: constrained unpredictable behaviour where instructions outside the list of
//! modifiable ones are modified.

// Each test file uses a part; and this file is no test by itself to clippy.
#![allow(dead_code, clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use textbed_arch::cache::CacheGeometry;
use textbed_arch::effect::{CacheScope, Reach};
use textbed_arch::insn;
use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_litmus::kinds::Kind;
use textbed_litmus::{
    Address, CODE_BASE, FaultKind, Final, If, Next, Op, Order, Quantifier, Registers, Rhs, Test,
};
use textbed_machine::{Choice, DataOrder, Machine, MachineConfig, Moment, Policy};

/// Steps of one thread in one run; a test that needs more loops.
const MOST_STEPS: usize = 300;

/// One list of decisions: a prefix that is given, then zeros; and how many options each had.
#[derive(Default)]
struct Script {
    given: Vec<usize>,
    taken: Vec<(usize, usize)>,
    /// The store that is executed may be overtaken by another one of its thread.
    overtaken: bool,
}

impl Script {
    fn ask(&mut self, options: usize) -> usize {
        if options < 2 {
            return 0;
        }
        let answer = self.given.get(self.taken.len()).copied().unwrap_or(0).min(options - 1);
        self.taken.push((answer, options));
        answer
    }

    /// The next list depth first; `None` after the last.
    fn next(&self) -> Option<Vec<usize>> {
        let last = self.taken.iter().rposition(|(answer, options)| answer + 1 < *options)?;
        let mut given: Vec<usize> = self.taken[..=last].iter().map(|(a, _)| *a).collect();
        given[last] += 1;
        Some(given)
    }
}

struct Shared(Rc<RefCell<Script>>);

impl Policy for Shared {
    fn choose(&mut self, choice: &Choice) -> usize {
        let mut script = self.0.borrow_mut();
        match choice {
            // Once a store waits, the schedule decides when it is performed.
            Choice::StoreWaits { still: true, .. } => 1,
            // What no later store of its thread can overtake need not wait.
            Choice::StoreWaits { .. } if !script.overtaken => 0,
            _ => script.ask(choice.options()),
        }
    }
}

/// Where a fetch of a modified word gets it from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetches {
    /// The machine's instruction side.
    Machine,
    /// Anything that was ever in that word: what no rule restricts.
    Anything,
}

/// What a search came to.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// `None`: the bound was reached before an answer.
    pub(crate) kind: Option<Kind>,
    /// Runs made.
    pub(crate) runs: u64,
    /// Decisions of a run that meets the condition (for `forall`: that does not).
    pub(crate) witness: Option<Vec<usize>>,
}

#[derive(Clone)]
struct Thread {
    registers: Registers,
    /// The instruction at the program counter, fetched already.
    fetched: Option<u32>,
    done: bool,
    faults: Vec<(VirtAddr, bool)>,
    steps: usize,
    fed: Fed,
}

impl Thread {
    fn hash(&self, hasher: &mut impl Hasher) {
        self.registers.hash(hasher);
        (self.fetched, self.done, &self.faults).hash(hasher);
    }
}

/// When the loads were carried out that fed a value: by its data, or by the choice between two.
#[derive(Clone, Copy, Default)]
struct By {
    data: Moment,
    choice: Moment,
}

impl By {
    fn with(self, other: By) -> By {
        By { data: self.data.max(other.data), choice: self.choice.max(other.choice) }
    }

    fn all(self) -> Moment {
        self.data.max(self.choice)
    }
}

/// What fed each register and the flags.
#[derive(Clone, Default)]
struct Fed {
    x: [By; 32],
    flags: By,
}

impl Fed {
    fn of(&self, n: u8) -> By {
        if n >= 31 { By::default() } else { self.x[usize::from(n)] }
    }

    fn set(&mut self, n: u8, by: By) {
        if n < 31 {
            self.x[usize::from(n)] = by;
        }
    }

    fn address(&self, a: Address) -> By {
        a.index.map_or(self.of(a.base), |(m, _)| self.of(a.base).with(self.of(m)))
    }

    /// What an instruction makes of it; what decided a branch, if it is one.
    fn step(&mut self, op: Op) -> Option<Moment> {
        match op {
            Op::Move(d, _) | Op::Adr(d, _) => self.set(d, By::default()),
            Op::Alu(_, _, d, n, rhs, flags) => {
                let by = match rhs {
                    Rhs::Reg(m) => self.of(n).with(self.of(m)),
                    Rhs::Imm(_) => self.of(n),
                };
                self.set(d, by);
                if flags {
                    self.flags = by;
                }
            }
            Op::Select(_, d, n, m, _, _) => {
                let by = self.of(n).with(self.of(m));
                let choice = by.choice.max(self.flags.all());
                self.set(d, By { choice, ..by });
            }
            Op::Jump(_, true) => self.set(30, By::default()),
            Op::JumpIf(test, _) => {
                return Some(match test {
                    If::Flags(_) => self.flags.all(),
                    If::Zero(t, _, _) | If::Bit(t, _, _) => self.of(t).all(),
                });
            }
            Op::JumpReg(n, link) => {
                let on = self.of(n).all();
                if link {
                    self.set(30, By::default());
                }
                return Some(on);
            }
            _ => {}
        }
        None
    }
}

struct Run<'a> {
    test: &'a Test,
    machine: Machine,
    threads: Vec<Thread>,
    script: Rc<RefCell<Script>>,
    modified: &'a BTreeSet<u64>,
    /// Words stored to code in this run.
    stored: BTreeSet<(u64, u32)>,
    /// Those of all runs.
    ever: &'a BTreeSet<(u64, u32)>,
    /// Words stored to that were not known to be modified.
    found: BTreeSet<u64>,
    fetches: Fetches,
    words: &'a BTreeMap<u64, u32>,
    /// Frames of memory that threads store to.
    frames: Vec<PhysAddr>,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Every thread came to its end.
    Whole,
    /// A thread went on for too long.
    TooLong,
    /// In a state that is known.
    Known,
}

impl Final for Run<'_> {
    fn register(&self, thread: usize, n: u8) -> u64 {
        self.threads[thread].registers.get(n)
    }

    fn memory(&self, virt: VirtAddr, bytes: u8) -> u64 {
        let mapping = self.machine.lookup(SpaceId::KERNEL, virt).unwrap();
        let phys = mapping.phys.offset(virt.page_offset());
        let mut out = [0; 8];
        self.machine.read_phys(phys, &mut out[..usize::from(bytes)]).unwrap();
        u64::from_le_bytes(out)
    }

    fn faulted(&self, thread: usize, virt: VirtAddr, kind: FaultKind) -> bool {
        let wanted = |f: &&(VirtAddr, bool)| f.0 == virt && (kind == FaultKind::Any || f.1);
        self.threads[thread].faults.iter().any(|f| wanted(&f))
    }
}

impl<'a> Run<'a> {
    fn new(
        test: &'a Test,
        given: Vec<usize>,
        modified: &'a BTreeSet<u64>,
        words: &'a BTreeMap<u64, u32>,
        ever: &'a BTreeSet<(u64, u32)>,
        fetches: Fetches,
    ) -> Self {
        let script = Rc::new(RefCell::new(Script { given, ..Script::default() }));
        let mut features = Features::ARM_EIS | Features::ARM_EOS;
        features.set(Features::ARM_IDC, test.idc);
        features.set(Features::ARM_DIC, test.dic);
        let config = MachineConfig {
            cpus: test.threads.len() as u16,
            memory_bytes: 2 << 20,
            features,
            data_order: DataOrder::Architecture,
            geometry: CacheGeometry { dline_bytes: 4, iline_bytes: 4 },
            ..MachineConfig::new(Arch::Arm64)
        };
        let mut m = Machine::new(config, Box::new(Shared(Rc::clone(&script)))).unwrap();
        let boot = CpuId(0);
        let page = |m: &mut Machine, virt: u64, perm, image: &[(u64, Vec<u8>)]| {
            let phys = m.alloc_frames(boot, 1, 12, false).unwrap().addr();
            for (offset, bytes) in image {
                m.load_image(phys.offset(*offset), bytes).unwrap();
            }
            m.map(boot, SpaceId::KERNEL, VirtAddr(virt), phys, 4096, 12, perm).unwrap();
            phys
        };
        let mut frames = BTreeMap::new();
        let mut frames_of = Vec::new();
        for t in &test.threads {
            for list in [&t.code, &t.handler] {
                let Some(first) = list.first() else { continue };
                let of = |i: &textbed_litmus::Insn| {
                    (i.virt.0 - first.virt.0, i.word.to_le_bytes().to_vec())
                };
                let image: Vec<_> = list.iter().map(of).collect();
                let virt = first.virt.0 & !0xfff;
                let phys = page(&mut m, virt, Perm::KERNEL_RWX, &image);
                frames.insert(virt, phys);
                frames_of.push(phys);
            }
        }
        for p in &test.places {
            let virt = VirtAddr(p.virt.0 & !0xfff);
            match p.alias_of {
                Some(at) => {
                    let phys = frames[&(at.0 & !0xfff)];
                    m.map(boot, SpaceId::KERNEL, virt, phys, 4096, 12, Perm::KERNEL_RW).unwrap();
                }
                None => {
                    let image = [(0, p.value.to_le_bytes().to_vec())];
                    frames_of.push(page(&mut m, virt.0, Perm::KERNEL_RW, &image));
                }
            }
        }
        // What lies before the first instruction is known to every CPU.
        for cpu in 0..test.threads.len() as u16 {
            m.op_named(CpuId(cpu), "dsb sy", 0).unwrap();
            m.op_named(CpuId(cpu), "isb", 0).unwrap();
        }
        let threads = test.threads.iter().map(|t| {
            let mut registers = Registers { pc: t.entry.0, ..Registers::default() };
            t.registers.iter().for_each(|(n, value)| registers.set(*n, *value));
            Thread {
                registers,
                fetched: None,
                done: false,
                faults: Vec::new(),
                steps: 0,
                fed: Fed::default(),
            }
        });
        Run {
            test,
            threads: threads.collect(),
            machine: m,
            script,
            modified,
            stored: BTreeSet::new(),
            ever,
            found: BTreeSet::new(),
            fetches,
            words,
            frames: frames_of,
        }
    }

    /// Runs to the end of all threads, or to a state that is in `known` already.
    fn go(&mut self, known: &mut HashSet<u128>) -> Ended {
        for t in 0..self.threads.len() {
            self.advance(t);
        }
        loop {
            // What lies before that was gone through by the run before this one.
            let fresh = {
                let script = self.script.borrow();
                script.taken.len() >= script.given.len()
            };
            if fresh && !known.insert(self.state()) {
                return Ended::Known;
            }
            let mut open: Vec<(usize, Option<usize>)> = Vec::new();
            for (t, thread) in self.threads.iter().enumerate() {
                if thread.steps > MOST_STEPS {
                    return Ended::TooLong;
                }
                if !thread.done {
                    open.push((t, None));
                }
                let waiting = self.machine.waiting_stores(CpuId(t as u16));
                open.extend((0..waiting).map(|n| (t, Some(n))));
            }
            if open.is_empty() {
                return Ended::Whole;
            }
            let n = self.script.borrow_mut().ask(open.len());
            match open[n] {
                (t, None) => {
                    self.visible(t);
                    self.advance(t);
                }
                (t, Some(n)) => self.machine.perform(CpuId(t as u16), n),
            }
        }
    }

    /// A number for the state.
    fn state(&self) -> u128 {
        let mut moments = Vec::new();
        let mut hasher = DefaultHasher::new();
        for t in &self.threads {
            t.hash(&mut hasher);
            let all = t.fed.x.iter().chain([&t.fed.flags]);
            moments.extend(all.flat_map(|by| [by.data, by.choice]));
        }
        let memory: Vec<(PhysAddr, u64)> = self.frames.iter().map(|f| (*f, 256)).collect();
        let machine = self.machine.fingerprint(&memory, &moments).unwrap();
        machine ^ u128::from(hasher.finish()) << 32
    }

    /// The instruction at the program counter if it needs no fetch through the machine.
    fn known(&self, t: usize) -> Option<Option<Op>> {
        let thread = &self.threads[t];
        let pc = thread.registers.pc;
        if let Some(word) = thread.fetched {
            return Some(Op::decode(word));
        }
        if self.modified.contains(&pc) {
            return None;
        }
        Some(self.words.get(&pc).and_then(|w| Op::decode(*w)))
    }

    /// Goes on while nothing that is to be scheduled comes.
    fn advance(&mut self, t: usize) {
        loop {
            let end = {
                let thread = &self.threads[t];
                let pc = thread.registers.pc;
                thread.done || thread.steps > MOST_STEPS || !self.is_code(pc)
            };
            if end {
                self.threads[t].done |= self.threads[t].steps <= MOST_STEPS;
                return;
            }
            match self.known(t) {
                None => return,
                Some(None) => self.fault(t, true),
                Some(Some(Op::Load(..) | Op::Store(..) | Op::Barrier(..))) => return,
                Some(Some(op)) => self.execute(t, op),
            }
        }
    }

    fn is_code(&self, pc: u64) -> bool {
        self.words.contains_key(&pc) || self.modified.contains(&pc)
    }

    /// The one step that was waited for: a fetch, or an access or barrier.
    fn visible(&mut self, t: usize) {
        match self.known(t) {
            Some(Some(op)) => self.execute(t, op),
            Some(None) => self.fault(t, true),
            None => {
                let pc = self.threads[t].registers.pc;
                let word = match self.fetches {
                    Fetches::Machine => {
                        let got = self.machine.fetch(CpuId(t as u16), VirtAddr(pc), 4).unwrap();
                        u32::from_le_bytes(got.bytes.try_into().unwrap())
                    }
                    Fetches::Anything => {
                        let mut all = vec![self.words.get(&pc).copied().unwrap_or(0)];
                        let here = self.ever.range((pc, 0)..=(pc, u32::MAX));
                        all.extend(here.map(|(_, word)| *word));
                        all[self.script.borrow_mut().ask(all.len())]
                    }
                };
                self.threads[t].fetched = Some(word);
            }
        }
    }

    fn execute(&mut self, t: usize, op: Op) {
        let cpu = CpuId(t as u16);
        let virt_pc = self.threads[t].registers.pc;
        self.threads[t].steps += 1;
        self.threads[t].fetched = None;
        let fed = &mut self.threads[t].fed;
        let on = match op {
            Op::Load(_, address, _, _) | Op::Store(_, address, _, _) => fed.address(address).data,
            Op::Clean(_, n) | Op::InvalidateIcache(_, _, n) => fed.of(n).all(),
            _ => Moment::default(),
        };
        let branch = fed.step(op);
        self.machine.depends(cpu, Some(on));
        if let Some(on) = branch {
            self.machine.branched(cpu, on);
        }
        let next = self.threads[t].registers.step(op);
        let named = |m: &mut Machine, name: &str, at: u64| m.op_named(cpu, name, at).is_ok();
        let ok = match next {
            Next::Go => true,
            Next::Load { t: register, virt, bytes, order } => {
                let mut out = [0; 8];
                let order = match order {
                    Order::Acquire | Order::AcquirePc => MemOrder::Acquire,
                    _ => MemOrder::Plain,
                };
                let some = &mut out[..usize::from(bytes)];
                let ok = self.machine.load_ordered(cpu, virt, some, order).is_ok();
                if ok {
                    self.threads[t].registers.set(register, u64::from_le_bytes(out));
                    let data = self.machine.last_load(cpu);
                    self.threads[t].fed.set(register, By { data, choice: Moment::default() });
                }
                ok
            }
            Next::Store { virt, value, bytes, order } => {
                let order = match order {
                    Order::Release => MemOrder::Release,
                    _ => MemOrder::Plain,
                };
                let value = &value.to_le_bytes()[..usize::from(bytes)];
                let overtaken = self.stores_after(t, virt_pc);
                self.script.borrow_mut().overtaken = overtaken;
                let ok = self.machine.store(cpu, virt, value, order).is_ok();
                self.stored_to(virt, value);
                ok
            }
            Next::Barrier(barrier, domain) => {
                let is = |r: &&insn::Row| {
                    r.effect == textbed_arch::effect::Effect::Barrier(barrier, domain)
                };
                let row = insn::rows(Arch::Arm64).iter().find(is).unwrap();
                self.machine.op(cpu, row, 0).is_ok()
            }
            Next::Clean(_, virt) => named(&mut self.machine, "dc cvau", virt.0),
            Next::InvalidateIcache(CacheScope::Line, _, virt) => {
                named(&mut self.machine, "ic ivau", virt.0)
            }
            Next::InvalidateIcache(CacheScope::All, Reach::Local, _) => {
                named(&mut self.machine, "ic iallu", 0)
            }
            Next::InvalidateIcache(CacheScope::All, Reach::Broadcast, _) => {
                named(&mut self.machine, "ic ialluis", 0)
            }
            Next::Isb => named(&mut self.machine, "isb", 0),
            Next::Eret => named(&mut self.machine, "eret", 0),
            Next::Trap(_) => false,
        };
        if !ok {
            self.threads[t].registers.pc = virt_pc;
            self.fault(t, next == Next::Trap(true));
        }
    }

    /// Whether a store stands behind an address in a thread's own code.
    fn stores_after(&self, t: usize, pc: u64) -> bool {
        let is_store = |word| matches!(Op::decode(word), Some(Op::Store(..)));
        self.test.threads[t].code.iter().any(|i| i.virt.0 > pc && is_store(i.word))
    }

    /// A store to code: its words are fetched through the machine from now on.
    fn stored_to(&mut self, virt: VirtAddr, value: &[u8]) {
        let alias = |p: &&textbed_litmus::Place| p.virt.0 == virt.0 & !3 && p.alias_of.is_some();
        let at = match self.test.places.iter().find(alias) {
            Some(p) => p.alias_of.unwrap().0,
            None => virt.0 & !3,
        };
        if !(CODE_BASE..textbed_litmus::DATA_BASE).contains(&at) {
            return;
        }
        if let Ok(word) = value.try_into() {
            self.stored.insert((at, u32::from_le_bytes(word)));
        }
        if !self.modified.contains(&at) {
            self.found.insert(at);
        }
    }

    /// Takes an exception: to the thread's handler, or the thread ends.
    fn fault(&mut self, t: usize, undefined: bool) {
        let pc = VirtAddr(self.threads[t].registers.pc);
        self.machine.exception_entry(CpuId(t as u16));
        let handler = self.test.threads[t].handler_entry();
        let thread = &mut self.threads[t];
        thread.fetched = None;
        thread.steps += 1;
        thread.faults.push((pc, undefined));
        match handler {
            Some(at) => {
                thread.registers.elr = pc.0;
                thread.registers.pc = at.0;
            }
            None => thread.done = true,
        }
    }
}

/// What a walk over all runs came to.
pub(crate) struct Walk {
    /// Every run was made; else the bound was reached, or the visitor stopped it.
    pub(crate) whole: bool,
    pub(crate) runs: u64,
    /// Decisions of the run at which the visitor stopped.
    pub(crate) stopped: Option<Vec<usize>>,
}

/// Shows every final state to `visit`, until it says stop (`true`), at most so many runs.
pub(crate) fn walk(
    test: &Test,
    fetches: Fetches,
    most: u64,
    mut visit: impl FnMut(&dyn Final) -> bool,
) -> Walk {
    let mut words = BTreeMap::new();
    for t in &test.threads {
        words.extend(t.all().map(|i| (i.virt.0, i.word)));
    }
    let (mut modified, mut ever) = (BTreeSet::new(), BTreeSet::new());
    let mut runs = 0;
    'again: loop {
        let mut given = Vec::new();
        let mut known = HashSet::new();
        loop {
            if runs >= most {
                return Walk { whole: false, runs, stopped: None };
            }
            runs += 1;
            let mut run = Run::new(test, given, &modified, &words, &ever, fetches);
            let ended = run.go(&mut known);
            if !run.found.is_empty() || !run.stored.is_subset(&ever) {
                let (mut found, mut stored) = (run.found, run.stored);
                modified.append(&mut found);
                ever.append(&mut stored);
                continue 'again;
            }
            if ended == Ended::Whole && visit(&run) {
                let taken = run.script.borrow().taken.iter().map(|(a, _)| *a).collect();
                return Walk { whole: false, runs, stopped: Some(taken) };
            }
            let next = run.script.borrow().next();
            match next {
                Some(next) => given = next,
                None => return Walk { whole: true, runs, stopped: None },
            }
        }
    }
}

/// Enumerates runs until the answer is known, at most so many.
pub(crate) fn decide(test: &Test, fetches: Fetches, most: u64) -> Verdict {
    let forall = test.condition.quantifier == Quantifier::ForAll;
    let mut all = true;
    let walk = walk(test, fetches, most, |state| {
        let holds = test.condition.formula.holds(state);
        all &= holds;
        holds != forall
    });
    let kind = match (walk.whole, &walk.stopped) {
        (false, None) => None,
        (_, stopped) => {
            let any = stopped.is_some() != forall;
            Some(Kind::of(test.condition.quantifier, any, all))
        }
    };
    Verdict { kind, runs: walk.runs, witness: walk.stopped }
}
