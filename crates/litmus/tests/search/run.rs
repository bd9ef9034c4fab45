//! One run of a test on the machine, by a list of decisions.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use textbed_arch::cache::CacheGeometry;
use textbed_arch::effect::{CacheScope, Reach};
use textbed_arch::insn;
use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_litmus::{CODE_BASE, FaultKind, Final, Next, Op, Order, Registers, Test};
use textbed_machine::{DataOrder, Machine, MachineConfig, Moment};

use super::Fetches;
use super::feeds::{By, Fed};
use super::script::{Script, Shared};

/// Steps of one thread in one run; a test that needs more loops.
const MOST_STEPS: usize = 300;

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

pub(super) struct Run<'a> {
    test: &'a Test,
    machine: Machine,
    threads: Vec<Thread>,
    pub(super) script: Rc<RefCell<Script>>,
    modified: &'a BTreeSet<u64>,
    /// Words stored to code in this run.
    pub(super) stored: BTreeSet<(u64, u32)>,
    /// Those of all runs.
    ever: &'a BTreeSet<(u64, u32)>,
    /// Words stored to that were not known to be modified.
    pub(super) found: BTreeSet<u64>,
    fetches: Fetches,
    words: &'a BTreeMap<u64, u32>,
    /// Frames of memory that threads store to.
    frames: Vec<PhysAddr>,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
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
    pub(super) fn new(
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
    pub(super) fn go(&mut self, known: &mut HashSet<u128>) -> Ended {
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
