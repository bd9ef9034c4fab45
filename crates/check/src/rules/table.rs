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
    Cite::read("linuxppc-dev 2021, set_memory on running code; Linux 6.12 powerpc pageattr.c");

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
        summary: "a permission was promised to be gone, and a CPU may still use it",
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
        facts: Facts::PHYS.union(Facts::FRAMES),
        sure: Facts::TOTAL_ORDER,
        cites: &[SDM_TLB, ARM_TLB, POWER_TLB],
        explain: include_str!("pages/exec-after-free.md"),
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
            Cite::memory("Intel SDM 2A INT3; Arm ARM C6 BRK, UDF; Power ISA Book I trap"),
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
        cites: &[Cite::read("the source that the promise carries (kernel tables)")],
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
];
