//! What a CPU tells its fault handler about an access that it refused: x86's error code, arm64's
//! ESR, powerpc's DSISR (data) or the bits of SRR1 (fetches), and the vector.
//!
//! Each bit is a row: of which architecture, and when it is set. What is set is the union. Held
//! against QEMU 7.2: `tests/mmu/ORACLE.md`.
//!
//! Not modelled: x86's SGX and shadow-stack bits, arm64's external aborts of a walk, faults of the
//! alignment and of stage 2, instruction syndromes (ISV), powerpc's partition-scoped faults. A walk
//! that leaves memory has no syndrome here.

use super::{Attempt, Controls, Format, Privilege, WalkFault, Why};
use crate::cite::Cite;
use crate::insn::Family;

/// Why an access is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There is no translation.
    Walk(WalkFault),
    /// There is one, and it does not grant this.
    Rights {
        /// The leaf's level.
        level: usize,
        /// Whether the leaf's protection key denies it, whatever else does.
        key: bool,
    },
}

impl Refusal {
    /// Level of the entry that ended it; `None` for an address outside of the tree.
    #[must_use]
    pub fn level(self) -> Option<usize> {
        match self {
            Refusal::Rights { level, .. }
            | Refusal::Walk(
                WalkFault::NotPresent { level }
                | WalkFault::Malformed { level, .. }
                | WalkFault::AccessFlag { level }
                | WalkFault::AddressSize { level }
                | WalkFault::OutsideMemory { level, .. },
            ) => Some(level),
            Refusal::Walk(WalkFault::NonCanonical) => None,
        }
    }
}

/// What the handler is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Syndrome {
    /// x86: number of the exception. arm64: offset of the vector, as exceptions to EL1 have it.
    /// powerpc: address of the interrupt vector.
    pub vector: u32,
    /// x86: the error code. arm64: ESR. powerpc: DSISR, or for fetches bits 33 to 47 of SRR1.
    pub code: u64,
}

/// An access that was refused.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// Who tried.
    pub who: Privilege,
    /// What was tried.
    pub what: Attempt,
    /// Levels of the tree.
    pub levels: usize,
    /// Whether x86's I/D bit means something: EFER.NXE or CR4.SMEP.
    pub fetch_told: bool,
}

/// Part of a syndrome.
#[derive(Debug)]
pub struct SyndromeRow {
    /// What the manual calls it.
    pub name: &'static str,
    /// Architecture.
    pub family: Family,
    /// Bits that are set.
    pub bits: fn(&Refused) -> u64,
    /// Where it is defined.
    pub cite: Cite,
}

/// Why there is a vector of its own.
#[derive(Debug)]
pub struct VectorRow {
    /// What the manual calls it.
    pub name: &'static str,
    /// Architecture.
    pub family: Family,
    /// The vector.
    pub vector: u32,
    /// Whether this refusal goes there.
    pub takes: fn(&Refused) -> bool,
    /// Where it is defined.
    pub cite: Cite,
}

const PF: Cite = Cite::read(
    "SDM 3A 4.7 (253668-032: RSVD only with P); Linux 7.0 arch/x86/include/asm/trap_pf.h",
);
const TRAP: Cite = Cite::read("Linux 7.0 arch/x86/include/asm/trapnr.h");
const ESR: Cite =
    Cite::read("Linux 7.0 arch/arm64/include/asm/esr.h (ESR_ELx_EC, _IL, _FSC, _WNR)");
const ENTRY: Cite = Cite::read("Linux 7.0 arch/arm64/kernel/entry.S (vectors)");
const DSISR: Cite = Cite::read("Linux 7.0 arch/powerpc/include/asm/reg.h (DSISR_, SRR1_ISI_)");
/// Linux has another bit of SRR1 for `other protection faults`; QEMU sets this one for every fetch
/// that the leaf refuses.
const NO_FETCH: Cite = Cite::deduced("reg.h (SRR1_ISI_N_G_OR_CIP); what QEMU 7.2 sets");
const EXCEPTIONS: Cite = Cite::read("Linux 7.0 arch/powerpc/kernel/exceptions-64s.S");

impl Refused {
    fn fetch(&self) -> bool {
        self.what == Attempt::Exec
    }

    fn rights(&self) -> bool {
        matches!(self.why, Refusal::Rights { .. })
    }

    fn non_canonical(&self) -> bool {
        self.why == Refusal::Walk(WalkFault::NonCanonical)
    }

    /// Level at which it ended, as arm64 counts: 3 is the last. An address outside of the tree is
    /// refused at level 0.
    fn arm_level(&self) -> i64 {
        let Some(level) = self.why.level() else { return 0 };
        level as i64 + 4 - self.levels as i64
    }
}

const fn when(yes: bool, bits: u64) -> u64 {
    if yes { bits } else { 0 }
}

/// The parts of syndromes.
#[rustfmt::skip]
pub static SYNDROME_ROWS: &[SyndromeRow] = &[
    r("P", Family::X86, |r| when(r.rights() || reserved(r), 1), PF),
    r("W/R", Family::X86, |r| when(r.what == Attempt::Write && !r.non_canonical(), 1 << 1), PF),
    r("U/S", Family::X86, |r| when(r.who == Privilege::User && !r.non_canonical(), 1 << 2), PF),
    r("RSVD", Family::X86, |r| when(reserved(r), 1 << 3), PF),
    r("I/D", Family::X86, |r| when(r.fetch() && r.fetch_told && !r.non_canonical(), 1 << 4), PF),
    r("PK", Family::X86, |r| when(matches!(r.why, Refusal::Rights { key: true, .. }), 1 << 5), PF),
    r("EC: instruction abort", Family::Arm64, |r| when(r.fetch(), 0x20 << 26), ESR),
    r("EC: data abort", Family::Arm64, |r| when(!r.fetch(), 0x24 << 26), ESR),
    r("EC: without a change of level", Family::Arm64,
        |r| when(r.who == Privilege::Kernel, 1 << 26), ESR),
    r("IL", Family::Arm64, |_| 1 << 25, ESR),
    r("WnR", Family::Arm64, |r| when(r.what == Attempt::Write, 1 << 6), ESR),
    r("IFSC, DFSC", Family::Arm64, arm_status, ESR),
    r("no translation", Family::Powerpc,
        |r| when(matches!(r.why, Refusal::Walk(WalkFault::NotPresent { .. })), 0x4000_0000), DSISR),
    r("storage protection", Family::Powerpc, |r| when(r.rights() && !r.fetch(), 0x0800_0000),
        DSISR),
    r("no execution", Family::Powerpc, |r| when(r.rights() && r.fetch(), 0x1000_0000), NO_FETCH),
    r("store", Family::Powerpc,
        |r| when(r.what == Attempt::Write && !r.non_canonical(), 0x0200_0000), DSISR),
    r("unsupported configuration", Family::Powerpc,
        |r| when(matches!(r.why, Refusal::Walk(WalkFault::Malformed { .. })), 0x0008_0000), DSISR),
];

/// The vectors; the first that takes a refusal is its.
#[rustfmt::skip]
pub static VECTOR_ROWS: &[VectorRow] = &[
    v("#GP", Family::X86, 13, Refused::non_canonical, TRAP),
    v("#PF", Family::X86, 14, |_| true, TRAP),
    v("synchronous, current level with SP_ELx", Family::Arm64, 0x200,
        |r| r.who == Privilege::Kernel, ENTRY),
    v("synchronous, lower level", Family::Arm64, 0x400, |_| true, ENTRY),
    v("data segment", Family::Powerpc, 0x380, |r| r.non_canonical() && !r.fetch(), EXCEPTIONS),
    v("instruction segment", Family::Powerpc, 0x480, Refused::non_canonical, EXCEPTIONS),
    v("data storage", Family::Powerpc, 0x300, |r| !r.fetch(), EXCEPTIONS),
    v("instruction storage", Family::Powerpc, 0x400, |_| true, EXCEPTIONS),
];

const fn r(
    name: &'static str,
    family: Family,
    bits: fn(&Refused) -> u64,
    cite: Cite,
) -> SyndromeRow {
    SyndromeRow { name, family, bits, cite }
}

const fn v(
    name: &'static str,
    family: Family,
    vector: u32,
    takes: fn(&Refused) -> bool,
    cite: Cite,
) -> VectorRow {
    VectorRow { name, family, vector, takes, cite }
}

/// Reserved bits, PS where there is no large page among them.
fn reserved(r: &Refused) -> bool {
    use Why::{LeafNotAllowed, Reserved};
    matches!(
        r.why,
        Refusal::Walk(WalkFault::Malformed { why: Reserved { .. } | LeafNotAllowed, .. })
    )
}

/// Kind and level. Level -1 has numbers of its own (Linux 7.0 arch/arm64/mm/fault.c, fault_info).
fn arm_status(r: &Refused) -> u64 {
    let kind = match r.why {
        Refusal::Rights { .. } => 0b00_1100,
        Refusal::Walk(WalkFault::AccessFlag { .. }) => 0b00_1000,
        Refusal::Walk(WalkFault::AddressSize { .. }) => 0,
        Refusal::Walk(_) => 0b00_0100,
    };
    match u64::try_from(r.arm_level()) {
        Ok(level) => kind | level,
        Err(_) if kind == 0 => 0b10_1001,
        Err(_) => 0b10_1011,
    }
}

impl Format {
    /// What there is to tell of an access; `None` where the walk left memory.
    #[must_use]
    pub fn refused(
        &self,
        why: Refusal,
        who: Privilege,
        what: Attempt,
        controls: &Controls,
    ) -> Option<Refused> {
        if matches!(why, Refusal::Walk(WalkFault::OutsideMemory { .. })) {
            return None;
        }
        let fetch_told = controls.x86_nxe || controls.x86_smep;
        Some(Refused { why, who, what, levels: self.levels.len(), fetch_told })
    }

    /// What the handler is told of it.
    #[must_use]
    pub fn syndrome(&self, refused: &Refused) -> Syndrome {
        let family = Family::of(self.arch);
        let rows = SYNDROME_ROWS.iter().filter(|row| row.family == family);
        let code = rows.fold(0, |code, row| code | (row.bits)(refused));
        let vectors = VECTOR_ROWS.iter().filter(|row| row.family == family);
        let vector = vectors.filter(|row| (row.takes)(refused)).map(|row| row.vector).next();
        // The last row of each architecture takes all.
        Syndrome { vector: vector.unwrap_or(0), code }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ARM64_4K, ARM64_4K_LPA2, RADIX_4K, X86_64_4LEVEL};
    use super::*;

    const NOT_PRESENT: Refusal = Refusal::Walk(WalkFault::NotPresent { level: 2 });
    const CAUSES: [Refusal; 6] = [
        NOT_PRESENT,
        Refusal::Walk(WalkFault::NonCanonical),
        Refusal::Walk(WalkFault::Malformed { level: 1, why: Why::Reserved { bits: 1 } }),
        Refusal::Walk(WalkFault::AccessFlag { level: 3 }),
        Refusal::Rights { level: 3, key: false },
        Refusal::Rights { level: 3, key: true },
    ];

    /// Every refusal has a vector, and no two rows set one bit.
    #[test]
    fn rows_share_no_bits() {
        for format in [&X86_64_4LEVEL, &ARM64_4K, &RADIX_4K] {
            let family = Family::of(format.arch);
            for why in CAUSES {
                for who in [Privilege::Kernel, Privilege::User] {
                    for what in [Attempt::Read, Attempt::Write, Attempt::Exec] {
                        let refused = format.refused(why, who, what, &Controls::LINUX).unwrap();
                        let told = format.syndrome(&refused);
                        assert_ne!(told.vector, 0);
                        let rows = SYNDROME_ROWS.iter().filter(|row| row.family == family);
                        let bits: u32 = rows.map(|row| (row.bits)(&refused).count_ones()).sum();
                        assert_eq!(bits, told.code.count_ones(), "{} {refused:?}", format.name);
                    }
                }
            }
        }
    }

    #[test]
    fn some_as_the_manuals_have_them() {
        let told = |format: &Format, why, who, what| {
            let refused = format.refused(why, who, what, &Controls::LINUX).unwrap();
            let Syndrome { vector, code } = format.syndrome(&refused);
            (vector, code)
        };
        let (kernel, user) = (Privilege::Kernel, Privilege::User);
        let protection = CAUSES[4];
        assert_eq!(told(&X86_64_4LEVEL, NOT_PRESENT, user, Attempt::Write), (14, 0b110));
        assert_eq!(told(&X86_64_4LEVEL, protection, kernel, Attempt::Exec), (14, 0b1_0001));
        assert_eq!(told(&X86_64_4LEVEL, CAUSES[2], kernel, Attempt::Read), (14, 0b1001));
        assert_eq!(told(&ARM64_4K, NOT_PRESENT, user, Attempt::Write), (0x400, 0x9200_0046));
        let root = Refusal::Walk(WalkFault::NotPresent { level: 0 });
        assert_eq!(told(&ARM64_4K_LPA2, root, kernel, Attempt::Exec), (0x200, 0x8600_002b));
        assert_eq!(told(&RADIX_4K, NOT_PRESENT, kernel, Attempt::Write), (0x300, 0x4200_0000));
        assert_eq!(told(&RADIX_4K, protection, user, Attempt::Exec), (0x400, 0x1000_0000));
    }

    #[test]
    fn a_walk_that_leaves_memory_has_none() {
        let outside =
            Refusal::Walk(WalkFault::OutsideMemory { level: 1, addr: crate::addr::PhysAddr(1) });
        let refused = ARM64_4K.refused(outside, Privilege::User, Attempt::Read, &Controls::LINUX);
        assert!(refused.is_none());
    }
}
