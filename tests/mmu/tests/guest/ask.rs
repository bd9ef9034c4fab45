//! What a guest is asked, how its answer is read, and what we say.

use textbed_arch::VirtAddr;
use textbed_arch::paging::{Attempt, Format, Privilege, Refusal, Syndrome};
use textbed_mmu::cases::{CODE, Case, LEVELS, TABLES, USER_CODE, reached, va};

use crate::compare::Subject;
use crate::qemu::{Answer, Raw};

/// Where a case has what follows its entries: where to begin, the privilege, the address, a
/// register, the frame and what it has before the access, control registers.
const PC: usize = 10;
const MODE: usize = 11;
const VA: usize = 12;
const REGISTER: usize = 13;
const FRAME: usize = 14;
const BEFORE: usize = 15;
const CONTROLS: usize = 16;

/// And an answer: the register, what the frame has afterwards, and the entries.
const LOADED: usize = 4;
const AFTER: usize = 5;
pub(crate) const ENTRIES: usize = 6;

/// What came of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// It reached this physical address.
    Reached(u64),
    /// It faulted: what the handler was told, and the address.
    Fault(Syndrome, u64),
    /// It found no memory: the frame, or a table, lies where there is none.
    Nowhere,
    /// Something else, as the guest told it; never what we say.
    Strange(Answer),
}

/// An access, with the entries as it left them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) seen: Seen,
    pub(crate) entries: [u64; LEVELS],
}

/// How an access ended.
pub(crate) enum End {
    /// By the instruction behind it.
    Done,
    /// By a fault: what the handler was told, and the address.
    Fault(Syndrome, u64),
    /// By an answer of the bus.
    Nowhere,
    /// Otherwise.
    Strange,
}

/// What is an architecture's own.
pub(crate) trait Arch {
    /// Where memory begins.
    fn base(&self) -> u64 {
        0
    }
    /// What the frame at `phys` has to tell it: an instruction that loads part of its address into
    /// the register, and one that ends the access.
    fn mark(&self, phys: u64) -> u64;
    /// That part.
    fn loaded(&self, phys: u64) -> u64;
    /// The guest's word for the privilege, and its control registers.
    fn settings(&self, format: &Format, case: &Case) -> (u64, Vec<u64>);
    /// How the access ended.
    fn ended(&self, case: &Case, answer: &Answer) -> End;
    /// Entries after the access, which ended so by our tables.
    fn entries_after(
        &self,
        format: &Format,
        case: &Case,
        result: Result<u64, Refusal>,
    ) -> [u64; LEVELS];
    /// Whether the handler is told the address.
    fn tells_address(&self, _: Syndrome) -> bool {
        true
    }
    /// What this MMU makes of the case where it is known to differ from the manual, else `ours`.
    fn known(&self, _format: &Format, _case: &Case, ours: Outcome) -> Outcome {
        ours
    }
    /// Bits of an entry that an access may change or not, where the entry ended its walk.
    fn may_change(&self) -> u64 {
        0
    }
    /// Whether there is memory at a physical address.
    fn is_memory(&self, _: u64) -> bool {
        true
    }
}

/// The address that is accessed.
fn address(format: &Format, arch: &dyn Arch, case: &Case) -> u64 {
    va(format, arch.base()) | case.high
}

/// What both sides of an access are told, beside entries and control registers.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    /// Where code begins that loads; eight bytes behind it some that stores.
    pub(crate) code: u64,
    /// The guest's word for the privilege.
    pub(crate) mode: u64,
    pub(crate) va: u64,
    /// Where it is to arrive, and what is there to tell that from other places.
    pub(crate) frame: u64,
    pub(crate) mark: u64,
    /// The part of the mark that a register has if it was executed, and if it was loaded.
    pub(crate) executed: u64,
    pub(crate) loaded: u64,
    pub(crate) what: Attempt,
}

impl Access {
    /// The case as the guest reads it: entries are pairs of address and value.
    pub(crate) fn ask(&self, entries: &[(u64, u64); LEVELS], controls: &[u64]) -> Raw {
        let mut raw = [0; 24];
        for (n, (at, value)) in entries.iter().enumerate() {
            raw[2 * n] = *at;
            raw[2 * n + 1] = *value;
        }
        let (pc, register, before) = match self.what {
            Attempt::Read => (self.code, 0, self.mark),
            Attempt::Write => (self.code + 8, self.loaded, 0),
            Attempt::Exec => (self.va, 0, self.mark),
        };
        raw[PC] = pc;
        raw[MODE] = self.mode;
        raw[VA] = self.va;
        raw[REGISTER] = register;
        raw[FRAME] = self.frame;
        raw[BEFORE] = before;
        raw[CONTROLS..][..controls.len()].copy_from_slice(controls);
        raw
    }

    /// Where it arrived, if nothing stopped it: an access that went elsewhere is an answer too, and
    /// a wrong one. `stored`: what the frame has if it was stored to.
    pub(crate) fn reached(&self, answer: &Answer, stored: u64) -> Seen {
        let seen = match self.what {
            Attempt::Read => answer[LOADED] == self.loaded,
            Attempt::Write => answer[AFTER] == stored,
            Attempt::Exec => answer[LOADED] == self.executed,
        };
        Seen::Reached(if seen { self.frame } else { u64::MAX })
    }
}

/// The access of a case.
fn access(format: &Format, arch: &dyn Arch, case: &Case) -> Access {
    let frame = reached(format, case.leaf, arch.base());
    let mark = arch.mark(frame);
    Access {
        code: if case.who == Privilege::User { CODE + USER_CODE } else { CODE },
        mode: arch.settings(format, case).0,
        va: address(format, arch, case),
        frame,
        mark,
        executed: arch.loaded(frame),
        loaded: mark,
        what: case.what,
    }
}

/// What we say.
pub(crate) fn ours(format: &Format, arch: &dyn Arch, case: &Case) -> Outcome {
    let result = case.access(format, arch.base());
    let seen = match result {
        Ok(phys) if arch.is_memory(phys) => Seen::Reached(phys),
        Ok(_) => Seen::Nowhere,
        Err(why) => match format.refused(why, case.who, case.what, &case.controls) {
            Some(refused) => {
                let told = format.syndrome(&refused);
                let at = address(format, arch, case);
                Seen::Fault(told, if arch.tells_address(told) { at } else { 0 })
            }
            None => Seen::Nowhere,
        },
    };
    Outcome { seen, entries: arch.entries_after(format, case, result) }
}

/// A tree that an architecture's MMU walks.
#[derive(Clone, Copy)]
pub(crate) struct Walked<'a> {
    pub(crate) format: &'a Format,
    pub(crate) arch: &'a dyn Arch,
}

impl Subject for Walked<'_> {
    type Case = Case;

    fn name(&self) -> &'static str {
        self.format.name
    }

    fn ask(&self, case: &Case) -> Raw {
        let &Walked { format, arch } = self;
        let va = address(format, arch, case);
        let entries = std::array::from_fn(|level| {
            // Levels below the leaf: something to write that nobody reads.
            let read = level <= case.leaf;
            let at = if read { format.index(level, VirtAddr(va)) * 8 } else { 0xfff8 };
            (arch.base() + TABLES[level] + at, case.entries[level])
        });
        access(format, arch, case).ask(&entries, &arch.settings(format, case).1)
    }

    fn read(&self, case: &Case, answer: &Answer) -> Outcome {
        let &Walked { format, arch } = self;
        let seen = match arch.ended(case, answer) {
            End::Done => {
                let access = access(format, arch, case);
                access.reached(answer, access.mark)
            }
            End::Fault(told, at) => Seen::Fault(told, at),
            End::Nowhere => Seen::Nowhere,
            End::Strange => Seen::Strange(*answer),
        };
        let mut entries = case.entries;
        entries[..=case.leaf].copy_from_slice(&answer[ENTRIES..=ENTRIES + case.leaf]);
        if let Some(level) = case.access(format, arch.base()).err().and_then(Refusal::level) {
            let free = arch.may_change();
            entries[level] = entries[level] & !free | case.entries[level] & free;
        }
        Outcome { seen, entries }
    }

    fn ours(&self, case: &Case) -> Outcome {
        ours(self.format, self.arch, case)
    }

    fn taken(&self, case: &Case) -> Outcome {
        self.arch.known(self.format, case, self.ours(case))
    }

    fn column(&self, case: &Case) -> String {
        case.column(self.format)
    }
}
