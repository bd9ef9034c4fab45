//! The table against itself. Disassemblers that others wrote are asked in `tests/disassemblers.rs`.

use super::*;
use crate::effect::{Effect, Flow};
use std::collections::BTreeSet;

#[test]
fn ids_and_titles_are_unique_and_every_example_decodes_to_its_row() {
    let mut ids = BTreeSet::new();
    let mut n = 0;
    for arch in Arch::ALL {
        for row in rows(arch) {
            let bytes = row.example(arch);
            let insn = decode(arch, &bytes);
            let got = insn.map(|i| (i.row.title(), usize::from(i.len)));
            assert_eq!(
                got,
                Some((row.title(), bytes.len())),
                "{arch} {} {bytes:02x?}",
                row.title()
            );
            n += 1;
        }
    }
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        let mut titles = BTreeSet::new();
        for row in rows(arch) {
            assert!(ids.insert(row.id), "{:?} {} twice", row.id, row.name);
            assert!(titles.insert(row.title()), "{} twice", row.title());
            assert_eq!(by_id(row.id).map(|r| r.id), Some(row.id));
            assert!(by_name(arch, row.name).is_some());
        }
    }
    println!("{n} compared, {n} equal");
}

/// A branch is a call if its encoding has the bit, field or opcode for that, and likewise a return.
#[test]
fn branches_are_calls_and_returns_by_their_encodings() {
    let mut returns = 0;
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        for row in rows(arch) {
            let Effect::Branch(flow) = row.effect else { continue };
            let bytes = row.example(arch);
            let word = bytes.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
            let by_rm = bytes[0] == 0xff;
            let (calls, comes_back) = match arch {
                Arch::X86_64 => (
                    matches!(bytes[..], [0xe8, ..]) || by_rm && matches!(bytes[1] >> 3 & 7, 2 | 3),
                    matches!(bytes[0], 0xc2 | 0xc3 | 0xca | 0xcb),
                ),
                Arch::Arm64 => {
                    let by_register = word >> 25 == 0x6b;
                    (
                        word >> 26 == 0x25 || by_register && word >> 21 & 3 == 1,
                        by_register && word >> 21 & 3 == 2,
                    )
                }
                // LK; BCLR without it.
                _ => (word & 1 == 1, word >> 26 == 19 && word & 0x7ff == 16 << 1),
            };
            let expected = match (calls, comes_back) {
                (true, _) => Flow::Call,
                (_, true) => Flow::Return,
                _ => Flow::Jump,
            };
            assert_eq!(flow, expected, "{arch} {} {bytes:02x?}", row.title());
            assert_eq!(row.is_return(), flow == Flow::Return, "{arch} {}", row.title());
            returns += usize::from(flow == Flow::Return);
        }
    }
    assert_eq!(returns, 4 + 3 + 2);
}
