//! Hashed tables: cases of segment, entries and keys, what is asked of a guest, what we say.
//!
//! Everything that is not of one machine: `hashed64` and `hashed32` have these.

use textbed_arch::hashed::{
    Block, Found, HASH_SYNDROME_ROWS, HashEntry, HashFormat, HashMmu, HashRefusal, HashTable, Keys,
    Part, Rights, Segment, Words,
};
use textbed_arch::paging::{Attempt, Privilege};
use textbed_arch::{PhysAddr, VirtAddr};
use textbed_mmu::cases::{LEVELS, Rng, WHAT, WHO};

use crate::ask::{Access, ENTRIES, End, Outcome, Seen};
use crate::compare::{Answered, Subject, catch};
use crate::qemu::{Answer, Raw};

/// Entries that a case puts into the table.
pub(crate) const MOST: usize = 2;

/// One access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// The words that make the segment of the address (valid or not).
    pub(crate) segment: Words,
    pub(crate) va: u64,
    /// Entries and where they are.
    pub(crate) entries: [(u64, Words); MOST],
    /// Where the access arrives if it does.
    pub(crate) frame: u64,
    /// Registers of a block of data and of one of fetches (32-bit).
    pub(crate) blocks: [Words; 2],
    pub(crate) keys: Keys,
    pub(crate) who: Privilege,
    pub(crate) what: Attempt,
    /// What it is counted under.
    pub(crate) column: &'static str,
}

/// What is a machine's own.
pub(crate) trait Machine {
    fn table(&self) -> HashTable;
    /// The access, without what the case says.
    fn access(&self, case: &Case) -> Access;
    fn controls(&self, case: &Case) -> Vec<u64>;
    fn ended(&self, case: &Case, answer: &Answer) -> End;
    /// What the frame has after a store.
    fn stored(&self, mark: u64) -> u64;
    /// What this MMU makes of the case where it is known to differ from the manual, else `ours`.
    fn known(&self, _: &HashFormat, _: &Case, ours: Outcome) -> Outcome {
        ours
    }
}

/// The words of a case's entries with their addresses; the fifth is one that nobody reads.
fn stored_words(format: &HashFormat, machine: &dyn Machine, case: &Case) -> [(u64, u64); LEVELS] {
    let spare = machine.table().base.0 + format.table_bytes(machine.table());
    std::array::from_fn(|n| match case.entries.get(n / 2) {
        Some((at, words)) => (at + (n as u64 & 1) * format.word_bytes, words[n & 1]),
        None => (spare, 0),
    })
}

/// Our lookup over the case's entries; everything else in the table is empty.
pub(crate) fn result(
    format: &HashFormat,
    machine: &dyn Machine,
    case: &Case,
) -> Result<Found, HashRefusal> {
    let segments: Vec<Segment> = format.segment(case.segment).into_iter().collect();
    let blocks: [Vec<Block>; 2] = case.blocks.map(|b| format.block(b).into_iter().collect());
    let mmu = HashMmu {
        table: machine.table(),
        segments: &segments,
        data_blocks: &blocks[0],
        fetch_blocks: &blocks[1],
        keys: case.keys,
    };
    let words = stored_words(format, machine, case);
    let mut read = |addr: PhysAddr| {
        let found = words[..2 * MOST].iter().find(|(at, _)| *at == addr.0);
        Some(found.map_or(0, |(_, value)| *value))
    };
    format.access(&mmu, VirtAddr(case.va), case.who, case.what, &mut read)
}

/// What we say.
pub(crate) fn ours(format: &HashFormat, machine: &dyn Machine, case: &Case) -> Outcome {
    let mut words = stored_words(format, machine, case).map(|(_, value)| value);
    words[2 * MOST..].fill(0);
    let seen = match result(format, machine, case) {
        Ok(found) => {
            if let Some(slot) = found.slot {
                let new = format.accessed(slot.words, case.what);
                for (n, (at, _)) in case.entries.iter().enumerate() {
                    if *at == slot.addr.0 {
                        words[2 * n..][..2].copy_from_slice(&new);
                    }
                }
            }
            Seen::Reached(found.phys.0)
        }
        Err(why) => match format.syndrome(why, case.what) {
            Some(told) => {
                // A handler of a fetch finds the address elsewhere; both machines tell it.
                Seen::Fault(told, case.va)
            }
            None => Seen::Nowhere,
        },
    };
    Outcome { seen, entries: words }
}

/// A table that a machine looks up.
#[derive(Clone, Copy)]
pub(crate) struct Looked<'a> {
    pub(crate) format: &'a HashFormat,
    pub(crate) machine: &'a dyn Machine,
}

impl Subject for Looked<'_> {
    type Case = Case;

    fn name(&self) -> &'static str {
        self.format.name
    }

    fn ask(&self, case: &Case) -> Raw {
        let entries = stored_words(self.format, self.machine, case);
        self.machine.access(case).ask(&entries, &self.machine.controls(case))
    }

    fn read(&self, case: &Case, answer: &Answer) -> Outcome {
        let access = self.machine.access(case);
        let seen = match self.machine.ended(case, answer) {
            End::Done => access.reached(answer, self.machine.stored(access.mark)),
            End::Fault(told, at) => Seen::Fault(told, at),
            End::Nowhere => Seen::Nowhere,
            End::Strange => Seen::Strange(*answer),
        };
        let mut entries = [0; LEVELS];
        entries[..2 * MOST].copy_from_slice(&answer[ENTRIES..][..2 * MOST]);
        Outcome { seen, entries }
    }

    fn ours(&self, case: &Case) -> Outcome {
        ours(self.format, self.machine, case)
    }

    fn taken(&self, case: &Case) -> Outcome {
        self.machine.known(self.format, case, self.ours(case))
    }

    fn column(&self, case: &Case) -> String {
        format!("{} {:?} {:?}", case.column, case.who, case.what).to_lowercase()
    }
}

/// Every wrong table must be caught.
pub(crate) fn catch_tables(
    machine: &dyn Machine,
    seeds: &[(String, HashFormat)],
    answered: &[Answered<Case>],
) {
    let wrong = seeds.iter().map(|(what, format)| (what.as_str(), Looked { format, machine }));
    catch(wrong, answered);
}

/// Every part of a syndrome but `never` must have been told of some access.
pub(crate) fn syndromes(
    &Looked { format, machine }: &Looked<'_>,
    answered: &[Answered<Case>],
    never: &[&str],
) {
    for row in HASH_SYNDROME_ROWS.iter().filter(|row| !never.contains(&row.name)) {
        let told = |a: &&Answered<Case>| {
            let why = result(format, machine, &a.case).err();
            why.is_some_and(|why| (row.when)(why, a.case.what))
        };
        let n = answered.iter().filter(told).count();
        println!("  {} tells {}: {n} faults", format.name, row.name);
        assert!(n > 0, "{}: {} is told of no access", format.name, row.name);
    }
}

/// A segment and a page in it, from which cases are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) segment: Segment,
    pub(crate) va: u64,
    pub(crate) entry: HashEntry,
    pub(crate) column: &'static str,
}

impl Page {
    /// A case with the page's entry in a slot of a group.
    pub(crate) fn case(
        &self,
        format: &HashFormat,
        table: HashTable,
        (slot, secondary): (u64, bool),
        who: Privilege,
        what: Attempt,
    ) -> Case {
        let va = VirtAddr(self.va);
        let words = format.encode_entry(&self.segment, va, &self.entry, secondary).unwrap();
        let group = format.group(table, &self.segment, va, secondary).unwrap().0;
        let place = |slot: u64| group + (slot & 7) * format.entry_bytes();
        let entries = [(place(slot), words), (place(slot + 1), [0; 2])];
        let segment = format.encode_segment(&self.segment).unwrap();
        let frame = self.entry.frame.0 | self.va & ((1 << self.entry.shift) - 1);
        let (blocks, keys) = ([[0; 2]; 2], Keys::default());
        Case { segment, va: self.va, entries, frame, blocks, keys, who, what, column: self.column }
    }
}

/// Rights by number, the lowest bits first: protection, then N and G where there are such.
pub(crate) fn rights(protections: u64, n: u64) -> Rights {
    Rights {
        protection: n % protections,
        no_execute: (n / protections) & 1 == 1,
        guarded: (n / protections) & 2 == 2,
        key: 0,
    }
}

/// Every privilege and access.
pub(crate) fn accesses() -> impl Iterator<Item = (Privilege, Attempt)> {
    WHO.into_iter().flat_map(|who| WHAT.into_iter().map(move |what| (who, what)))
}

/// Makes a case one that may miss: another bit of an entry or segment, another place, a second
/// entry before or behind it.
pub(crate) fn disturb(format: &HashFormat, table: HashTable, case: &mut Case, rng: &mut Rng) {
    let bits = 8 * format.word_bytes as usize;
    let bit = 1 << rng.below(bits);
    match rng.below(8) {
        // Of what is compared.
        0 | 1 => case.entries[0].1[0] ^= bit,
        // A size code, or bits of the frame below it; the segment's size.
        2 if rng.one_in(2) => {
            let low = if format.word_bytes == 8 { 12 + rng.below(12) } else { 0 };
            case.entries[0].1[1] ^= 1 << low;
        }
        2 => {
            let size = format.entry.iter().find(|f| f.part == Part::SegmentSize);
            if let Some(field) = size {
                case.entries[0].1[field.word] ^= 1 << (field.lo_bit as usize + rng.below(2));
            }
        }
        3 => {
            let groups = 1u64 << table.group_bits;
            let group = GROUP_WORDS * format.word_bytes;
            let other = rng.next() & (groups - 1);
            case.entries[0].0 = table.base.0 + other * group + case.entries[0].0 % group;
        }
        // A second one: the same with other rights, before or behind; or nearly the same.
        4 | 5 => {
            let mut other = case.entries[0].1;
            other[1] ^= 3;
            if rng.one_in(2) {
                other[0] ^= bit;
            }
            case.entries[1].1 = other;
            if rng.one_in(2) {
                let [(a, x), (b, y)] = case.entries;
                case.entries = [(a, y), (b, x)];
            }
        }
        _ => {}
    }
}

/// Makes the place where a case is looked for the one where it arrives by what we say, if it does.
pub(crate) fn arrive(format: &HashFormat, machine: &dyn Machine, case: &mut Case) {
    if let Ok(found) = result(format, machine, case) {
        case.frame = found.phys.0;
    }
}

/// Words of a group.
const GROUP_WORDS: u64 = 16;
