//! What architectures and kernels allow, and what therefore is no finding: each row says what, on
//! which architectures, why, from which text, and what shows it. A test runs each scenario under
//! all policies and readings and wants silence, and wants to see that the silence means something:
//! [`Proof`] is what the same run has, or a near one finds.
//!
//! The rows are generic patterns; nothing here is matched against names. What each is recognised by
//! stands in the module that judges it.

use textbed_arch::{Arch, Cite};

use crate::finding::WindowStatus;

/// What shows that a row holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// A scenario with no finding, its path from the root of the tree.
    Scenario(&'static str),
    /// A test over a stream of events: file and function.
    Test(&'static str, &'static str),
}

/// What tells that a scenario is quiet for the reason that its row gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// The pair of grants is there, and counted with this status.
    Status(WindowStatus),
    /// Without the rows that allow live patching there are findings.
    LivePatching,
    /// This scenario differs by what the row allows, and has findings.
    Near(&'static str),
}

/// One thing that is not to be reported.
#[derive(Clone, Copy, Debug)]
pub struct CalibrationRow {
    /// What it is.
    pub what: &'static str,
    /// Where it is allowed.
    pub archs: &'static [Arch],
    /// Why.
    pub why: &'static str,
    /// Which text says so.
    pub cite: Cite,
    /// What shows it.
    pub shown: Shown,
    /// What tells that the silence is no accident.
    pub proof: Proof,
}

const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
const WEAK: &[Arch] = &[Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const POWER: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64];
const NOT_ARM64: &[Arch] = &[Arch::X86_64, Arch::Ppc64le, Arch::Ppc64];

const fn row(
    what: &'static str,
    archs: &'static [Arch],
    why: &'static str,
    cite: Cite,
    shown: Shown,
    proof: Proof,
) -> CalibrationRow {
    CalibrationRow { what, archs, why, cite, shown, proof }
}

/// Every row.
pub const CALIBRATION: &[CalibrationRow] = &[
    row(
        "loosening a permission without a flush",
        NOT_ARM64,
        "a CPU with the narrower translation faults once at most and walks again",
        Cite::read(
            "Intel SDM 3A 4.10.4.3 Optional Invalidation (325384-059); AMD APM vol 2 5.5.3; Linux \
             6.19 powerpc radix.h; arm64 flushes (Linux 6.12 arch/arm64/mm/fault.c)",
        ),
        Shown::Scenario("scenarios/calibration/loosened-permission.tb"),
        Proof::Near("scenarios/rules/stale-translation/bad.tb"),
    ),
    row(
        "a live instruction behind a trap in its first byte",
        X86,
        "old instruction, trap, or new one: each byte pattern is whole, and seen before the next",
        Cite::read("Intel SDM 3A 8.1.3 (325384-059); Linux 6.12 arch/x86/kernel/alternative.c"),
        Shown::Scenario("scenarios/calibration/breakpoint-protocol.tb"),
        Proof::Near("scenarios/int3-protocol-late-breakpoint.tb"),
    ),
    row(
        "a writable temporary mapping in an address space active on one CPU",
        NOT_ARM64,
        "the two grants of the pair are never in the translation windows of two CPUs",
        Cite::read("Linux 6.12 arch/x86/kernel/alternative.c, arch/powerpc/lib/code-patching.c"),
        Shown::Scenario("scenarios/calibration/temporary-alias-one-cpu.tb"),
        Proof::Status(WindowStatus::Protocol),
    ),
    row(
        "a writable slot of the fixed map for the moment of a patch",
        ARM64,
        "opened and closed by the patcher, under the lock of patchers",
        Cite::read("Linux 6.12 arch/arm64/kernel/patching.c"),
        Shown::Scenario("scenarios/calibration/fixmap-alias.tb"),
        Proof::Status(WindowStatus::Protocol),
    ),
    row(
        "the linear map of a port, or of a setting, that does not protect it",
        WEAK,
        "writable by design; counted, and not blamed on each user of executable memory",
        Cite::read("Linux 6.12 arch/powerpc/mm/pageattr.c, arch/arm64/mm/pageattr.c"),
        Shown::Scenario("scenarios/calibration/linear-map-platform.tb"),
        Proof::Status(WindowStatus::Platform),
    ),
    row(
        "read-only and executable in one pass, one flush behind it",
        ALL,
        "both grants are there inside of the call alone, before anybody was told of the code",
        Cite::read("Linux 6.4 arch/x86/mm/pat/set_memory.c, 6.12 arch/powerpc/mm/pageattr.c"),
        Shown::Scenario("scenarios/calibration/one-pass-rox.tb"),
        Proof::Status(WindowStatus::InCall),
    ),
    row(
        "memory that nobody executes, freed before its translations die",
        ALL,
        "lazy by design; whoever still uses the pointer has a bug of another kind",
        Cite::read("Linux 6.12, mm: areas are unmapped lazily and their frames freed at once"),
        Shown::Scenario("scenarios/calibration/lazy-free-of-data.tb"),
        Proof::Near("scenarios/rules/exec-after-free/bad.tb"),
    ),
    row(
        "entries that one CPU made invalid without a barrier, and another CPU flushes",
        WEAK,
        "the barrier of who flushes orders what it learned of others' stores as it does its own",
        Cite::read("Linux 6.12, mm: the one who purges flushes for all who unmapped"),
        Shown::Scenario("scenarios/calibration/purge-elsewhere.tb"),
        Proof::Near("scenarios/rules/missing-pte-order/bad.tb"),
    ),
    row(
        "code that was needed once, freed later by another CPU",
        ALL,
        "nobody has its address after a grace period, and it is flushed before its frames go back",
        Cite::read("Linux 6.12 kernel/module/main.c: a work item frees what init sections lay in"),
        Shown::Scenario("scenarios/calibration/init-text-freed-later.tb"),
        Proof::Near("scenarios/rules/exec-after-free/bad.tb"),
    ),
    row(
        "a no-operation that becomes a branch, seen late by a CPU that runs there",
        WEAK,
        "both are in the list of what may be modified while it is executed: old or new, never torn",
        Cite::read("Arm ARM DDI 0487 B2.2.5; Power ISA, concurrent modification (paraphrase read)"),
        Shown::Scenario("scenarios/calibration/branch-seen-late.tb"),
        Proof::LivePatching,
    ),
    row(
        "a large entry left over behind a split, on CPUs that raise no conflict",
        ARM64,
        "both entries say the same, and level 2 of break-before-make support allows the pair",
        Cite::read("Arm ARM DDI 0487 D8.17.1 (FEAT_BBM levels)"),
        Shown::Test("crates/check/tests/breaks.rs", "sizes_by_architecture"),
        Proof::Near("scenarios/rules/break-before-make/bad.tb"),
    ),
    row(
        "contiguous bits that go one by one before a page changes, on CPUs that raise no conflict",
        ARM64,
        "all entries say the same until none has the bit: any programmed value is the right one",
        Cite::read(
            "Arm ARM DDI 0487 D8.7.1.1 RNGLXZ, D8.17.2 RKHRBC; Linux 6.18.2 arch/arm64/mm/mmu.c \
             split_contpte()",
        ),
        Shown::Scenario("scenarios/calibration/contiguous-bits-first.tb"),
        Proof::Near("scenarios/bugs/W17-contiguous-in-place/bad.tb"),
    ),
    row(
        "rights of contiguous entries that differ until they are flushed for",
        ARM64,
        "what a CPU holds of a group goes with the flush, and then its entries agree",
        Cite::read("Linux 6.10 on arch/arm64/mm/contpte.c contpte_wrprotect_ptes()"),
        Shown::Test(
            "crates/check/tests/groups.rs",
            "rights_may_differ_until_an_address_of_the_group_is_invalidated",
        ),
        Proof::Near("scenarios/bugs/W17-contiguous-in-place/bad.tb"),
    ),
    row(
        "an invalidation of a CPU that was told by an interrupt of another's change",
        POWER,
        "its own ptesync orders what came before the interrupt for its own walks",
        Cite::deduced(
            "Linux 6.12 arch/powerpc/kernel/smp.c smp_muxed_ipi_set_message(), \
             arch/powerpc/mm/book3s64/radix_tlb.c _tlbiel_kernel_broadcast(); Power ISA 3.1B Book \
             II 1.7.1",
        ),
        Shown::Scenario("scenarios/calibration/told-by-interrupt.tb"),
        Proof::Near("scenarios/rules/missing-pte-order/bad.tb"),
    ),
    row(
        "data between instructions, stored while the code around it runs",
        WEAK,
        "no fetch returns these bytes",
        Cite::deduced("Arm ARM DDI 0487 B2.7.4.2: maintenance is for what is executed"),
        Shown::Scenario("scenarios/calibration/literal-beside-code.tb"),
        Proof::Near("scenarios/rules/missing-publication-order/bad.tb"),
    ),
    row(
        "a store of the bytes that are there",
        ALL,
        "old and new are the same, so no version comes to be",
        Cite::deduced("herdtools7 aarch64.cat: a fetch reads a value, and values are equal"),
        Shown::Scenario("scenarios/calibration/equal-bytes.tb"),
        Proof::Near("scenarios/rules/missing-publication-order/bad.tb"),
    ),
    row(
        "code that nobody else can reach yet",
        ALL,
        "no CPU has its address, and none executed it; what is missing can still be done",
        Cite::deduced("Intel SDM 3A 8.1.3; Arm ARM DDI 0487 K11.5.2: before the branch to it"),
        Shown::Scenario("scenarios/calibration/nobody-there-yet.tb"),
        Proof::Near("scenarios/rules/missing-icache-maintenance/bad.tb"),
    ),
    row(
        "patches in place while one CPU runs",
        ALL,
        "there is nobody to tell",
        Cite::deduced("Intel SDM 3A 8.1.3 (self-modifying code)"),
        Shown::Scenario("scenarios/calibration/boot-alone.tb"),
        Proof::Near("scenarios/rules/missing-publication-order/bad.tb"),
    ),
    row(
        "an interrupt that happens to synchronise the CPU in time",
        ALL,
        "the order of this stream closes the window, no edge does: possible, with what saved it",
        Cite::read("herdtools7 aarch64.cat: order comes from edges, not from time"),
        Shown::Test("crates/check/tests/saved.rs", "an_interrupt_that_came_by_saved_this_run"),
        Proof::Near("scenarios/rules/missing-context-sync/bad.tb"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_whole() {
        for (n, row) in CALIBRATION.iter().enumerate() {
            assert!(!row.archs.is_empty() && row.why.len() > 10, "{}", row.what);
            assert!(!row.what.ends_with('.') && !row.why.ends_with('.'), "{}", row.what);
            assert!(CALIBRATION[..n].iter().all(|r| r.what != row.what), "{} twice", row.what);
            let violation = Proof::Status(WindowStatus::Violation);
            assert!(row.proof != violation, "{}: a violation is a finding", row.what);
        }
    }
}
