//! Facts: BPF's packs and attach points.

use textbed_arch::Cite;

use super::{ALL, ARM64, POWER, V5_19, V6_0, V6_7, V6_8, V6_9, V6_10, V6_13, X86, row};
use crate::caps::Value::{No, Word, Yes};
use crate::caps::{Fact, FactRow};
use crate::version::Version;

const FILL_CITE: Cite = Cite::read(
    "d88bb5eed04c, fe736565efb7: in bpf-next on 2022-05-23, after the release of 5.18; Linux 5.19 \
     kernel/bpf/core.c",
);
const ARM64_POKE: Cite = Cite::read(
    "b2ad54e1533e bpf, arm64: Implement bpf_arch_text_poke() for arm64; pull request of bpf-next \
     of 2022-07-22, for 6.0",
);
const POWER_POKE: Cite = Cite::read(
    "d243b62b7bd3 powerpc64/bpf: Add support for bpf trampolines; its fixes go to 6.13 and later",
);
const FREE_BY_MASK: Cite = Cite::deduced(
    "Linux 5.19 (bpf_prog_pack_mask), 6.1 (none) kernel/bpf/core.c bpf_prog_pack_free(); it went \
     with what chose the size",
);
const FREE_READS: Cite = Cite::read(
    "f08a1c658257 bpf: Let bpf_prog_pack_free handle any pointer (bpf-next of December 2023, for \
     6.8); Linux 6.1, 6.12 kernel/bpf/core.c",
);
const CORE: Cite = Cite::read("Linux 5.19, 6.4, 6.12 kernel/bpf/core.c");

/// The rows.
pub(super) const ROWS: &[FactRow] = &[
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
    row(Fact::PackFreeByMask, ALL, None, Some(V6_0), Yes, FREE_BY_MASK),
    row(Fact::PackFreeByMask, ALL, Some(V6_0), None, No, FREE_BY_MASK),
    row(Fact::PackFreeReads, ALL, None, Some(V6_8), Yes, FREE_READS),
    row(Fact::PackFreeReads, ALL, Some(V6_8), None, No, FREE_READS),
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
    row(Fact::TextPoke, X86, None, None, Yes, Cite::read("Linux 5.19 arch/x86/net")),
    row(Fact::TextPoke, ARM64, None, Some(V6_0), No, ARM64_POKE),
    row(Fact::TextPoke, ARM64, Some(V6_0), None, Yes, ARM64_POKE),
    row(Fact::TextPoke, POWER, None, Some(V6_13), No, POWER_POKE),
    row(Fact::TextPoke, POWER, Some(V6_13), None, Yes, POWER_POKE),
];
