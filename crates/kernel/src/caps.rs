//! What a kernel version does on an architecture: facts by name, looked up in one table.
//!
//! Code that behaves differently by version asks a [`Fact`] here; the versions stand in
//! [`crate::facts`] alone. Not here: which calls exist ([`crate::CALLS`]) and what they promise
//! ([`crate::PROMISES`]).

use textbed_arch::{Arch, Cite, Evidence};

use crate::facts::FACTS;
use crate::version::{Version, in_range};

/// A fact's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// It is not so.
    No,
    /// It is so.
    Yes,
    /// One of several ways, by name.
    Word(&'static str),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Value::No => "no",
            Value::Yes => "yes",
            Value::Word(word) => word,
        })
    }
}

/// One row: a fact's value on some architectures from one version to another.
#[derive(Clone, Copy, Debug)]
pub struct FactRow {
    /// Which fact.
    pub fact: Fact,
    /// Architectures that the row speaks of.
    pub archs: &'static [Arch],
    /// First version; `None` = always so, as far back as the table looks (5.13).
    pub since: Option<Version>,
    /// First version in which it no longer holds.
    pub until: Option<Version>,
    /// The value.
    pub value: Value,
    /// Where it is to be seen.
    pub cite: Cite,
}

macro_rules! facts {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A fact that differs by version or architecture.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Fact { $($(#[doc = $doc])+ $variant,)+ }

        impl Fact {
            /// Every fact, in the order of reports.
            pub const ALL: &'static [Fact] = &[$(Fact::$variant,)+];

            /// Its name in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Fact::$variant => $name,)+ }
            }

            /// What it says, in a sentence.
            #[must_use]
            pub fn doc(self) -> &'static str {
                match self { $(Fact::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

facts! {
    /// vmalloc can map large leaves (HAVE_ARCH_HUGE_VMALLOC).
    HugeVmalloc = "huge-vmalloc",
    /// vmalloc maps large leaves unless the caller forbids it (VM_NO_HUGE_VMAP), not only if asked.
    HugeVmallocOptOut = "huge-vmalloc-opt-out",
    /// A huge vmalloc without node needs a large leaf's size for each online node.
    SizePerNode = "huge-vmalloc-size-per-node",
    /// module_alloc sets VM_FLUSH_RESET_PERMS itself.
    ModuleAllocResets = "module-alloc-resets-perms",
    /// module_alloc forbids large leaves (VM_NO_HUGE_VMAP).
    ModuleAllocNoHuge = "module-alloc-no-huge",
    /// execmem has replaced module_alloc.
    Execmem = "execmem",
    /// A permission change warns of a mapping that becomes writable and executable.
    WarnsWriteExec = "warns-of-w-and-x",
    /// A permission change by set_memory_* also changes the direct map's alias.
    AliasFollows = "direct-map-follows",
    /// arm64: rodata=on has the direct map follow, as rodata=full does (rodata=noalias has not).
    RodataOnFull = "rodata-on-is-full",
    /// Alias processing is skipped for NX-only changes (else it runs, with NX masked out).
    AliasSkipsNx = "direct-map-skips-nx",
    /// A change of part of an area changes the direct map of the whole area.
    AliasWholeArea = "direct-map-of-whole-area",
    /// set_memory_valid flushes what it makes valid, too.
    ValidFlushed = "made-valid-flushed",
    /// An error of the direct map's change is returned.
    AliasErrorChecked = "direct-map-error-checked",
    /// set_memory_* refuses huge vmalloc areas: how.
    HugeRefusal = "huge-area-refusal",
    /// set_memory_* purges all lazily freed areas first (vm_unmap_aliases).
    SetMemoryPurges = "set-memory-purges",
    /// set_memory_rox is one pass of its own, not set_memory_ro then set_memory_x.
    RoxOnePass = "set-memory-rox-one-pass",
    /// set_direct_map_* does something.
    SetDirectMap = "set-direct-map",
    /// hash_page looks whether a leaf grants execution before it makes an entry for a fetch.
    HashPageExec = "hash-page-checks-execution",
    /// BPF fills a new pack with trap instructions.
    PackFilled = "bpf-pack-filled",
    /// BPF overwrites a freed program with trap instructions.
    PackInvalidated = "bpf-pack-invalidated",
    /// How BPF chooses the size of a pack.
    PackSize = "bpf-pack-size",
    /// A room of a pack is freed with the pack that begins where its large page does.
    PackFreeByMask = "bpf-pack-free-by-mask",
    /// What frees a room reads its size from the header in it.
    PackFreeReads = "bpf-pack-free-reads-size",
    /// BPF looks at the results of permission changes.
    PackChecked = "bpf-permissions-checked",
    /// The JIT of this architecture uses packs.
    PackUsed = "bpf-pack-used",
    /// bpf_arch_text_copy exists beside the weak default.
    TextCopy = "bpf-arch-text-copy",
    /// bpf_arch_text_invalidate exists beside the weak default.
    TextInvalidate = "bpf-arch-text-invalidate",
    /// Where the patcher's writable alias lives.
    PatchAlias = "patch-alias",
    /// powerpc: the error of a store to text that faults.
    PatchFault = "patch-fault",
    /// powerpc: after such a fault there is a sync (with an address space of its own from 6.2 on).
    PatchFaultSyncs = "patch-fault-syncs",
    /// patch_instructions stores with fault handling.
    PatchNofault = "patch-instructions-nofault",
    /// x86: set_memory_rox joins pages to large leaves again.
    CpaCollapse = "set-memory-rox-collapses",
    /// x86: execmem hands out text from a cache of read-only executable memory.
    RoxCache = "execmem-rox-cache",
    /// The architecture has its own bpf_arch_text_poke.
    TextPoke = "bpf-arch-text-poke",
    /// arm64: changing a static key ends with an interrupt to all other CPUs.
    JumpLabelKicks = "jump-label-kicks",
    /// x86: what is patched by an address of user space is copied with LASS lifted (neither LASS
    /// nor that is modelled).
    PokesLiftLass = "text-poke-lifts-lass",
    /// x86: the INT3 protocol can put a conditional jump in place.
    PokesConditional = "int3-conditional-jump",
    /// x86: set_memory_ro clears the dirty bit too (no bit of that kind is modelled).
    ClearsDirty = "set-memory-ro-clears-dirty",
    /// x86: the warning of a writable and executable mapping looks at the upper levels.
    LooksAtUpperLevels = "warning-looks-at-upper-levels",
    /// x86: kernel translations are flushed by INVLPGB, without interrupts.
    Invlpgb = "kernel-flush-by-invlpgb",
    /// x86: a change of page attributes flushes one range as long as its pages are many, from the
    /// first one on, also where they lie apart.
    CpaFlushesRange = "page-arrays-flushed-as-a-range",
    /// x86: PCIDs are off on CPUs whose INVLPG leaves global entries.
    PcidOffByErratum = "pcid-off-where-invlpg-leaves-globals",
    /// arm64: where CPUs want each TLBI twice: every one is repeated, or one more ends each flush.
    RepeatTlbi = "repeated-tlbi",
    /// arm64: entries that change one after the other have the barriers of set_pte() behind the
    /// last, not behind each.
    LazyBarriers = "set-pte-barriers-put-off",
    /// arm64: a flush of kernel addresses rounds its ends to pages, and flushes all from as many
    /// pages on as a table has (before: above these).
    FlushRounds = "kernel-flush-rounds",
    /// arm64: such a flush is by TLBIs that take a range each, and of all from 2^21 pages on only.
    FlushByRange = "kernel-flush-by-range",
    /// vunmap of an area with VM_FLUSH_RESET_PERMS purges.
    VunmapPurges = "vunmap-purges",
    /// vmalloc has a node for each CPU, which keeps purged addresses for areas of the same size.
    VmapNodes = "vmap-nodes",
    /// arm64: vmalloc maps groups of pages by contiguous entries.
    ContPte = "vmalloc-contiguous-entries",
    /// arm64: KFENCE alone has the direct map mapped by pages, as far as can_set_direct_map says.
    KfenceByPages = "kfence-by-pages",
    /// x86: EXECMEM_KPROBES has attributes of its own (read-only and executable).
    ExecmemKprobes = "execmem-kprobes",
    /// arm64: permission changes split live block mappings.
    SplitsLive = "splits-live-blocks",
    /// How a module's memory is divided.
    ModuleSections = "module-memory",
    /// How a module's text becomes executable.
    ModuleText = "module-text-permissions",
    /// A failure to protect ro_after_init data ends the loading of a module.
    AfterInitChecked = "module-ro-after-init-checked",
    /// How the page of kprobes' instruction slots gets its permissions.
    KprobePage = "kprobe-slot-page",
    /// arm64: the slot of a kprobe is written with all CPUs stopped (later by a store for each word
    /// that tells nobody).
    KprobeSlotStops = "kprobe-slot-stops-cpus",
    /// kprobes become jumps after a while (OPTPROBES).
    KprobesOptimise = "kprobe-jump-optimization",
    /// The work item disarms probes whose jump was taken back by force (a probe inside of it).
    OptimiserSeesForced = "kprobe-optimizer-disarms-forced",
    /// arm64: a probed no-operation is simulated, and has no slot.
    Arm64SimulatesNop = "kprobe-simulates-nop",
    /// How a tracer's own ftrace trampoline gets its permissions.
    FtraceTrampoline = "ftrace-trampoline",
    /// arm64: ftrace keeps its ops in a literal before the function.
    FtraceCallOps = "ftrace-call-ops",
    /// powerpc: a probed instruction has to be one that can be stepped (before: no mtmsrd, no
    /// rfid).
    KprobeSteppable = "kprobe-looks-whether-steppable",
    /// A site of ftrace can call an address directly (HAVE_DYNAMIC_FTRACE_WITH_DIRECT_CALLS).
    FtraceDirect = "ftrace-direct-calls",
    /// How a static call reaches its function.
    StaticCall = "static-call",
    /// Where a BPF trampoline's image lives.
    TrampolineImage = "bpf-trampoline-image",
    /// The image of a BPF trampoline goes where the site could not be made to call it (else it
    /// stays for ever).
    ImageFreedOnError = "bpf-trampoline-freed-on-error",
    /// How a return probe gets hold of the return.
    ReturnProbe = "return-probe",
    /// CPU 0 can be taken offline.
    BootCpuRemovable = "boot-cpu-removable",
    /// An idle CPU that polls its task's flags says so (TIF_POLLING_NRFLAG) and is not interrupted.
    PollingIdle = "polling-idle",
}

/// The facts of one version on one architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caps {
    version: Version,
    arch: Arch,
}

impl Caps {
    /// The facts of `version` on `arch`.
    #[must_use]
    pub fn new(version: Version, arch: Arch) -> Self {
        Self { version, arch }
    }

    /// The row that holds, if the table has one.
    #[must_use]
    pub fn get(self, fact: Fact) -> Option<&'static FactRow> {
        FACTS.iter().find(|row| row.fact == fact && self.holds(row))
    }

    /// Every row that holds, in the order of [`Fact::ALL`].
    #[must_use]
    pub fn rows(self) -> Vec<&'static FactRow> {
        Fact::ALL.iter().filter_map(|fact| self.get(*fact)).collect()
    }

    /// Whether the fact is known to be so.
    #[must_use]
    pub fn yes(self, fact: Fact) -> bool {
        self.get(fact).is_some_and(|row| row.value == Value::Yes)
    }

    /// The fact's word; empty where it has none.
    #[must_use]
    pub fn word(self, fact: Fact) -> &'static str {
        match self.get(fact).map(|row| row.value) {
            Some(Value::Word(word)) => word,
            _ => "",
        }
    }

    /// Whether the fact's row rests on memory.
    #[must_use]
    pub fn from_memory(self, fact: Fact) -> bool {
        self.get(fact).is_some_and(|row| row.cite.evidence == Evidence::Memory)
    }

    fn holds(self, row: &FactRow) -> bool {
        row.archs.contains(&self.arch) && in_range(self.version, row.since, row.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::simulated;

    /// The architectures that boot.
    const BOOTED: [Arch; 5] = Arch::ALL;

    #[test]
    fn every_fact_has_exactly_one_value_in_every_simulated_kernel() {
        for version in simulated() {
            for arch in BOOTED {
                let caps = Caps::new(version, arch);
                for fact in Fact::ALL {
                    let rows = FACTS.iter().filter(|r| r.fact == *fact && caps.holds(r)).count();
                    assert_eq!(rows, 1, "{} on {arch} {version}", fact.name());
                }
            }
        }
    }

    #[test]
    fn rows_of_one_fact_never_overlap_and_names_are_unique() {
        for (i, a) in FACTS.iter().enumerate() {
            for b in FACTS.iter().skip(i + 1).filter(|b| b.fact == a.fact) {
                let archs = a.archs.iter().any(|x| b.archs.contains(x));
                let apart = a.until.is_some_and(|u| b.since.is_some_and(|s| u <= s))
                    || b.until.is_some_and(|u| a.since.is_some_and(|s| u <= s));
                assert!(!archs || apart, "{:?} {:?} / {:?}", a.fact, a.since, b.since);
            }
        }
        for (i, a) in Fact::ALL.iter().enumerate() {
            assert!(Fact::ALL.iter().skip(i + 1).all(|b| b.name() != a.name()));
            assert!(a.doc().ends_with('.') || a.doc().ends_with("how."), "{}", a.doc());
        }
    }

    #[test]
    fn the_three_kernels_of_the_2022_mail_differ_where_the_mail_says() {
        let rc3 = Caps::new(Version::candidate(5, 18, 3), Arch::X86_64);
        let final_518 = Caps::new(Version::release(5, 18), Arch::X86_64);
        assert!(rc3.yes(Fact::HugeVmallocOptOut) && !final_518.yes(Fact::HugeVmallocOptOut));
        assert!(!final_518.yes(Fact::PackFilled));
        for arch in [Arch::Arm64, Arch::Ppc64le] {
            assert!(!Caps::new(Version::release(5, 18), arch).yes(Fact::TextCopy));
            assert!(Caps::new(Version::release(6, 12), arch).yes(Fact::TextCopy));
        }
    }
}
