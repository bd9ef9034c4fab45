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
const FREE_BY_MASK: Cite = Cite::read(
    "Linux 5.18.12, 5.19 (bpf_prog_pack_mask), 6.0-rc1, 6.1 (none) kernel/bpf/core.c \
     bpf_prog_pack_free()",
);
const FREE_READS: Cite = Cite::read(
    "f08a1c658257 bpf: Let bpf_prog_pack_free handle any pointer (bpf-next of December 2023, for \
     6.8); Linux 6.1, 6.12 kernel/bpf/core.c",
);
const SIZE: Cite = Cite::read(
    "Linux 5.18.12, 5.19 (select_bpf_prog_pack_size()), 6.0-rc1, 6.8 (PMD_SIZE), 6.9, 6.12 (SZ_2M) \
     kernel/bpf/core.c",
);
const CHECKED: Cite = Cite::read(
    "Linux 5.19, 6.4, 6.9 (no), 6.10, 6.12 (yes) kernel/bpf/core.c alloc_new_pack(), \
     include/linux/filter.h bpf_jit_binary_lock_ro()",
);
const ARM64_PACK: Cite =
    Cite::read("Linux 6.8 (no), 6.9, 6.12 (yes) arch/arm64/net/bpf_jit_comp.c");
const POWER_PACK: Cite =
    Cite::read("Linux 6.6 (no), 6.7, 6.8, 6.12 (yes) arch/powerpc/net/bpf_jit_comp.c");
const X86_COPY: Cite =
    Cite::read("Linux 5.17-rc5 (no), 5.18.12, 5.19 (yes) arch/x86/net/bpf_jit_comp.c");

/// The rows.
pub(super) const ROWS: &[FactRow] = &[
    row(Fact::PackFilled, ALL, None, Some(V5_19), No, FILL_CITE),
    row(Fact::PackFilled, ALL, Some(V5_19), None, Yes, FILL_CITE),
    row(Fact::PackInvalidated, ALL, None, Some(V5_19), No, FILL_CITE),
    row(Fact::PackInvalidated, ALL, Some(V5_19), None, Yes, FILL_CITE),
    row(Fact::PackSize, ALL, None, Some(V6_0), Word("probe"), SIZE),
    row(Fact::PackSize, ALL, Some(V6_0), Some(V6_9), Word("pmd-by-node"), SIZE),
    row(Fact::PackSize, ALL, Some(V6_9), None, Word("2m-by-node"), SIZE),
    row(Fact::PackFreeByMask, ALL, None, Some(V6_0), Yes, FREE_BY_MASK),
    row(Fact::PackFreeByMask, ALL, Some(V6_0), None, No, FREE_BY_MASK),
    row(Fact::PackFreeReads, ALL, None, Some(V6_8), Yes, FREE_READS),
    row(Fact::PackFreeReads, ALL, Some(V6_8), None, No, FREE_READS),
    row(Fact::PackChecked, ALL, None, Some(V6_10), No, CHECKED),
    row(Fact::PackChecked, ALL, Some(V6_10), None, Yes, CHECKED),
    row(Fact::PackUsed, X86, Some(Version::candidate(5, 18, 1)), None, Yes, X86_COPY),
    row(Fact::PackUsed, ARM64, None, Some(V6_9), No, ARM64_PACK),
    row(Fact::PackUsed, ARM64, Some(V6_9), None, Yes, ARM64_PACK),
    row(Fact::PackUsed, POWER, None, Some(V6_7), No, POWER_PACK),
    row(Fact::PackUsed, POWER, Some(V6_7), None, Yes, POWER_PACK),
    row(Fact::TextCopy, X86, Some(Version::candidate(5, 18, 1)), None, Yes, X86_COPY),
    row(Fact::TextCopy, ARM64, None, Some(V6_9), No, ARM64_PACK),
    row(Fact::TextCopy, ARM64, Some(V6_9), None, Yes, ARM64_PACK),
    row(Fact::TextCopy, POWER, None, Some(V6_7), No, POWER_PACK),
    row(Fact::TextCopy, POWER, Some(V6_7), None, Yes, POWER_PACK),
    row(Fact::TextInvalidate, X86, None, Some(V5_19), No, FILL_CITE),
    row(Fact::TextInvalidate, X86, Some(V5_19), None, Yes, FILL_CITE),
    row(Fact::TextInvalidate, ARM64, None, Some(V6_9), No, ARM64_PACK),
    row(Fact::TextInvalidate, ARM64, Some(V6_9), None, Yes, ARM64_PACK),
    row(Fact::TextInvalidate, POWER, None, Some(V6_7), No, POWER_PACK),
    row(Fact::TextInvalidate, POWER, Some(V6_7), None, Yes, POWER_PACK),
    row(Fact::TextPoke, X86, None, None, Yes, Cite::read("Linux 5.19 arch/x86/net")),
    row(Fact::TextPoke, ARM64, None, Some(V6_0), No, ARM64_POKE),
    row(Fact::TextPoke, ARM64, Some(V6_0), None, Yes, ARM64_POKE),
    row(Fact::TextPoke, POWER, None, Some(V6_13), No, POWER_POKE),
    row(Fact::TextPoke, POWER, Some(V6_13), None, Yes, POWER_POKE),
];
