//! x86 replacement of live instructions: the INT3 protocol.
//!
//! Modelled: the vector of pending replacements in address order, its early flush, the checks of
//! new instructions, the three phases with one write for each entry and a synchronisation of all
//! CPUs behind each phase that wrote, the handler that other CPUs run into and the references that
//! keep it alive. Others may run between any two writes. From: Linux 7.0
//! arch/x86/kernel/alternative.c smp_text_poke_batch_finish() and below, 5.19, 6.1, 6.6 and 6.12
//! text_poke_bp_batch(), which does the same under other names, but that text_poke_bp() has a
//! vector of its own: what is queued stays so. On demand a single replacement joins the vector
//! whatever the order (2aebf5ee43bf). Not modelled: perf events, NMIs, the spin at the end
//! (no handler is still running then: each runs whole).

use std::cmp::Ordering;

use textbed_arch::{CpuId, VirtAddr};
use textbed_event::{Flags, View};

use crate::call::Args;
use crate::caps::Fact;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::steps::{Step, cross_step, step, step_then_others};
use crate::traps::Resume;
use crate::x86::text_poke::{What, text_poke_sync};

/// Most entries of a vector: a page of 16 bytes each.
pub(crate) const MOST_ENTRIES: usize = 256;
const INT3: u8 = 0xcc;
const CALL: u8 = 0xe8;
const JMP32: u8 = 0xe9;
const JMP8: u8 = 0xeb;
const RET: u8 = 0xc3;
const ESCAPE: u8 = 0x0f;
/// The two no-operations that are known (`x86_nops`).
const NOP2: [u8; 2] = [0x66, 0x90];
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// One replacement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    addr: VirtAddr,
    /// All new bytes.
    text: Vec<u8>,
    /// What the handler does meanwhile.
    emulate: Emulate,
}

/// What stands in for an instruction that is being replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Emulate {
    /// A breakpoint that somebody else wants.
    Nothing,
    Return,
    Call(i32),
    Jump(i32),
    Conditional(u8, i32),
}

/// The pending vector, and whether its handler may be found.
#[derive(Clone, Default, Debug)]
pub(crate) struct Batch {
    entries: Vec<Entry>,
    /// What was queued when a single replacement with a vector of its own began.
    aside: Vec<Entry>,
    /// The references are held.
    live: bool,
}

impl Batch {
    /// What a search by halves finds, as `__inline_bsearch` goes: all of it while it is in order.
    fn find(&self, virt: VirtAddr) -> Option<&Entry> {
        let mut rest = self.entries.as_slice();
        while !rest.is_empty() {
            let (before, from) = rest.split_at(rest.len() / 2);
            let (pivot, after) = from.split_first()?;
            match virt.cmp(&pivot.addr) {
                Ordering::Equal => return Some(pivot),
                Ordering::Less => rest = before,
                Ordering::Greater => rest = after,
            }
        }
        None
    }

    /// What the handler does about a trap at an address.
    pub(crate) fn handle(&self, virt: VirtAddr) -> Option<Resume> {
        let entry = self.find(virt).filter(|_| self.live)?;
        let next = virt.offset(entry.text.len() as u64);
        let to = |disp: i32| VirtAddr(next.0.wrapping_add_signed(i64::from(disp)));
        match entry.emulate {
            Emulate::Nothing => None,
            Emulate::Return => Some(Resume::Return),
            Emulate::Call(disp) => Some(Resume::Call { to: to(disp), back: next }),
            Emulate::Jump(disp) => Some(Resume::At(to(disp))),
            Emulate::Conditional(condition, disp) => {
                Some(Resume::Jump { condition, to: to(disp), next })
            }
        }
    }
}

/// `text_poke_bp(addr, opcode, len)`, `smp_text_poke_single(addr, opcode, len)`.
pub(crate) fn single(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let entry = k.batch_entry(args.addr(0), args.code())?;
    k.batch_single(entry)
}

/// `text_poke_queue(addr, opcode, len)`, `smp_text_poke_batch_add(addr, opcode, len)`.
pub(crate) fn queue(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let entry = k.batch_entry(args.addr(0), args.code())?;
    let steps = k.batch_add(entry);
    if steps.is_empty() { Ok(0) } else { k.with_steps(steps) }
}

/// `text_poke_finish()`, `smp_text_poke_batch_finish()`.
pub(crate) fn finish(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    if k.batch.entries.is_empty() {
        return Ok(0);
    }
    k.machine.needs_lock(cpu, "text_mutex");
    k.with_steps(vec![start_step()])
}

/// Emits the steps of the protocol for what is pending then.
fn start_step() -> Step {
    step(|k, cpu| {
        let steps = k.protocol(cpu);
        k.later(steps);
        Ok(())
    })
}

impl Kernel {
    /// A replacement, checked as `text_poke_loc_init` does; what it does not know is a BUG.
    pub(crate) fn batch_entry(&self, addr: VirtAddr, code: &[u8]) -> Result<Entry, Stop> {
        let bug = |what: &str| Err(Stop::died(format!("BUG in text_poke_loc_init: {what}"), addr));
        let disp8 = || code.get(1).map(|b| i32::from(*b as i8));
        let disp32 = |at: usize| {
            let four = code.get(at..at + 4)?;
            Some(i32::from_le_bytes(four.try_into().ok()?))
        };
        let jcc = self.caps.yes(Fact::PokesConditional);
        // Length of the instruction, and what stands in for it.
        let known = match code {
            [INT3, ..] => Some((1, Emulate::Nothing)),
            [RET, ..] => Some((1, Emulate::Return)),
            [CALL, ..] => disp32(1).map(|d| (5, Emulate::Call(d))),
            [JMP32, ..] => disp32(1).map(|d| (5, Emulate::Jump(d))),
            [JMP8, ..] => disp8().map(|d| (2, Emulate::Jump(d))),
            [c @ 0x70..=0x7f, ..] if jcc => disp8().map(|d| (2, Emulate::Conditional(c & 0xf, d))),
            [ESCAPE, c @ 0x80..=0x8f, ..] if jcc => {
                disp32(2).map(|d| (6, Emulate::Conditional(c & 0xf, d)))
            }
            code if code == NOP2 => Some((2, Emulate::Jump(0))),
            code if code == NOP5 => Some((5, Emulate::Jump(0))),
            _ => None,
        };
        let Some((len, emulate)) = known else { return bug("an instruction it does not know") };
        let tail = code.get(len..).unwrap_or(&[]);
        let may_pad = matches!(emulate, Emulate::Return | Emulate::Jump(_));
        if tail.iter().any(|b| *b != INT3) || (!tail.is_empty() && !may_pad) {
            return bug("wrong bytes behind the instruction");
        }
        const ROOM: usize = 6;
        if code.len() > ROOM {
            return bug("more bytes than an entry has room for");
        }
        Ok(Entry { addr, text: code.to_vec(), emulate })
    }

    /// Steps of replacing one instruction: from 6.16 on what is pending already with it.
    fn batch_single(&mut self, entry: Entry) -> Result<i64, Stop> {
        if self.there("smp_text_poke_single") {
            let mut steps = if self.config.on("skip_text_poke_order") {
                self.batch.entries.push(entry);
                Vec::new()
            } else {
                self.batch_add(entry)
            };
            steps.push(start_step());
            return self.with_steps(steps);
        }
        self.batch.aside = std::mem::replace(&mut self.batch.entries, vec![entry]);
        let back = step(|k, _| {
            k.batch.entries = std::mem::take(&mut k.batch.aside);
            Ok(())
        });
        self.with_steps(vec![start_step(), back])
    }

    /// Adds an entry. Where the vector is full or would be out of order what is pending has to be
    /// finished first: then by the steps that come back.
    pub(crate) fn batch_add(&mut self, entry: Entry) -> Vec<Step> {
        let last = self.batch.entries.last();
        let ordered = last.is_none_or(|last| last.addr <= entry.addr);
        if ordered && self.batch.entries.len() < MOST_ENTRIES {
            self.batch.entries.push(entry);
            return Vec::new();
        }
        vec![
            start_step(),
            step(move |k, _| {
                k.batch.entries.push(entry.clone());
                Ok(())
            }),
        ]
    }

    /// The three phases for the entries that are pending now.
    fn protocol(&mut self, cpu: CpuId) -> Vec<Step> {
        let entries = self.batch.entries.clone();
        self.machine.needs_lock(cpu, "text_mutex");
        self.batch.live = true;
        for entry in &entries {
            let len = u16::try_from(entry.text.len()).unwrap_or(u16::MAX);
            let (old_len, new_len) = (len, len);
            if self.batch.find(entry.addr).is_some() {
                self.machine.trap_handler(cpu, entry.addr, u32::from(len), true);
            }
            let site = View::PatchSite { virt: entry.addr, old_len, new_len, handler: true };
            self.emit(cpu, Flags::default(), site);
        }
        let mut steps = Vec::new();
        for entry in &entries {
            steps.push(poke_step(entry.addr, vec![INT3]));
        }
        self.sync_step(1, &mut steps);
        let mut tails = false;
        for entry in entries.iter().filter(|e| e.text.len() > 1) {
            tails = true;
            let tail = entry.text.get(1..).unwrap_or(&[]).to_vec();
            steps.push(poke_step(entry.addr.offset(1), tail));
        }
        if tails {
            self.sync_step(2, &mut steps);
        }
        let mut firsts = false;
        for entry in entries.iter().filter(|e| e.text.first() != Some(&INT3)) {
            firsts = true;
            steps.push(poke_step(entry.addr, entry.text.get(..1).unwrap_or(&[]).to_vec()));
        }
        if firsts {
            self.sync_step(3, &mut steps);
        }
        steps.push(step(|k, cpu| {
            k.batch.live = false;
            let found: Vec<bool> =
                k.batch.entries.iter().map(|e| k.batch.find(e.addr).is_some()).collect();
            for (entry, found) in std::mem::take(&mut k.batch.entries).into_iter().zip(found) {
                let len = u32::try_from(entry.text.len()).unwrap_or(u32::MAX);
                if found {
                    k.machine.trap_handler(cpu, entry.addr, len, false);
                }
                k.noted.push((entry.addr, u64::from(len)));
            }
            Ok(())
        }));
        steps
    }

    /// The synchronisation behind a phase, unless the option that seeds a mistake leaves it out.
    fn sync_step(&self, phase: u64, steps: &mut Vec<Step>) {
        if self.config.count("skip_text_poke_sync") == phase {
            return;
        }
        steps.push(cross_step(|k, cpu| text_poke_sync(k, cpu, &Args::default()).map(|_| ())));
    }
}

/// One write of the protocol.
fn poke_step(addr: VirtAddr, bytes: Vec<u8>) -> Step {
    step_then_others(move |k, cpu| k.poke(cpu, addr, What::Bytes(&bytes)))
}
