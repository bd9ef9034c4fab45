//! The rows of [`super::fetch`]: arm64, x86-64, powerpc.
//!
//! Sources by section; what a copy of a manual lacked is marked. Not here: live patching.

use super::fetch::{Action, Applies, FetchRow};
use super::{Vendor, When, rule_of, scope};
use crate::cite::Cite;
use crate::features::Features;
use crate::insn::Family;

const IDC: Features = Features::ARM_IDC;
const DIC: Features = Features::ARM_DIC;
const IDC_ONLY: When = When { with: IDC, without: DIC };
const COHERENT: Features = Features::PPC_COHERENT_ICACHE;

const ARM_CACHE: Cite = Cite::read("Arm ARM DDI 0487 B2.7.4.2, K11.5.2");
const ARM_CTR: Cite = Cite::read("Arm ARM DDI 0487 CTR_EL0 (IDC, DIC); B2.7.4.2");
const ARM_CSE: Cite = Cite::read("Arm ARM DDI 0487 Glossary, Context Synchronization event");
const ARM_EXS: Cite = Cite::read("Arm ARM DDI 0487 RBWCFK (L.a); herdtools7 aarch64hwreqs.cat");
const ARM_ORDER: Cite = Cite::read("Arm ARM DDI 0487 K11.5.2.2; herdtools7 aarch64.cat (ob)");
const ARM_FB: Cite = Cite::read("Arm ARM DDI 0487 HCR_EL2.FB");
const SDM_CODE: Cite =
    Cite::read("SDM 3A 'Handling Self- and Cross-Modifying Code' (8.1.3 in 325384-059)");
const SDM_SERIAL: Cite = Cite::read("SDM 3A 'Serializing Instructions' (8.3 in 325384-059)");
const SDM_ALIAS: Cite = Cite::read("SDM 3A 'Self-Modifying Code' (11.6 in 325384-059)");
const SDM_NT: Cite = Cite::read("SDM 3A 8.2.2 (325384-059)");
const SDM_NEW_MAP: Cite = Cite::read("SDM 3A 4.10.4.3 (325384-059)");
const APM_CODE: Cite = Cite::read("APM vol 2 7.6.1 (24593 rev 3.44)");
const APM_SERIAL: Cite = Cite::read("APM vol 2 7.6.4 (24593 rev 3.44)");
const PPC_CACHE: Cite =
    Cite::read("IBM 750GX UM 3.2; 603e UM 2.3.4.3.1; Linux 6.19 code-patching.c");
const PPC_COHERENT: Cite = Cite::read("Linux 6.19 arch/powerpc/mm/cacheflush.c");
const PPC_CSI: Cite =
    Cite::read("Power ISA 2.03 Book III-S ch. 10; 'isync' (paraphrase, 3.0 or later)");
const PPC_ORDER: Cite = Cite::memory("Power ISA 3.1B Book II 1.7 (storage access ordering)");

/// A row before it is qualified.
const fn row(
    family: Family,
    when: When,
    id: &'static str,
    action: Action,
    text: &'static str,
    cite: Cite,
) -> FetchRow {
    FetchRow {
        rule: rule_of(id, scope(family, Vendor::Any, when), text, cite),
        action,
        applies: Applies::Always,
        needs: &[],
        by: &[],
        also: &[],
        not_by: &[],
        instead_of: None,
    }
}

const fn arm(
    when: When,
    id: &'static str,
    action: Action,
    text: &'static str,
    cite: Cite,
) -> FetchRow {
    row(Family::Arm64, when, id, action, text, cite)
}

const fn ppc(
    when: When,
    id: &'static str,
    action: Action,
    text: &'static str,
    cite: Cite,
) -> FetchRow {
    row(Family::Powerpc, when, id, action, text, cite)
}

const fn x86(
    vendor: Vendor,
    id: &'static str,
    action: Action,
    text: &'static str,
    cite: Cite,
) -> FetchRow {
    let mut r = row(Family::X86, When::ALWAYS, id, action, text, cite);
    r.rule.scope.vendor = vendor;
    r
}

const fn disputed(mut r: FetchRow) -> FetchRow {
    r.rule.disputed = true;
    r
}

/// Full DSBs whose domain reaches every CPU that runs the kernel.
const FULL_DSB: &[&str] = &["dsb ish", "dsb osh", "dsb sy"];
/// DSBs that wait for stores, enough where no clean and no invalidation has to be waited for.
const STORE_DSB: &[&str] = &["dsb ishst", "dsb ish", "dsb oshst", "dsb osh", "dsb st", "dsb sy"];
const SERIAL_INTEL: &[&str] = &[
    "serialize",
    "iretq",
    "cpuid",
    "mov cr2",
    "mov cr3",
    "mov cr0",
    "mov cr4",
    "mov dr",
    "invlpg",
    "lmsw",
    "wrmsr",
    "wbinvd",
    "invd",
    "lgdt",
    "lidt",
    "lldt",
    "ltr",
    "iretd",
    "iret",
    "rsm",
    "invpcid",
    "invept",
    "invvpid",
];
const SERIAL_AMD: &[&str] = &[
    "iretq", "cpuid", "mfence", "mov cr2", "mov cr3", "mov cr0", "mov cr4", "mov cr8", "mov dr",
    "invlpg", "wrmsr", "wbinvd", "wbnoinvd", "invd", "lgdt", "lidt", "lldt", "ltr", "iretd",
    "iret", "rsm",
];

/// The rows.
pub const FETCH_ROWS: &[FetchRow] = &[
    // arm64.
    FetchRow {
        by: &["dc cvau", "dc cvac", "dc civac"],
        not_by: &["dc ivac"],
        ..arm(
            When::without(IDC),
            "arm64.fetch.clean",
            Action::Clean,
            "Without effective IDC, every data line written is cleaned to the point of \
             unification.",
            ARM_CACHE,
        )
    },
    FetchRow {
        needs: &["arm64.fetch.clean"],
        by: FULL_DSB,
        not_by: &["dmb ish", "dsb ishst", "dsb ishld"],
        ..arm(
            When::without(IDC),
            "arm64.fetch.clean-complete",
            Action::CompleteClean,
            "The CPU that cleaned waits with a full DSB before the invalidation; a CPU that \
             invalidates for another orders its IC after a flag by a DSB,
                 since a DMB orders no IC.",
            ARM_CACHE,
        )
    },
    FetchRow {
        by: STORE_DSB,
        also: &["any happens-before edge from the store to another CPU's ic"],
        ..arm(
            IDC_ONLY,
            "arm64.fetch.store-complete",
            Action::CompleteClean,
            "With effective IDC no clean is needed, but the store is complete before the IC.",
            ARM_CTR,
        )
    },
    FetchRow {
        needs: &["arm64.fetch.clean-complete", "arm64.fetch.store-complete"],
        by: &["ic ivau", "ic ialluis"],
        not_by: &["ic iallu for other CPUs, unless HCR_EL2.FB"],
        ..arm(
            When::without(DIC),
            "arm64.fetch.invalidate",
            Action::Invalidate,
            "Without DIC, instruction caches of every CPU drop the lines.",
            ARM_CACHE,
        )
    },
    FetchRow {
        applies: Applies::SameCpu,
        by: &["ic iallu"],
        instead_of: Some("arm64.fetch.invalidate"),
        ..arm(
            When::without(DIC),
            "arm64.fetch.invalidate-local",
            Action::Invalidate,
            "IC IALLU drops the instruction cache of the CPU that executes it.",
            ARM_CACHE,
        )
    },
    FetchRow {
        by: &["ic iallu"],
        instead_of: Some("arm64.fetch.invalidate"),
        ..arm(
            When { with: Features::ARM_FB, without: DIC },
            "arm64.fetch.invalidate-forced-broadcast",
            Action::Invalidate,
            "With HCR_EL2.FB, a guest's IC IALLU is broadcast in the Inner Shareable domain.",
            ARM_FB,
        )
    },
    FetchRow {
        needs: &["arm64.fetch.invalidate"],
        by: FULL_DSB,
        not_by: &["a DSB of another CPU", "dmb ish", "dsb ishst", "dsb ishld"],
        ..arm(
            When::without(DIC),
            "arm64.fetch.invalidate-complete",
            Action::CompleteInvalidate,
            "The CPU that issued the IC waits with a full DSB; until then it closes nothing.",
            ARM_CACHE,
        )
    },
    FetchRow {
        by: STORE_DSB,
        also: &["any happens-before edge from the store to the other CPU's context sync"],
        ..arm(
            When::with(DIC),
            "arm64.fetch.store-complete-dic",
            Action::CompleteInvalidate,
            "With DIC neither clean nor invalidation is needed; the store is complete before the \
             context synchronisation, on one CPU by a DSB.",
            ARM_CTR,
        )
    },
    FetchRow {
        needs: &["arm64.fetch.invalidate-complete", "arm64.fetch.store-complete-dic"],
        by: &["stlr", "dmb ish", "dsb ish"],
        also: &["reads-from of a flag stored after completion", "an interrupt sent after it"],
        ..arm(
            When::ALWAYS,
            "arm64.fetch.publish",
            Action::Publish,
            "Completion happens before the executing CPU's context synchronisation.",
            ARM_ORDER,
        )
    },
    FetchRow {
        needs: &["arm64.fetch.publish"],
        by: &["isb"],
        also: &["exit from Debug state"],
        not_by: &["dsb ish", "a cross-call that a polling idle CPU runs without interrupt"],
        ..arm(
            When::ALWAYS,
            "arm64.fetch.context-sync",
            Action::ContextSync,
            "An ISB drops what was fetched ahead; it is never broadcast, each CPU needs its own.",
            ARM_CSE,
        )
    },
    FetchRow {
        by: &["eret", "eretaa", "eretab"],
        instead_of: Some("arm64.fetch.context-sync"),
        ..arm(
            When::with(Features::ARM_EOS),
            "arm64.fetch.exception-return",
            Action::ContextSync,
            "Exception return synchronises context without FEAT_ExS, or with SCTLR_ELx.EOS.",
            ARM_EXS,
        )
    },
    FetchRow {
        by: &["svc", "hvc", "smc", "brk"],
        also: &["interrupt or exception entry"],
        instead_of: Some("arm64.fetch.context-sync"),
        ..arm(
            When::with(Features::ARM_EIS),
            "arm64.fetch.exception-entry",
            Action::ContextSync,
            "Exception entry synchronises context without FEAT_ExS, or with SCTLR_ELx.EIS.",
            ARM_EXS,
        )
    },
    // x86-64.
    FetchRow {
        applies: Applies::NonTemporalStore,
        by: &["sfence", "mfence"],
        also: &["a locked instruction"],
        ..x86(
            Vendor::Any,
            "x86.fetch.store-fence",
            Action::StoreFence,
            "Non-temporal stores may be passed by the store that announces them.",
            SDM_NT,
        )
    },
    FetchRow {
        also: &["reads-from of a flag stored after the code", "an interrupt sent after it"],
        ..x86(
            Vendor::Any,
            "x86.fetch.publish",
            Action::Publish,
            "The executing CPU reads a flag that was stored after the code; stores are in order.",
            SDM_CODE,
        )
    },
    FetchRow {
        needs: &["x86.fetch.publish"],
        by: SERIAL_INTEL,
        not_by: &[
            "interrupt or exception entry",
            "sysret",
            "sysexit",
            "lfence",
            "mfence",
            "sfence",
            "a locked instruction",
            "vm entry",
            "wrmsr to an x2APIC or other exempt register",
            "mov cr8",
            "a cross-call that a polling idle CPU runs without interrupt",
        ],
        ..x86(
            Vendor::Intel,
            "x86.fetch.serialise-intel",
            Action::ContextSync,
            "After it saw the flag, the executing CPU executes a serialising instruction.",
            SDM_SERIAL,
        )
    },
    FetchRow {
        needs: &["x86.fetch.publish"],
        by: SERIAL_AMD,
        not_by: &[
            "interrupt or exception entry",
            "sysret",
            "lfence",
            "a locked instruction",
            "serialize",
            "invpcid",
            "invlpgb",
            "tlbsync",
            "wrmsr to an x2APIC register, SPEC_CTRL or PRED_CMD",
            "a cross-call that a polling idle CPU runs without interrupt",
        ],
        ..x86(
            Vendor::Amd,
            "x86.fetch.serialise-amd",
            Action::ContextSync,
            "After it saw the flag, the executing CPU executes a serialising instruction; MFENCE \
             is one, SERIALIZE is not listed.",
            APM_SERIAL,
        )
    },
    disputed(FetchRow {
        applies: Applies::SameCpuSameAddress,
        by: &["jmp", "call", "ret"],
        instead_of: Some("x86.fetch.serialise-intel"),
        ..x86(
            Vendor::Intel,
            "x86.fetch.self-jump-intel",
            Action::ContextSync,
            "A CPU that stores through the address from which it executes may jump instead. Intel \
             has been asked to drop this option.",
            SDM_CODE,
        )
    }),
    FetchRow {
        applies: Applies::SameCpu,
        by: SERIAL_INTEL,
        instead_of: Some("x86.fetch.serialise-intel"),
        ..x86(
            Vendor::Intel,
            "x86.fetch.self-alias-intel",
            Action::ContextSync,
            "Prefetched instructions are matched by linear address: a CPU that stores its own code \
             through another address serialises.",
            SDM_ALIAS,
        )
    },
    FetchRow {
        applies: Applies::SameCpu,
        also: &["nothing: own stores are compared with fetched instructions by physical address"],
        instead_of: Some("x86.fetch.serialise-amd"),
        ..x86(
            Vendor::Amd,
            "x86.fetch.self-amd",
            Action::ContextSync,
            "Own stores to code are recognised at once, through any alias, without a jump.",
            APM_CODE,
        )
    },
    FetchRow {
        applies: Applies::Unreachable,
        also: &["nothing: the exposing store is an aligned one, and fetches see stores in order"],
        instead_of: Some("x86.fetch.serialise-amd"),
        ..x86(
            Vendor::Amd,
            "x86.fetch.expose-amd",
            Action::ContextSync,
            "Code that could not be reached until one store inside an aligned quadword exposed it \
             needs no serialising instruction in the executing CPU.",
            APM_CODE,
        )
    },
    FetchRow {
        by: SERIAL_INTEL,
        instead_of: Some("x86.fetch.serialise-intel"),
        ..x86(
            Vendor::Intel,
            "x86.fetch.new-mapping-intel",
            Action::ContextSync,
            "The walk of an instruction fetch may come before this CPU's older page-table store, \
             so a new mapping needs a serialising instruction before its first execution.",
            SDM_NEW_MAP,
        )
    },
    // powerpc.
    FetchRow {
        by: &["dcbst", "dcbf"],
        not_by: &["dcbi"],
        ..ppc(
            When::without(COHERENT),
            "powerpc.fetch.clean",
            Action::Clean,
            "Every data line written is stored to memory, by the address through which it was \
             written.",
            PPC_CACHE,
        )
    },
    FetchRow {
        needs: &["powerpc.fetch.clean"],
        by: &["sync", "ptesync"],
        not_by: &["lwsync", "eieio", "isync"],
        ..ppc(
            When::without(COHERENT),
            "powerpc.fetch.clean-complete",
            Action::CompleteClean,
            "A heavyweight sync completes the dcbst before the icbi.",
            PPC_CACHE,
        )
    },
    FetchRow {
        by: &["sync", "ptesync"],
        not_by: &["lwsync", "eieio", "isync"],
        ..ppc(
            When::with(COHERENT),
            "powerpc.fetch.store-complete",
            Action::CompleteClean,
            "With a coherent instruction cache no dcbst is needed; the sync stays.",
            PPC_COHERENT,
        )
    },
    FetchRow {
        needs: &["powerpc.fetch.clean-complete"],
        by: &["icbi"],
        ..ppc(
            When::without(COHERENT),
            "powerpc.fetch.invalidate",
            Action::Invalidate,
            "Every instruction line is invalidated, by the address that is executed.",
            PPC_CACHE,
        )
    },
    FetchRow {
        needs: &["powerpc.fetch.store-complete"],
        by: &["icbi"],
        ..ppc(
            When::with(COHERENT),
            "powerpc.fetch.invalidate-dummy",
            Action::Invalidate,
            "With a coherent instruction cache one icbi, of any address, takes part in the order.",
            PPC_COHERENT,
        )
    },
    FetchRow {
        needs: &["powerpc.fetch.invalidate", "powerpc.fetch.invalidate-dummy"],
        by: &["sync", "ptesync"],
        not_by: &["isync", "lwsync"],
        ..ppc(
            When::ALWAYS,
            "powerpc.fetch.invalidate-complete",
            Action::CompleteInvalidate,
            "A second sync makes the icbi performed for every CPU; for oneself isync is enough.",
            PPC_CACHE,
        )
    },
    FetchRow {
        needs: &["powerpc.fetch.invalidate-complete"],
        by: &["lwsync", "sync"],
        also: &["reads-from of a flag stored after completion", "an interrupt sent after it"],
        ..ppc(
            When::ALWAYS,
            "powerpc.fetch.publish",
            Action::Publish,
            "Completion happens before the executing CPU's context synchronisation.",
            PPC_ORDER,
        )
    },
    FetchRow {
        needs: &["powerpc.fetch.publish"],
        by: &["isync", "rfid", "rfi", "sc"],
        also: &["interrupt entry, but for non-recoverable system reset and machine check"],
        not_by: &["sync", "a cross-call that a polling idle CPU runs without interrupt"],
        ..ppc(
            When::ALWAYS,
            "powerpc.fetch.context-sync",
            Action::ContextSync,
            "isync drops prefetched instructions of this thread; every thread needs its own.",
            PPC_CSI,
        )
    },
    FetchRow {
        by: &["hrfid", "mtmsrd", "rfscv", "scv", "urfid"],
        instead_of: Some("powerpc.fetch.context-sync"),
        ..ppc(
            When::ALWAYS,
            "powerpc.fetch.context-sync-more",
            Action::ContextSync,
            "Further context synchronising instructions; mtmsrd with L = 0 only.",
            Cite::memory("Power ISA 3.1B Book III, list of context synchronising instructions"),
        )
    },
];
