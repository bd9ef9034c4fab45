//! The rows of the rules.

use textbed_arch::Cite;
use textbed_event::{Facts, Kind, KindSet};

use super::{Family, RuleId, RuleRow};
use crate::finding::Level;

const SDM_SMC: Cite =
    Cite::read("Intel SDM 3A, Handling Self- and Cross-Modifying Code (8.1.3 in 325384-059)");
const APM_SMC: Cite = Cite::read("AMD APM vol 2, 7.6.1 Cache Organization (24593 rev 3.44)");
const ARM_ICACHE: Cite = Cite::read("Arm ARM DDI 0487 B2.7.4.2, K11.5.2");
const ARM_CAT: Cite = Cite::read("herdtools7 aarch64.cat and aarch64hwreqs.cat (M.a)");
const POWER_ICACHE: Cite =
    Cite::read("IBM 750GX UM 3.2; Linux 6.19 arch/powerpc/lib/code-patching.c");
const SDM_TLB: Cite = Cite::read("Intel SDM 3A 4.10.4 Invalidation of TLBs (325384-059)");
const APM_TLB: Cite = Cite::read("AMD APM vol 2, 5.5.3 TLB Management (24593 rev 3.44)");
const ARM_TLB: Cite = Cite::read("Arm ARM DDI 0487 D8.17.5, D8.17.8, K11.5.3");
const POWER_TLB: Cite =
    Cite::read("Power ISA tlbsync, tlbiel (paraphrase read); Linux 6.19 book3s/64/radix_tlb.c");

const ARM_BBM: Cite = Cite::read("Arm ARM DDI 0487 D8.17.1 RWHZWS, RDDMVT");
const ARM_PTE_ORDER: Cite =
    Cite::read("Arm ARM DDI 0487 D8.2.6.1 RSPVBD, D8.17 IWZCBG (context synchronisation)");
const ARM_HOLE: Cite = Cite::deduced("Arm ARM DDI 0487 D8.17.1: permissions are not in RWHZWS");
const POWER_BREAK: Cite =
    Cite::read("Linux 6.19 powerpc radix.h, radix_tlb.c, tlbflush.h (Power ISA 3.1B 6.10.1.2)");
const POWER_HOLE: Cite =
    Cite::deduced("linuxppc-dev 2021, set_memory on running code; Linux 6.12 powerpc pageattr.c");

const ARM_LIVE: Cite =
    Cite::read("Arm ARM DDI 0487 B2.2.5 Concurrent modification and execution of instructions");
const ATOMICITY: Cite =
    Cite::read("Linux commits 2dc419613805, aec86b052df6, 8547649981e6 (messages)");
const POWER_PREFIX: Cite = Cite::read(
    "Linux 6.12 powerpc reg.h (SRR1_BOUNDARY), uprobes.c: prefixed instructions and 64 bytes",
);
const LOCKS: Cite = Cite::read("Linux commits 9f255b632bf1, 2aebf5ee43bf (messages)");
const SELF: Cite =
    Cite::read("Linux commits 49b39ec248af, 5b48ba2fbd77, d35652a5fc99, 429388682dc2 (messages)");
const QUIESCENCE: Cite = Cite::read("Linux commits 5c02ece81848, 8547649981e6 (messages)");
const METADATA: Cite =
    Cite::read("Linux commits 285a54efe386, efd608fa7403, 9e667624c291, f263a81451c1 (messages)");
const READ_ONLY: Cite =
    Cite::deduced("Intel SDM 3A 4.6.1, CR0.WP; AMD APM vol 2, 5.6: supervisor writes");
const PADS_X86: Cite =
    Cite::read("Intel SDM 2A ENDBR64; 12th generation datasheet, Indirect Branch Tracking");
const PADS_ARM: Cite = Cite::read("Linux commit 738a96c4a8c3 (message); arm64: BTI and PACIASP");
const MISMATCH: Cite = Cite::read("Linux commits 9e1db76f44de, c841668784cc (messages)");
const RANGES: Cite = Cite::read("Linux commit 8e41f8726dcf (message)");
const ALIASES: Cite = Cite::read("Linux commits ab5130186d74, 37cb0aab9068 (messages)");
const CONTEXTS: Cite =
    Cite::read("Linux commits ce2b3a50ad92, 591b4b268435, f6cc0c501649 (messages)");

static WX: [Cite; 3] = [
    Cite::deduced("Intel SDM 3A 4.6 (access rights); Arm ARM D8.4; Power ISA Book III radix"),
    SDM_TLB,
    ARM_TLB,
];

/// Every rule, in the order of [`RuleId`].
pub static RULES: &[RuleRow] = &[
    RuleRow {
        id: RuleId::WxMapping,
        name: "wx-mapping",
        family: Family::Permissions,
        summary: "one mapping of kernel memory is writable and executable",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf]),
        facts: Facts::empty(),
        sure: Facts::empty(),
        cites: &WX,
        explain: include_str!("pages/wx-mapping.md"),
    },
    RuleRow {
        id: RuleId::WxAlias,
        name: "wx-alias",
        family: Family::Permissions,
        summary: "memory that is executable through one mapping is writable through another",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf]),
        facts: Facts::empty(),
        sure: Facts::PHYS,
        cites: &WX,
        explain: include_str!("pages/wx-alias.md"),
    },
    RuleRow {
        id: RuleId::WxStaleTranslation,
        name: "wx-stale-translation",
        family: Family::Permissions,
        summary: "memory stays writable and executable through a translation not yet invalidated",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf, Kind::TlbInvalidate]),
        facts: Facts::empty(),
        sure: Facts::MAINTENANCE.union(Facts::TOTAL_ORDER),
        cites: &[SDM_TLB, APM_TLB, ARM_TLB, POWER_TLB],
        explain: include_str!("pages/wx-stale-translation.md"),
    },
    RuleRow {
        id: RuleId::DirectMapLeak,
        name: "direct-map-leak",
        family: Family::Permissions,
        summary: "a frame was freed while the direct map does not grant what it did before",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf, Kind::FrameAlloc, Kind::FrameFree]),
        facts: Facts::PHYS.union(Facts::FRAMES),
        sure: Facts::ALL_ALIASES,
        cites: &[Cite::read("Linux 6.4 to 7.0, mm: freeing an area resets the direct map first")],
        explain: include_str!("pages/direct-map-leak.md"),
    },
    RuleRow {
        id: RuleId::MissingIcacheMaintenance,
        name: "missing-icache-maintenance",
        family: Family::InstructionSide,
        summary: "code is executed though caches may still hold the bytes before it",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[
            Kind::Store,
            Kind::Fetch,
            Kind::CacheClean,
            Kind::IcacheInvalidate,
            Kind::Barrier,
        ]),
        facts: Facts::PHYS.union(Facts::MAINTENANCE),
        sure: Facts::ALL_STORES.union(Facts::TOTAL_ORDER),
        cites: &[ARM_ICACHE, ARM_CAT, POWER_ICACHE],
        explain: include_str!("pages/missing-icache-maintenance.md"),
    },
    RuleRow {
        id: RuleId::MissingContextSync,
        name: "missing-context-sync",
        family: Family::InstructionSide,
        summary: "code is executed by a CPU that may have fetched the old bytes ahead",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Store, Kind::Fetch, Kind::ContextSync]),
        facts: Facts::PHYS.union(Facts::MAINTENANCE),
        sure: Facts::ALL_STORES.union(Facts::TOTAL_ORDER),
        cites: &[SDM_SMC, APM_SMC, ARM_ICACHE, ARM_CAT, POWER_ICACHE],
        explain: include_str!("pages/missing-context-sync.md"),
    },
    RuleRow {
        id: RuleId::MissingPublicationOrder,
        name: "missing-publication-order",
        family: Family::InstructionSide,
        summary: "code is executed while nothing orders its last store before or after the fetch",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Store, Kind::Fetch, Kind::ContextSync]),
        facts: Facts::PHYS.union(Facts::SYNCHRONISATION),
        sure: Facts::ALL_STORES.union(Facts::CONTENTS),
        cites: &[SDM_SMC, APM_SMC, ARM_CAT],
        explain: include_str!("pages/missing-publication-order.md"),
    },
    RuleRow {
        id: RuleId::StaleTranslation,
        name: "stale-translation",
        family: Family::Translations,
        summary: "a CPU may still go by a translation that was to be gone",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf, Kind::TlbInvalidate, Kind::Promised]),
        facts: Facts::empty(),
        sure: Facts::MAINTENANCE.union(Facts::TOTAL_ORDER),
        cites: &[SDM_TLB, APM_TLB, ARM_TLB, POWER_TLB],
        explain: include_str!("pages/stale-translation.md"),
    },
    RuleRow {
        id: RuleId::ExecAfterFree,
        name: "exec-after-free",
        family: Family::Translations,
        summary: "an executable translation reaches a frame that went back to the allocator",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf, Kind::FrameFree]),
        facts: Facts::empty(),
        sure: Facts::TOTAL_ORDER,
        cites: &[SDM_TLB, ARM_TLB, POWER_TLB],
        explain: include_str!("pages/exec-after-free.md"),
    },
    RuleRow {
        id: RuleId::WalkAfterFree,
        name: "walk-after-free",
        family: Family::Translations,
        summary: "a page of page tables was given back while a CPU may still walk through it",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::TableUnlinked, Kind::TableFreed, Kind::TlbInvalidate]),
        facts: Facts::PHYS,
        sure: Facts::TOTAL_ORDER,
        cites: &[SDM_TLB, ARM_TLB, POWER_TLB],
        explain: include_str!("pages/walk-after-free.md"),
    },
    RuleRow {
        id: RuleId::MissingTrapFill,
        name: "missing-trap-fill",
        family: Family::Contents,
        summary: "executable memory holds bytes that nobody wrote since its frames were handed out",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf, Kind::FrameAlloc, Kind::Store, Kind::Fill]),
        facts: Facts::PHYS.union(Facts::FRAMES).union(Facts::ALL_STORES),
        sure: Facts::CONTENTS,
        cites: &[
            Cite::read("Linux 5.19 and later, kernel/bpf/core.c: packs are filled with traps"),
            Cite::read("Intel SDM 3A, Interrupt 3 (#BP); 2A, INT n/INTO/INT3/INT1"),
            Cite::read("Linux 6.12 arm64 insn-def.h: a BRK that provokes a fault on purpose"),
            Cite::read("Linux 6.12 powerpc probes.h: trap; IBM 750GX UM 2.3.1.3: zeros"),
        ],
        explain: include_str!("pages/missing-trap-fill.md"),
    },
    RuleRow {
        id: RuleId::BrokenPromise,
        name: "broken-promise",
        family: Family::Calls,
        summary: "a call returned, and the page tables do not say what it promised",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf, Kind::Promised]),
        facts: Facts::empty(),
        sure: Facts::empty(),
        cites: &[Cite::read("Linux, by call and version: the source that the promise carries")],
        explain: include_str!("pages/broken-promise.md"),
    },
    RuleRow {
        id: RuleId::IgnoredError,
        name: "ignored-error",
        family: Family::Calls,
        summary: "a call failed, and its caller did not look",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::CallReturned, Kind::ResultDropped]),
        facts: Facts::RESULT_USE,
        sure: Facts::RESULT_USE,
        cites: &[Cite::read("Linux 6.12, include/linux: permission stubs are __must_check")],
        explain: include_str!("pages/ignored-error.md"),
    },
    RuleRow {
        id: RuleId::HugeMappingRefused,
        name: "huge-mapping-refused",
        family: Family::Calls,
        summary: "a change of permissions was refused on a huge mapping, and nobody looked",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Refused]),
        facts: Facts::empty(),
        sure: Facts::empty(),
        cites: &[
            Cite::read("Linux 5.19 to 7.0, arch/powerpc/mm/pageattr.c"),
            Cite::read("Linux 6.1 to 7.0, arch/arm64/mm/pageattr.c"),
        ],
        explain: include_str!("pages/huge-mapping-refused.md"),
    },
    RuleRow {
        id: RuleId::BreakBeforeMake,
        name: "break-before-make",
        family: Family::Translations,
        summary: "a valid entry was replaced by one that the old one must be gone for",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf, Kind::TlbInvalidate]),
        facts: Facts::PHYS,
        sure: Facts::MAINTENANCE.union(Facts::TOTAL_ORDER),
        cites: &[ARM_BBM, POWER_BREAK, APM_TLB],
        explain: include_str!("pages/break-before-make.md"),
    },
    RuleRow {
        id: RuleId::MissingPteOrder,
        name: "missing-pte-order",
        family: Family::Translations,
        summary: "a table store was not ordered before the invalidation or the use that needs it",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf, Kind::TlbInvalidate, Kind::Barrier]),
        facts: Facts::MAINTENANCE,
        sure: Facts::TOTAL_ORDER,
        cites: &[ARM_PTE_ORDER, POWER_BREAK],
        explain: include_str!("pages/missing-pte-order.md"),
    },
    RuleRow {
        id: RuleId::LiveMappingHole,
        name: "live-mapping-hole",
        family: Family::Translations,
        summary: "a mapping that is in use was invalid while its permissions were changed",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf, Kind::CallReturned]),
        facts: Facts::empty(),
        sure: Facts::TOTAL_ORDER,
        cites: &[SDM_TLB, ARM_HOLE, POWER_HOLE],
        explain: include_str!("pages/live-mapping-hole.md"),
    },
    RuleRow {
        id: RuleId::TornPatch,
        name: "torn-patch",
        family: Family::Patching,
        summary: "a CPU may run a mixture of old and new code",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Store, Kind::Fetch, Kind::ContextSync]),
        facts: Facts::PHYS.union(Facts::MAINTENANCE),
        sure: Facts::ALL_STORES.union(Facts::TOTAL_ORDER).union(Facts::CONTENTS),
        cites: &[SDM_SMC, APM_SMC, ARM_LIVE, POWER_ICACHE, ATOMICITY],
        explain: include_str!("pages/torn-patch.md"),
    },
    RuleRow {
        id: RuleId::MisalignedPatch,
        name: "misaligned-patch",
        family: Family::Patching,
        summary: "a place that is patched live does not lie in one unit of what CPUs fetch",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Store]),
        facts: Facts::PHYS,
        sure: Facts::TOTAL_ORDER,
        cites: &[SDM_SMC, APM_SMC, ARM_LIVE, POWER_PREFIX],
        explain: include_str!("pages/misaligned-patch.md"),
    },
    RuleRow {
        id: RuleId::UnlockedPatch,
        name: "unlocked-patch",
        family: Family::Patching,
        summary: "text is changed without the lock that its patchers share",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Needs, Kind::LockAcquired, Kind::CallEntered]),
        facts: Facts::empty(),
        sure: Facts::SYNCHRONISATION,
        cites: &[LOCKS],
        explain: include_str!("pages/unlocked-patch.md"),
    },
    RuleRow {
        id: RuleId::SelfPatch,
        name: "self-patch",
        family: Family::Patching,
        summary: "a patcher runs the code that it is in the middle of patching",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::PatchSite, Kind::Store, Kind::Fetch, Kind::CallReturned]),
        facts: Facts::PHYS,
        sure: Facts::empty(),
        cites: &[SELF],
        explain: include_str!("pages/self-patch.md"),
    },
    RuleRow {
        id: RuleId::NoQuiescence,
        name: "no-quiescence",
        family: Family::Patching,
        summary: "code is replaced or freed while a task stands in it",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::TaskStands, Kind::Store]),
        facts: Facts::PHYS,
        sure: Facts::TOTAL_ORDER,
        cites: &[QUIESCENCE],
        explain: include_str!("pages/no-quiescence.md"),
    },
    RuleRow {
        id: RuleId::PatchMetadata,
        name: "patch-metadata",
        family: Family::Patching,
        summary: "what patchers know of a site does not fit what is there",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::PatchSite, Kind::TrapHandler, Kind::Trap]),
        facts: Facts::PHYS,
        sure: Facts::TOTAL_ORDER,
        cites: &[METADATA, SDM_SMC, ARM_LIVE],
        explain: include_str!("pages/patch-metadata.md"),
    },
    RuleRow {
        id: RuleId::WriteThroughReadOnly,
        name: "write-through-read-only",
        family: Family::Permissions,
        summary: "code is written through a mapping that does not grant it",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Leaf, Kind::Store, Kind::Fault]),
        facts: Facts::ALL_STORES,
        sure: Facts::PHYS.union(Facts::ALL_ALIASES),
        cites: &[READ_ONLY, ARM_TLB, POWER_TLB],
        explain: include_str!("pages/write-through-read-only.md"),
    },
    RuleRow {
        id: RuleId::MissingLandingPad,
        name: "missing-landing-pad",
        family: Family::Contents,
        summary: "an indirect branch arrives where no landing pad is",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Branch, Kind::Control, Kind::Store]),
        facts: Facts::CONTENTS.union(Facts::PHYS),
        sure: Facts::ALL_STORES,
        cites: &[PADS_X86, PADS_ARM],
        explain: include_str!("pages/missing-landing-pad.md"),
    },
    RuleRow {
        id: RuleId::VerifyMismatch,
        name: "verify-mismatch",
        family: Family::Contents,
        summary: "memory is not what its patcher or generator expected",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Compared]),
        facts: Facts::empty(),
        sure: Facts::empty(),
        cites: &[MISMATCH],
        explain: include_str!("pages/verify-mismatch.md"),
    },
    RuleRow {
        id: RuleId::WrongRange,
        name: "wrong-range",
        family: Family::Calls,
        summary: "maintenance, a flush or a copy of code covers other bytes than it is meant for",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Store, Kind::Fetch, Kind::CacheClean, Kind::TlbInvalidate]),
        facts: Facts::PHYS.union(Facts::MAINTENANCE),
        sure: Facts::ALL_STORES.union(Facts::TOTAL_ORDER),
        cites: &[ARM_ICACHE, POWER_ICACHE, SDM_TLB, ARM_TLB, RANGES],
        explain: include_str!("pages/wrong-range.md"),
    },
    RuleRow {
        id: RuleId::WrongAlias,
        name: "wrong-alias",
        family: Family::Calls,
        summary: "maintenance, a flush or a patch used another address than the one that needs it",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Store, Kind::Fetch, Kind::CacheClean, Kind::TlbInvalidate]),
        facts: Facts::PHYS.union(Facts::MAINTENANCE),
        sure: Facts::ALL_ALIASES.union(Facts::TOTAL_ORDER),
        cites: &[ARM_ICACHE, POWER_ICACHE, SDM_TLB, ARM_TLB, ALIASES],
        explain: include_str!("pages/wrong-alias.md"),
    },
    RuleRow {
        id: RuleId::WrongContext,
        name: "wrong-context",
        family: Family::Calls,
        summary: "a call runs where its own contract forbids it",
        certain: Level::Deny,
        possible: Level::Warn,
        needs: KindSet::of(&[Kind::Needs]),
        facts: Facts::empty(),
        sure: Facts::empty(),
        cites: &[CONTEXTS],
        explain: include_str!("pages/wrong-context.md"),
    },
];
