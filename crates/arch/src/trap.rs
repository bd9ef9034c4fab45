//! Bytes that raise an exception wherever execution enters them.
//!
//! Freed or not yet written parts of an executable page are filled with such bytes. Modelled: a
//! fill of one repeated instruction, entered at any instruction boundary (on x86-64 any byte). Not
//! modelled: fills that mix different trapping instructions on x86-64, where the reading depends on
//! where execution enters; they are refused but for INT3.

use crate::cite::Cite;
use crate::insn::{self, OpId};
use crate::isa::Arch;

/// A fill that traps.
#[derive(Clone, Copy, Debug)]
pub struct TrapRow {
    /// The architecture.
    pub arch: Arch,
    /// The bytes that are repeated, in memory order.
    pub bytes: &'static [u8],
    /// The instruction, by the table's name.
    pub name: &'static str,
    /// What it is and why it traps.
    pub why: &'static str,
    /// Where that is defined.
    pub cite: Cite,
}

const UDF: Cite = Cite::deduced("Arm ARM DDI 0487 C6.2, UDF; capstone reads zeros as udf #0");
const TW: Cite = Cite::deduced("Power ISA 3.1B Book I 3.3.11; capstone reads the word as trap");
const ILLEGAL: Cite = Cite::deduced("IBM 750GX UM 2.3.1.3: a word of zeros is always illegal");

/// Every known fill, the one to use first for each architecture.
pub const TRAP_FILLS: &[TrapRow] = &[
    TrapRow {
        arch: Arch::X86_64,
        bytes: &[0xcc],
        name: "int3",
        why: "one byte, so it traps from any byte on",
        cite: Cite::deduced("Intel SDM 2A, INT3; capstone and iced read CC as int3"),
    },
    TrapRow {
        arch: Arch::Arm64,
        bytes: &[0x00, 0x20, 0x20, 0xd4],
        name: "brk",
        why: "breakpoint with immediate 0x100, in the kernel's range",
        cite: Cite::deduced("Arm ARM DDI 0487 C6.2, BRK; capstone reads the word as brk #0x100"),
    },
    TrapRow {
        arch: Arch::Arm64,
        bytes: &[0, 0, 0, 0],
        name: "udf",
        why: "UDF #0 is permanently undefined, so zeroed memory traps",
        cite: UDF,
    },
    TrapRow {
        arch: Arch::Ppc64le,
        bytes: &[0x08, 0x00, 0xe0, 0x7f],
        name: "trap",
        why: "tw 31,0,0 traps unconditionally",
        cite: TW,
    },
    TrapRow {
        arch: Arch::Ppc64le,
        bytes: &[0, 0, 0, 0],
        name: "illegal",
        why: "a word of zeros is an illegal instruction",
        cite: ILLEGAL,
    },
    TrapRow {
        arch: Arch::Ppc64,
        bytes: &[0x7f, 0xe0, 0x00, 0x08],
        name: "trap",
        why: "tw 31,0,0 traps unconditionally",
        cite: TW,
    },
    TrapRow {
        arch: Arch::Ppc64,
        bytes: &[0, 0, 0, 0],
        name: "illegal",
        why: "a word of zeros is an illegal instruction",
        cite: ILLEGAL,
    },
    TrapRow {
        arch: Arch::Ppc32,
        bytes: &[0x7f, 0xe0, 0x00, 0x08],
        name: "trap",
        why: "tw 31,0,0 traps unconditionally",
        cite: TW,
    },
    TrapRow {
        arch: Arch::Ppc32,
        bytes: &[0, 0, 0, 0],
        name: "illegal",
        why: "a word of zeros is an illegal instruction",
        cite: ILLEGAL,
    },
];

/// The bytes with which to fill on `arch`, to be repeated.
#[must_use]
pub fn trap_pattern(arch: Arch) -> &'static [u8] {
    TRAP_FILLS.iter().find(|r| r.arch == arch).map_or(&[], |r| r.bytes)
}

/// Whether executing anything in `bytes` raises an exception at once, entered at any instruction
/// boundary: any byte on x86-64; on the others any whole word of the area, which must start at a
/// word. False for an empty area and for one that ends inside a word.
#[must_use]
pub fn is_trap_fill(arch: Arch, bytes: &[u8]) -> bool {
    if bytes.is_empty() {
        return false;
    }
    if arch == Arch::X86_64 {
        return bytes.iter().all(|&b| b == 0xcc);
    }
    let (words, rest) = bytes.as_chunks::<4>();
    rest.is_empty() && words.iter().all(|word| is_trap_word(arch, *word))
}

/// Whether anything in `bytes` may be a fill; no is certain, and known at once.
#[must_use]
#[inline]
pub fn may_trap(arch: Arch, bytes: &[u8]) -> bool {
    if arch != Arch::X86_64 {
        return true;
    }
    // A word is asked at once: a byte of the difference that is 0 borrows from above it.
    <[u8; 8]>::try_from(bytes).map_or_else(
        |_| bytes.contains(&0xcc),
        |word| {
            let zero = u64::from_le_bytes(word) ^ 0xcccc_cccc_cccc_cccc;
            zero.wrapping_sub(0x0101_0101_0101_0101) & !zero & 0x8080_8080_8080_8080 != 0
        },
    )
}

/// Whether the word, in memory order, is an instruction that raises an exception wherever it is
/// executed; false on x86-64, whose instructions are no words. Conditional traps do not count, nor
/// do calls into another privilege level (SVC, sc), which a kernel may answer. Each word that is
/// stored is asked, so it is not decoded.
#[must_use]
#[inline]
pub fn is_trap_word(arch: Arch, word: [u8; 4]) -> bool {
    let little = arch.is_little_endian();
    let word = if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) };
    let always = match arch {
        Arch::X86_64 => return false,
        Arch::Arm64 => insn::ARM64_TRAPS,
        _ => insn::POWERPC_TRAPS,
    };
    always.iter().any(|(mask, value)| word & mask == *value)
}

/// The table's row of the instruction with which to fill.
#[must_use]
pub fn trap_op(arch: Arch) -> OpId {
    insn::decode(arch, trap_pattern(arch)).map_or(OpId::NONE, |i| i.row.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Effect;
    use crate::insn::Pattern;

    #[test]
    fn every_fill_traps_and_decodes_to_its_row() {
        for row in TRAP_FILLS {
            let fill: Vec<u8> = row.bytes.iter().copied().cycle().take(64).collect();
            assert!(is_trap_fill(row.arch, &fill), "{} {}", row.arch, row.name);
            assert!(may_trap(row.arch, &fill[..8]), "{} {}", row.arch, row.name);
            let insn = insn::decode(row.arch, row.bytes).unwrap();
            assert_eq!((insn.row.name, insn.row.effect), (row.name, Effect::Trap));
            // One other byte or word in it, and it is none.
            let mut holed = fill.clone();
            holed[20..24].copy_from_slice(&[0x90, 0x90, 0x90, 0x90]);
            assert!(!is_trap_fill(row.arch, &holed), "{} {}", row.arch, row.name);
        }
        for arch in Arch::ALL {
            assert!(!trap_pattern(arch).is_empty());
            assert_ne!(trap_op(arch), OpId::NONE);
            assert!(!is_trap_fill(arch, &[]));
        }
    }

    /// Instructions that always raise an exception.
    const ALWAYS: &[&str] = &["brk", "udf", "trap", "illegal"];

    /// By mask and value as the decoder has it: for every row, whatever its free bits are.
    #[test]
    fn words_that_always_trap_are_those_of_the_decoder() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 32) as u32
        };
        for arch in [Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32] {
            let words = insn::rows(arch).iter().filter_map(|row| match row.pattern {
                Pattern::Word { mask, value } => Some((mask, value)),
                _ => None,
            });
            let mut found = 0;
            for (mask, value) in words {
                for n in 0..64 {
                    let free = [0, u32::MAX].get(n).copied().unwrap_or_else(&mut random);
                    let word = value | free & !mask;
                    let bytes = match arch.is_little_endian() {
                        true => word.to_le_bytes(),
                        false => word.to_be_bytes(),
                    };
                    let decoded = insn::decode(arch, &bytes);
                    let always = decoded.is_some_and(|i| ALWAYS.contains(&i.row.name));
                    assert_eq!(is_trap_fill(arch, &bytes), always, "{arch} {word:#x}");
                    found += u32::from(always);
                }
            }
            assert!(found > 64, "{arch}");
        }
    }

    #[test]
    fn what_only_looks_like_a_fill_is_none() {
        // Zeros run on x86-64: add byte ptr [rax], al.
        assert!(!is_trap_fill(Arch::X86_64, &[0; 16]));
        // UD2 entered at its second byte is something else.
        assert!(!is_trap_fill(Arch::X86_64, &[0x0f, 0x0b, 0x0f, 0x0b]));
        // A conditional trap (tweq r3,r4), a system call, half a word.
        assert!(!is_trap_fill(Arch::Ppc64, &[0x7c, 0x83, 0x20, 0x08]));
        assert!(!is_trap_fill(Arch::Arm64, &[0x01, 0x00, 0x00, 0xd4]));
        assert!(!is_trap_fill(Arch::Arm64, &[0x00, 0x20, 0x20, 0xd4, 0x00, 0x20]));
        // Power's trap in the wrong byte order is no trap.
        assert!(!is_trap_fill(Arch::Ppc64, trap_pattern(Arch::Ppc64le)));
    }
}
