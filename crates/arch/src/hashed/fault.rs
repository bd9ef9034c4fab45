//! What a CPU tells its fault handler about an access that its hashed table refused: DSISR for
//! data, bits of SRR1 for fetches, and the vector. Rows; what is set is the union.

use super::{HashFormat, HashRefusal};
use crate::cite::Cite;
use crate::paging::{Attempt, Syndrome};

/// Part of a syndrome.
#[derive(Debug)]
pub struct HashSyndromeRow {
    /// What the manual calls it.
    pub name: &'static str,
    /// The bit.
    pub bit: u64,
    /// When it is set.
    pub when: fn(HashRefusal, Attempt) -> bool,
    /// Where it is defined.
    pub cite: Cite,
}

const SET: Cite = Cite::read("QEMU target/ppc/mmu-hash64.c ppc_hash64_handle_mmu_fault()");
const KEY: Cite = Cite::read("QEMU target/ppc/mmu-hash64.c (DSISR_AMR, SRR1_IAMR)");

const fn row(
    name: &'static str,
    bit: u64,
    when: fn(HashRefusal, Attempt) -> bool,
    cite: Cite,
) -> HashSyndromeRow {
    HashSyndromeRow { name, bit, when, cite }
}

/// The parts of syndromes.
#[rustfmt::skip]
pub static HASH_SYNDROME_ROWS: &[HashSyndromeRow] = &[
    row("no entry", 0x4000_0000, |why, _| why == HashRefusal::NoEntry, SET),
    row("no execution", 0x1000_0000, |why, what| barred(why) || direct_fetch(why, what), SET),
    row("protection", 0x0800_0000, |why, _| by_protection(why) && !barred(why), SET),
    row("key", 0x0020_0000, |why, _| matches!(why, HashRefusal::Rights { key: true, .. }), KEY),
    row("store", 0x0200_0000,
        |why, what| what == Attempt::Write && why != HashRefusal::NoSegment, SET),
];

fn barred(why: HashRefusal) -> bool {
    matches!(why, HashRefusal::Segment | HashRefusal::Rights { no_execute: true, .. })
}

fn direct_fetch(why: HashRefusal, what: Attempt) -> bool {
    why == HashRefusal::DirectStore && what == Attempt::Exec
}

fn by_protection(why: HashRefusal) -> bool {
    matches!(why, HashRefusal::Rights { protection: true, .. })
}

impl HashFormat {
    /// What the handler is told; `None` where nothing is known: a group outside of memory, data of
    /// a direct-store segment.
    #[must_use]
    pub fn syndrome(&self, why: HashRefusal, what: Attempt) -> Option<Syndrome> {
        let fetch = what == Attempt::Exec;
        let vector = match why {
            HashRefusal::OutsideMemory { .. } => return None,
            HashRefusal::DirectStore if !fetch => return None,
            HashRefusal::NoSegment if fetch => 0x480,
            HashRefusal::NoSegment => 0x380,
            _ if fetch => 0x400,
            _ => 0x300,
        };
        let rows = HASH_SYNDROME_ROWS.iter().filter(|row| (row.when)(why, what));
        Some(Syndrome { vector, code: rows.fold(0, |code, row| code | row.bit) })
    }
}
