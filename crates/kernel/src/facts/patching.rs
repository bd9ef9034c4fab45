//! Facts: text patching.

use textbed_arch::Cite;

use super::{ARM64, NOT_ARM64, NOT_POWER, NOT_X86, POWER, V6_2, V6_3, V6_10, V6_11, X86, row};
use crate::caps::Value::{No, Word, Yes};
use crate::caps::{Fact, FactRow};

const KICKS: Cite = Cite::memory(
    "cfb00a357864 arm64: jump_label: patched jump_labels visible to all CPUs; since 6.11",
);
const PPC_PATCH: Cite = Cite::read("Linux 6.1, 6.4, 6.8, 6.12 arch/powerpc/lib/code-patching.c");

/// The rows.
pub(super) const ROWS: &[FactRow] = &[
    row(
        Fact::PatchAlias,
        X86,
        None,
        None,
        Word("poking-mm"),
        Cite::read("Linux 5.19, 6.12 arch/x86/kernel/alternative.c"),
    ),
    row(
        Fact::PatchAlias,
        ARM64,
        None,
        None,
        Word("fixmap"),
        Cite::read("Linux 5.19, 6.12 arch/arm64/kernel/patching.c"),
    ),
    row(Fact::PatchAlias, POWER, None, Some(V6_2), Word("vm-area"), PPC_PATCH),
    row(Fact::PatchAlias, POWER, Some(V6_2), None, Word("mm-if-radix-smp"), PPC_PATCH),
    row(Fact::PatchNofault, NOT_POWER, None, None, No, Cite::deduced("a powerpc function")),
    row(Fact::PatchNofault, POWER, None, Some(V6_10), No, PPC_PATCH),
    row(Fact::PatchNofault, POWER, Some(V6_10), None, Yes, PPC_PATCH),
    row(Fact::PokesConditional, NOT_X86, None, None, No, Cite::deduced("an x86 protocol")),
    row(
        Fact::PokesConditional,
        X86,
        None,
        Some(V6_3),
        No,
        Cite::memory("ac0ee0a9560c came in the 6.3 merge window"),
    ),
    row(
        Fact::PokesConditional,
        X86,
        Some(V6_3),
        None,
        Yes,
        Cite::read("Linux 7.0 arch/x86/kernel/alternative.c __smp_text_poke_batch_add()"),
    ),
    row(Fact::JumpLabelKicks, ARM64, None, Some(V6_11), No, KICKS),
    row(Fact::JumpLabelKicks, ARM64, Some(V6_11), None, Yes, KICKS),
    row(Fact::JumpLabelKicks, NOT_ARM64, None, None, No, Cite::deduced("an arm64 function")),
];
