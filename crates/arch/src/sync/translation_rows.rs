//! The rows of [`super::translation`]: x86-64, arm64, powerpc radix.
//!
//! Sources by section. Not here: stage 2, hash tables.

use super::translation::{Change, TlbAction, TranslationRow};
use super::{Vendor, When, rule_of, scope};
use crate::cite::Cite;
use crate::features::Features;
use crate::insn::Family;

const SDM_INV: Cite = Cite::read("SDM 3A 4.10.4.1, 4.10.4.2 (325384-059)");
const SDM_OPTIONAL: Cite = Cite::read("SDM 3A 4.10.4.3 and footnote (325384-059)");
const SDM_SHOOT: Cite = Cite::read("SDM 3A 4.10.5 (325384-059)");
const SDM_SIZES: Cite = Cite::read("SDM 3A 4.10.2.3, 4.10.4.2 (325384-059)");
const APM_TLB: Cite = Cite::read("APM vol 2 5.5.3 (24593 rev 3.44)");
const APM_BROADCAST: Cite = Cite::read("APM vol 2 5.5.3 (24593 rev 3.44); Linux 6.19 x86 tlb.h");
const ARM_STORE: Cite = Cite::read("Arm ARM DDI 0487 D8.2.6.1 RSPVBD");
const ARM_TLBI: Cite = Cite::read("Arm ARM DDI 0487 D8.17.8 RDCJQM, RLXHLD, RPSMWS; K11.5.3");
const ARM_FB: Cite = Cite::read("Arm ARM DDI 0487 HCR_EL2.FB");
const ARM_CSE: Cite = Cite::read("Arm ARM DDI 0487 D8.17 IWZCBG, D8.17.8; Glossary");
const ARM_VALID: Cite = Cite::read("Arm ARM DDI 0487 D8.16 RXCLRD, D8.17 IWZCBG, D8.2.6.1");
const ARM_BBM: Cite = Cite::read("Arm ARM DDI 0487 D8.17.1 RWHZWS, RDDMVT");
const ARM_BBML: Cite =
    Cite::read("Arm ARM DDI 0487 D8.17.2 RKFLJB, RKHRBC; Linux 6.19 cpufeature.c");
const ARM_CONT: Cite = Cite::read("Arm ARM DDI 0487 D8.7.1.1 RQTRPM, RNGLXZ, RJQQTC");
const ARM_CONT_BBML: Cite =
    Cite::read("Arm ARM DDI 0487 D8.17.2 RKHRBC, RFCPSG; Linux 6.18 arch/arm64/mm/mmu.c");
const ARM_GROUP: Cite = Cite::read(
    "Arm ARM DDI 0487 D8.7.1 RCBXXM, D8.7.1.1 RJQQTC; Linux 6.10 on arch/arm64/mm/contpte.c \
     contpte_wrprotect_ptes()",
);
const ARM_PERM: Cite = Cite::deduced(
    "Arm ARM DDI 0487 D8.17.1: permissions are not in RWHZWS; Linux 6.12 arch/arm64/mm/fault.c \
     invalidates a stale read-only entry",
);
const PPC_SEQ: Cite = Cite::read("Linux 6.19 radix.h, radix_tlb.c, tlbflush.h (ISA 3.1B 6.10.1.2)");
const PPC_EIEIO: Cite = Cite::read(
    "Linux 6.19 radix_tlb.c; the sequences of Power ISA Book III as OpenBSD's powerpc64 pmap.c has \
     them, with what each step orders",
);
const PPC_TLBIEL: Cite =
    Cite::read("Power ISA 'tlbiel' (paraphrase), 2.03 p. 456; Linux 6.19 synch.h");
const PPC_UPGRADE: Cite = Cite::read("Power ISA 3.1B 6.10.1.2 as quoted by Linux 6.19 tlbflush.h");
const PPC_CSI: Cite = Cite::read("Power ISA 2.03 Book III-S ch. 10");

const fn row(
    family: Family,
    vendor: Vendor,
    when: When,
    id: &'static str,
    action: TlbAction,
    text: &'static str,
    cite: Cite,
) -> TranslationRow {
    let rule = rule_of(id, scope(family, vendor, when), text, cite);
    TranslationRow { rule, action, needs: &[], by: &[], also: &[], instead_of: None }
}

const fn x86(
    vendor: Vendor,
    id: &'static str,
    action: TlbAction,
    text: &'static str,
    cite: Cite,
) -> TranslationRow {
    row(Family::X86, vendor, When::ALWAYS, id, action, text, cite)
}

const fn arm(
    when: When,
    id: &'static str,
    action: TlbAction,
    text: &'static str,
    cite: Cite,
) -> TranslationRow {
    row(Family::Arm64, Vendor::Any, when, id, action, text, cite)
}

const fn ppc(
    when: When,
    id: &'static str,
    action: TlbAction,
    text: &'static str,
    cite: Cite,
) -> TranslationRow {
    row(Family::Powerpc, Vendor::Any, when, id, action, text, cite)
}

const FULL_DSB: &[&str] = &["dsb ish", "dsb osh", "dsb sy"];
const TLBI_IS: &[&str] = &[
    "tlbi vaae1is",
    "tlbi vaale1is",
    "tlbi vae1is",
    "tlbi vale1is",
    "tlbi aside1is",
    "tlbi vmalle1is",
    "tlbi rvaae1is",
    "tlbi rvaale1is",
    "tlbi rvae1is",
    "tlbi rvale1is",
];
use TlbAction::{
    BreakBeforeMake, Complete, ContextSync, InvalidateLocal, InvalidateRemote, StoreVisible,
    Upgrade,
};

/// The rows.
pub const TRANSLATION_ROWS: &[TranslationRow] = &[
    // x86-64.
    TranslationRow {
        by: &["invlpg", "invpcid", "mov cr3", "mov cr4"],
        also: &["a page fault at that address"],
        ..x86(
            Vendor::Any,
            "x86.tlb.local",
            InvalidateLocal,
            "INVLPG drops the page in the current PCID and its global entries in every PCID. MOV \
             to CR3 keeps global entries.",
            SDM_INV,
        )
    },
    TranslationRow {
        by: &["invlpg"],
        instead_of: Some("x86.tlb.local"),
        ..row(
            Family::X86,
            Vendor::Amd,
            When::with(Features::X86_TCE),
            "x86.tlb.local-tce-amd",
            InvalidateLocal,
            "With EFER.TCE, INVLPG keeps cached upper levels that do not lead to the page.",
            APM_TLB,
        )
    },
    TranslationRow {
        needs: &["x86.tlb.local"],
        also: &["an interrupt to every CPU that may use the tables, each of which invalidates"],
        ..row(
            Family::X86,
            Vendor::Any,
            When::ALWAYS,
            "x86.tlb.shootdown",
            InvalidateRemote,
            "Every logical CPU that uses the tables invalidates after the change; the frames may \
             be used again only when all have.",
            SDM_SHOOT,
        )
    },
    TranslationRow {
        by: &["invlpgb"],
        instead_of: Some("x86.tlb.shootdown"),
        ..row(
            Family::X86,
            Vendor::Amd,
            When::with(Features::X86_INVLPGB),
            "x86.tlb.broadcast-amd",
            InvalidateRemote,
            "INVLPGB reaches every CPU. No text says that it serialises them, so it is no context \
             synchronisation there.",
            APM_BROADCAST,
        )
    },
    TranslationRow {
        by: &["tlbsync"],
        instead_of: Some("x86.tlb.shootdown"),
        ..row(
            Family::X86,
            Vendor::Amd,
            When::with(Features::X86_INVLPGB),
            "x86.tlb.broadcast-complete-amd",
            Complete,
            "TLBSYNC waits for the INVLPGBs of this logical CPU.",
            APM_BROADCAST,
        )
    },
    x86(
        Vendor::Any,
        "x86.tlb.make-valid",
        Upgrade(Change::MakeValid),
        "Entries with P = 0 are not cached, so making one valid needs nothing, if an invalidation \
         was done when it last became invalid. The first fetch needs a serialising instruction.",
        SDM_OPTIONAL,
    ),
    x86(
        Vendor::Intel,
        "x86.tlb.grant-write-intel",
        Upgrade(Change::GrantWrite),
        "R/W 0 to 1 without invalidation: at most one spurious fault for each address.",
        SDM_OPTIONAL,
    ),
    x86(
        Vendor::Intel,
        "x86.tlb.grant-exec-intel",
        Upgrade(Change::GrantExec),
        "XD 1 to 0 without invalidation: at most one spurious fault for each address.",
        SDM_OPTIONAL,
    ),
    x86(
        Vendor::Intel,
        "x86.tlb.grant-user-intel",
        Upgrade(Change::GrantUser),
        "U/S 0 to 1 likewise, but only with CR4.SMEP = 0: with SMEP it takes execution away from \
         the kernel.",
        SDM_OPTIONAL,
    ),
    x86(
        Vendor::Amd,
        "x86.tlb.grant-write-amd",
        Upgrade(Change::GrantWrite),
        "Before it reports a fault the MMU drops cached levels and walks again: no spurious fault.",
        APM_TLB,
    ),
    x86(
        Vendor::Amd,
        "x86.tlb.grant-exec-amd",
        Upgrade(Change::GrantExec),
        "Before it reports a fault the MMU drops cached levels and walks again: no spurious fault.",
        APM_TLB,
    ),
    x86(
        Vendor::Intel,
        "x86.tlb.size-intel",
        Upgrade(Change::Size),
        "With two sizes cached any of the translations may be used, varying from one access to the \
         next: a set, not unpredictable. Recommended is to clear P and invalidate in between.",
        SDM_SIZES,
    ),
    x86(
        Vendor::Amd,
        "x86.tlb.upper-amd",
        BreakBeforeMake(Change::UpperLevel),
        "An upper-level entry is not changed without clearing P and invalidating first, even if \
         the table below is empty.",
        APM_TLB,
    ),
    // arm64.
    TranslationRow {
        by: &["dsb ishst", "dsb ish", "dsb sy"],
        ..arm(
            When::ALWAYS,
            "arm64.tlb.store-visible",
            StoreVisible,
            "A table store is visible to walks only after a DSB of the CPU that stored.",
            ARM_STORE,
        )
    },
    TranslationRow {
        needs: &["arm64.tlb.store-visible"],
        by: TLBI_IS,
        ..arm(
            When::ALWAYS,
            "arm64.tlb.invalidate",
            InvalidateRemote,
            "A TLBI of the Inner Shareable kind reaches every CPU; others reach this one.",
            ARM_TLBI,
        )
    },
    TranslationRow {
        by: &[
            "tlbi vmalle1",
            "tlbi vaae1",
            "tlbi vaale1",
            "tlbi vae1",
            "tlbi vale1",
            "tlbi aside1",
        ],
        instead_of: Some("arm64.tlb.invalidate"),
        ..arm(
            When::ALWAYS,
            "arm64.tlb.invalidate-local",
            InvalidateLocal,
            "A TLBI without IS or OS reaches the CPU that executes it.",
            ARM_TLBI,
        )
    },
    TranslationRow {
        by: &[
            "tlbi vmalle1",
            "tlbi vaae1",
            "tlbi vaale1",
            "tlbi vae1",
            "tlbi vale1",
            "tlbi aside1",
        ],
        instead_of: Some("arm64.tlb.invalidate"),
        ..arm(
            When::with(Features::ARM_FB),
            "arm64.tlb.invalidate-forced-broadcast",
            InvalidateRemote,
            "With HCR_EL2.FB, a guest's local TLBI is broadcast in the Inner Shareable domain.",
            ARM_FB,
        )
    },
    TranslationRow {
        needs: &["arm64.tlb.invalidate"],
        by: FULL_DSB,
        ..arm(
            When::ALWAYS,
            "arm64.tlb.complete",
            Complete,
            "Only a DSB of the issuing CPU, of loads and stores, completes a TLBI; then no access \
             through the old translation is outstanding anywhere.",
            ARM_TLBI,
        )
    },
    TranslationRow {
        needs: &["arm64.tlb.complete"],
        by: &["isb", "eret"],
        also: &["exception entry with SCTLR_ELx.EIS"],
        ..arm(
            When::ALWAYS,
            "arm64.tlb.context-sync",
            ContextSync,
            "Instructions fetched through the old translation run on until a context \
             synchronisation of their CPU.",
            ARM_CSE,
        )
    },
    arm(
        When::ALWAYS,
        "arm64.tlb.make-valid",
        Upgrade(Change::MakeValid),
        "Entries that fault are never cached: no TLBI, but a DSB, and a context synchronisation \
         before fetches (before any access without FEAT_ETS2).",
        ARM_VALID,
    ),
    arm(
        When::ALWAYS,
        "arm64.tlb.grant-write",
        Upgrade(Change::GrantWrite),
        "A change of permissions needs no break; until the TLBI the old ones may be used.",
        ARM_PERM,
    ),
    arm(
        When::ALWAYS,
        "arm64.tlb.grant-exec",
        Upgrade(Change::GrantExec),
        "A change of permissions needs no break; until the TLBI the old ones may be used.",
        ARM_PERM,
    ),
    arm(
        When::ALWAYS,
        "arm64.bbm.frame",
        BreakBeforeMake(Change::Frame),
        "Another output address, if the old or the new entry is writable or the contents differ. \
         Without a break: a conflict abort, one of the entries, or an amalgamation.",
        ARM_BBM,
    ),
    arm(
        When::ALWAYS,
        "arm64.bbm.memory-type",
        BreakBeforeMake(Change::MemoryType),
        "Another memory type, cacheability or shareability.",
        ARM_BBM,
    ),
    arm(
        When::without(Features::ARM_BBML2_NOABORT),
        "arm64.bbm.size",
        BreakBeforeMake(Change::Size),
        "Another size, or a table for a block, without FEAT_BBML1 (with nT) or FEAT_BBML2.",
        ARM_BBM,
    ),
    arm(
        When::with(Features::ARM_BBML2_NOABORT),
        "arm64.bbm.size-bbml2",
        Upgrade(Change::Size),
        "With FEAT_BBML2 a size may change while valid; on these cores without a conflict abort.",
        ARM_BBML,
    ),
    arm(
        When::ALWAYS,
        "arm64.bbm.global",
        BreakBeforeMake(Change::Global),
        "A global entry that may overlap non-global ones.",
        ARM_BBM,
    ),
    arm(
        When::without(Features::ARM_BBML2_NOABORT),
        "arm64.bbm.contiguous",
        BreakBeforeMake(Change::Contiguous),
        "Contiguous bits that differ within a group: any programmed value, a conflict abort, and \
         without FEAT_BBML1 or 2 a value that nobody programmed.",
        ARM_CONT,
    ),
    arm(
        When::with(Features::ARM_BBML2_NOABORT),
        "arm64.bbm.contiguous-bbml2",
        Upgrade(Change::Contiguous),
        "With FEAT_BBML1 the contiguous bit may change while valid, and with FEAT_BBML2 as these \
         cores have it without a conflict abort: any programmed value.",
        ARM_CONT_BBML,
    ),
    arm(
        When::ALWAYS,
        "arm64.bbm.group",
        BreakBeforeMake(Change::Group),
        "Entries of a group agree in frames, attributes and rights: where they do not, any of \
         their values is used for each, for as long as they do not.",
        ARM_GROUP,
    ),
    // powerpc, radix.
    TranslationRow {
        by: &["ptesync"],
        ..ppc(
            When::ALWAYS,
            "powerpc.tlb.store-visible",
            StoreVisible,
            "ptesync orders the table store before the invalidation and later walks.",
            PPC_SEQ,
        )
    },
    TranslationRow {
        needs: &["powerpc.tlb.store-visible"],
        by: &["tlbie"],
        ..ppc(
            When::with(Features::PPC_TLBIE),
            "powerpc.tlb.invalidate",
            InvalidateRemote,
            "tlbie reaches every CPU of the partition.",
            PPC_SEQ,
        )
    },
    TranslationRow {
        needs: &["powerpc.tlb.store-visible"],
        by: &["tlbiel"],
        also: &["an interrupt to every other CPU, each of which executes tlbiel and ptesync"],
        ..ppc(
            When::without(Features::PPC_TLBIE),
            "powerpc.tlb.invalidate-by-interrupt",
            InvalidateLocal,
            "tlbiel reaches this CPU; without tlbie every other CPU is interrupted to do the same.",
            PPC_TLBIEL,
        )
    },
    TranslationRow {
        needs: &["powerpc.tlb.invalidate"],
        by: &["ptesync"],
        also: &["eieio; tlbsync before it"],
        ..ppc(
            When::with(Features::PPC_TLBIE),
            "powerpc.tlb.complete",
            Complete,
            "eieio; tlbsync; ptesync: the tlbies are complete on every CPU, and accesses and R and \
             C updates through the old translation are performed. The eieio orders them before the \
             tlbsync.",
            PPC_EIEIO,
        )
    },
    TranslationRow {
        needs: &["powerpc.tlb.invalidate-by-interrupt"],
        by: &["ptesync"],
        ..ppc(
            When::without(Features::PPC_TLBIE),
            "powerpc.tlb.complete-local",
            Complete,
            "Each tlbiel is followed by a ptesync; tlbsync does not concern it.",
            PPC_TLBIEL,
        )
    },
    TranslationRow {
        needs: &["powerpc.tlb.complete", "powerpc.tlb.complete-local"],
        by: &["isync", "rfid"],
        also: &["interrupt entry, but for non-recoverable system reset and machine check"],
        ..ppc(
            When::ALWAYS,
            "powerpc.tlb.context-sync",
            ContextSync,
            "Instructions fetched through the old translation run on until a context \
             synchronisation of their CPU.",
            PPC_CSI,
        )
    },
    ppc(
        When::ALWAYS,
        "powerpc.tlb.make-valid",
        Upgrade(Change::MakeValid),
        "A ptesync orders the new entry before later walks; no invalidation.",
        PPC_SEQ,
    ),
    ppc(
        When::with(Features::PPC_RADIX),
        "powerpc.tlb.grant-write",
        Upgrade(Change::GrantWrite),
        "An upgrade of authority needs no invalidation: the entry is fetched again (not by the \
         nest MMU of POWER9).",
        PPC_UPGRADE,
    ),
    ppc(
        When::with(Features::PPC_RADIX),
        "powerpc.tlb.grant-exec",
        Upgrade(Change::GrantExec),
        "An upgrade of authority needs no invalidation: the entry is fetched again.",
        PPC_UPGRADE,
    ),
    ppc(
        When::ALWAYS,
        "powerpc.tlb.break",
        BreakBeforeMake(Change::Frame),
        "A valid entry is made invalid and the invalidation completed before another frame or \
         other attributes are stored.",
        PPC_SEQ,
    ),
    ppc(
        When::with(Features::PPC_RADIX),
        "powerpc.tlb.break-type",
        BreakBeforeMake(Change::MemoryType),
        "A valid entry is made invalid and the invalidation completed before other attributes are \
         stored.",
        PPC_SEQ,
    ),
];
