//! The facts by version and architecture, with their sources.
//!
//! A row holds from `since` (first version) to before `until`. Evidence: *read* where a tree on
//! both sides of the bound, or the commit's mail or push log, was read; *deduced* where only the
//! neighbouring trees were; *memory* otherwise. Not here: facts that no simulated version needs
//! (ROX cache, CPA collapse, BBML2 splitting, INVLPGB).

use textbed_arch::{Arch, Cite};

use crate::caps::Value::{No, Word, Yes};
use crate::caps::{Fact, FactRow, Value};
use crate::version::Version;

/// 64-bit architectures that boot.
const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
const POWER: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64];
const NOT_X86: &[Arch] = &[Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const NOT_POWER: &[Arch] = &[Arch::X86_64, Arch::Arm64];

/// The version that has the opt-in (559089e0a93d, first head after 5.18-rc3).
pub(crate) const OPT_IN: Version = Version::candidate(5, 18, 4);
const V5_19: Version = Version::candidate(5, 19, 1);
const V6_0: Version = Version::candidate(6, 0, 1);
const V6_1: Version = Version::candidate(6, 1, 1);
pub(crate) const V6_2: Version = Version::candidate(6, 2, 1);
const V6_3: Version = Version::candidate(6, 3, 1);
pub(crate) const V6_7: Version = Version::candidate(6, 7, 1);
pub(crate) const V6_9: Version = Version::candidate(6, 9, 1);
pub(crate) const V6_10: Version = Version::candidate(6, 10, 1);
const V6_11: Version = Version::candidate(6, 11, 1);
const V6_13: Version = Version::candidate(6, 13, 1);
const V6_16: Version = Version::candidate(6, 16, 1);
pub(crate) const V6_15: Version = Version::candidate(6, 15, 1);
pub(crate) const V6_18: Version = Version::candidate(6, 18, 1);
const V6_19: Version = Version::candidate(6, 19, 1);

const fn row(
    fact: Fact,
    archs: &'static [Arch],
    since: Option<Version>,
    until: Option<Version>,
    value: Value,
    cite: Cite,
) -> FactRow {
    FactRow { fact, archs, since, until, value, cite }
}

const NOT_ARM64: &[Arch] = &[Arch::X86_64, Arch::Ppc64le, Arch::Ppc64];
const KICKS: Cite = Cite::memory(
    "cfb00a357864 arm64: jump_label: patched jump_labels visible to all CPUs; since 6.11",
);
const COLLAPSE: Cite = Cite::read(
    "41d88484c71c x86/mm/pat: restore large ROX pages after fragmentation; Linux 6.18.2, 7.0",
);
const ROX_OFF: Cite = Cite::read("a9bbe3413331 x86: Disable EXECMEM_ROX support; Linux 6.14");
const ROX_ON: Cite = Cite::read("64f6a4e10c05 (6.15) switched it on again; Linux 6.18.2, 7.0");
const OPT_IN_CITE: Cite = Cite::read(
    "559089e0a93d vmalloc: replace VM_NO_HUGE_VMAP with VM_ALLOW_HUGE_VMAP; push log of master \
     2022-04-20: b2d229d4ddb1 (5.18-rc3) to 559089e0a93d",
);
const FILL_CITE: Cite = Cite::read(
    "d88bb5eed04c, fe736565efb7: in bpf-next on 2022-05-23, after the release of 5.18; Linux 5.19 \
     kernel/bpf/core.c",
);
const VMALLOC: Cite = Cite::read("Linux 5.19 and 6.12 mm/vmalloc.c");
const CPA: Cite = Cite::read("Linux 5.19, 6.1, 6.4, 6.12 arch/x86/mm/pat/set_memory.c");
const ARM_PAGEATTR: Cite = Cite::read("Linux 5.19, 6.12, 6.18 arch/arm64/mm/pageattr.c");
const PPC_PAGEATTR: Cite = Cite::read("Linux 5.19, 6.8, 6.12 arch/powerpc/mm/pageattr.c");
const CORE: Cite = Cite::read("Linux 5.19, 6.4, 6.12 kernel/bpf/core.c");
const PPC_PATCH: Cite = Cite::read("Linux 6.1, 6.4, 6.8, 6.12 arch/powerpc/lib/code-patching.c");

/// Every fact.
pub const FACTS: &[FactRow] = &[
    row(
        Fact::HugeVmalloc,
        X86,
        Some(Version::candidate(5, 18, 1)),
        None,
        Yes,
        Cite::deduced("Linux 5.19 arch/x86/Kconfig; mails of April 2022 on 5.18-rc"),
    ),
    row(
        Fact::HugeVmalloc,
        X86,
        None,
        Some(Version::candidate(5, 18, 1)),
        No,
        Cite::memory("x86 selected HAVE_ARCH_HUGE_VMALLOC in the 5.18 merge window"),
    ),
    row(
        Fact::HugeVmalloc,
        ARM64,
        None,
        Some(V6_0),
        No,
        Cite::read("Linux 5.19 arch/arm64/Kconfig"),
    ),
    row(
        Fact::HugeVmalloc,
        ARM64,
        Some(V6_1),
        None,
        Yes,
        Cite::read("Linux 6.1 arch/arm64/Kconfig"),
    ),
    row(Fact::HugeVmalloc, POWER, None, None, Yes, Cite::read("Linux 5.19 arch/powerpc/Kconfig")),
    row(Fact::HugeVmallocOptOut, ALL, None, Some(OPT_IN), Yes, OPT_IN_CITE),
    row(Fact::HugeVmallocOptOut, ALL, Some(OPT_IN), None, No, OPT_IN_CITE),
    row(Fact::SizePerNode, ALL, None, Some(V6_13), Yes, VMALLOC),
    row(Fact::SizePerNode, ALL, Some(V6_13), None, No, Cite::read("Linux 6.13.2 mm/vmalloc.c")),
    row(
        Fact::ModuleAllocResets,
        X86,
        None,
        Some(V6_2),
        No,
        Cite::read("Linux 5.19, 6.1 arch/x86/kernel/module.c"),
    ),
    row(
        Fact::ModuleAllocResets,
        X86,
        Some(V6_2),
        None,
        Yes,
        Cite::read("Linux 6.4 arch/x86/kernel/module.c; 6.12 mm/execmem.c"),
    ),
    row(
        Fact::ModuleAllocResets,
        ARM64,
        None,
        Some(V6_10),
        No,
        Cite::read("Linux 6.8 arch/arm64/kernel/module.c"),
    ),
    row(
        Fact::ModuleAllocResets,
        ARM64,
        Some(V6_10),
        None,
        Yes,
        Cite::read("Linux 6.10-rc1 mm/execmem.c"),
    ),
    row(
        Fact::ModuleAllocResets,
        POWER,
        None,
        None,
        Yes,
        Cite::read("mail: powerpc __module_alloc passes VM_FLUSH_RESET_PERMS | VM_NO_HUGE_VMAP"),
    ),
    row(Fact::ModuleAllocNoHuge, NOT_POWER, None, None, No, Cite::deduced("Linux 5.19 module.c")),
    row(
        Fact::ModuleAllocNoHuge,
        POWER,
        None,
        Some(OPT_IN),
        Yes,
        Cite::read("mail: powerpc __module_alloc passes VM_FLUSH_RESET_PERMS | VM_NO_HUGE_VMAP"),
    ),
    row(
        Fact::ModuleAllocNoHuge,
        POWER,
        Some(OPT_IN),
        None,
        No,
        Cite::read("Linux 5.19 arch/powerpc/kernel/module.c"),
    ),
    row(Fact::Execmem, ALL, None, Some(V6_10), No, Cite::read("Linux 6.8 kernel/module")),
    row(Fact::Execmem, ALL, Some(V6_10), None, Yes, Cite::read("Linux 6.10-rc1 mm/execmem.c")),
    row(Fact::WarnsWriteExec, X86, None, Some(V6_0), No, CPA),
    row(Fact::WarnsWriteExec, X86, Some(V6_1), None, Yes, CPA),
    row(
        Fact::WarnsWriteExec,
        NOT_X86,
        None,
        None,
        No,
        Cite::read("Linux 5.19 and 6.12 arch/{arm64,powerpc}/mm/pageattr.c"),
    ),
    row(Fact::AliasFollows, X86, None, None, Yes, CPA),
    row(Fact::AliasFollows, ARM64, None, None, Word("if-rodata-full"), ARM_PAGEATTR),
    row(Fact::AliasFollows, POWER, None, None, No, PPC_PAGEATTR),
    row(Fact::AliasSkipsNx, X86, None, Some(V6_2), Yes, CPA),
    row(Fact::AliasSkipsNx, X86, Some(V6_2), None, No, CPA),
    row(Fact::AliasSkipsNx, ARM64, None, None, Yes, ARM_PAGEATTR),
    row(Fact::AliasSkipsNx, POWER, None, None, Yes, PPC_PAGEATTR),
    row(Fact::AliasWholeArea, X86, None, None, No, CPA),
    row(Fact::AliasWholeArea, ARM64, None, Some(V6_19), Yes, ARM_PAGEATTR),
    row(Fact::AliasWholeArea, ARM64, Some(V6_19), None, No, Cite::read("Linux 6.19.10 pageattr.c")),
    row(Fact::AliasWholeArea, POWER, None, None, No, PPC_PAGEATTR),
    row(Fact::AliasErrorChecked, X86, None, None, Yes, CPA),
    row(Fact::AliasErrorChecked, ARM64, None, Some(V6_18), No, ARM_PAGEATTR),
    row(Fact::AliasErrorChecked, ARM64, Some(V6_18), None, Yes, ARM_PAGEATTR),
    row(Fact::AliasErrorChecked, POWER, None, None, No, PPC_PAGEATTR),
    row(Fact::HugeRefusal, X86, None, None, Word("never"), CPA),
    row(Fact::HugeRefusal, ARM64, None, Some(V6_16), Word("walker-warns"), ARM_PAGEATTR),
    row(
        Fact::HugeRefusal,
        ARM64,
        Some(V6_16),
        None,
        Word("silent-by-flag"),
        Cite::memory("absent in Linux 6.14, present in a tree of the 6.18 merge window"),
    ),
    row(Fact::HugeRefusal, POWER, None, None, Word("warns-by-order"), PPC_PAGEATTR),
    row(Fact::SetMemoryPurges, NOT_POWER, None, None, Yes, CPA),
    row(Fact::SetMemoryPurges, POWER, None, None, No, PPC_PAGEATTR),
    row(Fact::RoxOnePass, X86, None, None, Yes, Cite::read("Linux 6.4 set_memory_rox()")),
    row(
        Fact::RoxOnePass,
        ARM64,
        None,
        None,
        No,
        Cite::read("Linux 6.12 include/linux/set_memory.h"),
    ),
    row(
        Fact::RoxOnePass,
        POWER,
        None,
        Some(V6_10),
        No,
        Cite::read("Linux 6.8 include/linux/set_memory.h"),
    ),
    row(Fact::RoxOnePass, POWER, Some(V6_10), None, Yes, Cite::read("Linux 6.12 SET_MEMORY_ROX")),
    row(Fact::SetDirectMap, X86, None, None, Yes, CPA),
    row(Fact::SetDirectMap, ARM64, None, None, Word("if-can-set-direct-map"), ARM_PAGEATTR),
    row(
        Fact::SetDirectMap,
        POWER,
        None,
        None,
        No,
        Cite::read("Linux 5.19 and 6.12 include/linux/set_memory.h (no ARCH_HAS_SET_DIRECT_MAP)"),
    ),
    row(Fact::PackFilled, ALL, None, Some(V5_19), No, FILL_CITE),
    row(Fact::PackFilled, ALL, Some(V5_19), None, Yes, FILL_CITE),
    row(Fact::PackInvalidated, ALL, None, Some(V5_19), No, FILL_CITE),
    row(Fact::PackInvalidated, ALL, Some(V5_19), None, Yes, FILL_CITE),
    row(
        Fact::PackSize,
        ALL,
        None,
        Some(V6_0),
        Word("probe"),
        Cite::deduced("Linux 5.19 select_bpf_prog_pack_size(); patches of May 2022 against it"),
    ),
    row(Fact::PackSize, ALL, Some(V6_0), Some(V6_10), Word("pmd-by-node"), CORE),
    row(Fact::PackSize, ALL, Some(V6_10), None, Word("2m-by-node"), CORE),
    row(Fact::PackChecked, ALL, None, Some(V6_10), No, CORE),
    row(Fact::PackChecked, ALL, Some(V6_10), None, Yes, CORE),
    row(
        Fact::PackUsed,
        X86,
        Some(Version::candidate(5, 18, 1)),
        None,
        Yes,
        Cite::deduced("mail of 2022-04-27 in the thread on bpf_prog_pack; Linux 5.19"),
    ),
    row(
        Fact::PackUsed,
        ARM64,
        None,
        Some(V6_9),
        No,
        Cite::read("Linux 6.8 arch/arm64/net/bpf_jit_comp.c"),
    ),
    row(
        Fact::PackUsed,
        ARM64,
        Some(V6_10),
        None,
        Yes,
        Cite::read("Linux 6.10-rc1 arch/arm64/net/bpf_jit_comp.c"),
    ),
    row(
        Fact::PackUsed,
        POWER,
        None,
        Some(V6_7),
        No,
        Cite::read("Linux 6.6 arch/powerpc/net/bpf_jit_comp.c"),
    ),
    row(
        Fact::PackUsed,
        POWER,
        Some(V6_7),
        None,
        Yes,
        Cite::read("Linux 6.8, 6.12 arch/powerpc/net/bpf_jit_comp.c"),
    ),
    row(
        Fact::TextCopy,
        X86,
        Some(Version::candidate(5, 18, 1)),
        None,
        Yes,
        Cite::deduced("mail of 2022-04-27: x86 is the only one that has it; Linux 5.19"),
    ),
    row(
        Fact::TextCopy,
        ARM64,
        None,
        Some(V6_9),
        No,
        Cite::read("Linux 6.8 arch/arm64/net/bpf_jit_comp.c; mail of 2022-04-27"),
    ),
    row(Fact::TextCopy, ARM64, Some(V6_10), None, Yes, Cite::read("Linux 6.10-rc1, 6.12")),
    row(
        Fact::TextCopy,
        POWER,
        None,
        Some(V6_7),
        No,
        Cite::read("Linux 6.6 arch/powerpc/net/bpf_jit_comp.c; mail of 2022-04-27"),
    ),
    row(Fact::TextCopy, POWER, Some(V6_7), None, Yes, Cite::read("Linux 6.8, 6.12")),
    row(Fact::TextInvalidate, X86, None, Some(V5_19), No, FILL_CITE),
    row(Fact::TextInvalidate, X86, Some(V5_19), None, Yes, FILL_CITE),
    row(Fact::TextInvalidate, ARM64, None, Some(V6_9), No, Cite::read("Linux 6.8")),
    row(Fact::TextInvalidate, ARM64, Some(V6_10), None, Yes, Cite::read("Linux 6.10-rc1, 6.12")),
    row(Fact::TextInvalidate, POWER, None, Some(V6_7), No, Cite::read("Linux 6.6")),
    row(Fact::TextInvalidate, POWER, Some(V6_7), None, Yes, Cite::read("Linux 6.8, 6.12")),
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
    row(Fact::TextPoke, X86, None, None, Yes, Cite::read("Linux 5.19 arch/x86/net")),
    row(Fact::TextPoke, ARM64, None, Some(V6_0), No, Cite::deduced("6.1 has it, 5.19 not")),
    row(Fact::TextPoke, ARM64, Some(V6_0), None, Yes, Cite::memory("Linux 6.1; since 6.0")),
    row(Fact::TextPoke, POWER, None, Some(V6_13), No, Cite::deduced("Linux 6.12 has none")),
    row(Fact::TextPoke, POWER, Some(V6_13), None, Yes, Cite::memory("Linux 6.14; since 6.13")),
    row(Fact::JumpLabelKicks, ARM64, None, Some(V6_11), No, KICKS),
    row(Fact::JumpLabelKicks, ARM64, Some(V6_11), None, Yes, KICKS),
    row(Fact::JumpLabelKicks, NOT_ARM64, None, None, No, Cite::deduced("an arm64 function")),
    row(Fact::CpaCollapse, NOT_X86, None, None, No, Cite::deduced("an x86 function")),
    row(Fact::CpaCollapse, X86, None, Some(V6_15), No, Cite::read("Linux 6.14 set_memory.c")),
    row(Fact::CpaCollapse, X86, Some(V6_15), None, Yes, COLLAPSE),
    row(Fact::RoxCache, NOT_X86, None, None, No, Cite::deduced("only x86 selects it")),
    row(Fact::RoxCache, X86, None, Some(V6_15), No, ROX_OFF),
    row(Fact::RoxCache, X86, Some(V6_15), None, Yes, ROX_ON),
];
