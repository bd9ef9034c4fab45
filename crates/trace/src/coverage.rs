//! Which kinds of event a log records, by the functions that were probed, and what it cannot show.
//!
//! A kind is recorded only if every one of its sources was probed: permission changes without
//! mappings are not "leaf entries". What no probe can see on an architecture is a row too.

use crate::functions::{Function, Meaning, all};
use std::collections::BTreeSet;
use textbed_arch::Arch;
use textbed_event::{Kind, KindSet};

/// What was probed: names of functions at entry (and tracepoints), and at return.
#[derive(Debug, Clone, Default)]
pub struct Probed {
    /// Entries and tracepoints.
    pub entries: BTreeSet<&'static str>,
    /// Returns.
    pub returns: BTreeSet<&'static str>,
}

/// What the lowering asks about each event, looked up once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Pages being mapped.
    pub maps: bool,
    /// Page-table entries being cleared.
    pub unmaps: bool,
    /// Purges, after the fact.
    pub purged: bool,
    /// x86: walks over entries.
    pub cpa_walk: bool,
    /// x86: the end of such a walk.
    pub cpa_end: bool,
    /// arm64: entries being changed.
    pub change_apply: bool,
    /// powerpc: single entries being changed.
    pub attr_page: bool,
    /// Changes of entries, by whatever function.
    pub changes_inside: bool,
    /// Invalidations of kernel translations.
    pub flushes: bool,
    /// Patchers.
    pub text_poke: bool,
    /// Cross-calls being sent.
    pub cross_call: bool,
    /// Areas being given back, and being removed.
    pub frees: bool,
    /// x86: patches, and what synchronises CPUs for them.
    pub patches_end_synced: bool,
    /// arm64: copies of code, and the cross-calls behind their maintenance.
    pub kicks: bool,
}

impl Probed {
    /// What there is to see.
    pub fn seen(&self, arch: Arch) -> Seen {
        use crate::functions::Runs;
        let has = |m: Meaning| self.meaning(|x| x == m);
        Seen {
            maps: has(Meaning::MapPages),
            unmaps: has(Meaning::UnmapPages),
            purged: has(Meaning::Purged),
            cpa_walk: has(Meaning::CpaWalk),
            cpa_end: has(Meaning::CpaFlush) || self.returns.contains("change_page_attr_set_clr"),
            change_apply: has(Meaning::ChangeMemoryApply),
            attr_page: has(Meaning::AttrPage),
            changes_inside: self.changes_inside(arch),
            flushes: self.flushes(arch),
            text_poke: has(Meaning::TextPoke),
            cross_call: self.crosses(),
            frees: self.frees(),
            patches_end_synced: has(Meaning::PatchBatch)
                && has(Meaning::TextPoke)
                && self.crosses()
                && has(Meaning::Remote(Runs::SyncCore)),
            kicks: has(Meaning::TextCopy) && self.crosses() && has(Meaning::Remote(Runs::Nothing)),
        }
    }

    /// Whether a function with such a meaning was probed.
    pub fn meaning(&self, wanted: impl Fn(Meaning) -> bool) -> bool {
        self.functions().any(|f| wanted(f.meaning))
    }

    /// Whether any function that asks other CPUs to run something was probed.
    fn crosses(&self) -> bool {
        self.meaning(|m| matches!(m, Meaning::CrossCall { .. }))
    }

    /// The functions probed at entry.
    pub fn functions(&self) -> impl Iterator<Item = &'static Function> {
        all().filter(|f| self.entries.contains(f.name))
    }

    /// Whether the change of entries itself is seen on that architecture.
    pub fn changes_inside(&self, arch: Arch) -> bool {
        self.meaning(|m| match arch {
            Arch::X86_64 => matches!(m, Meaning::CpaWalk | Meaning::CpaCall),
            Arch::Arm64 => matches!(m, Meaning::ChangeMemoryApply | Meaning::ChangeMemoryCall),
            _ => matches!(m, Meaning::AttrPage | Meaning::AttrCall),
        })
    }

    /// Whether invalidations of kernel translations are seen.
    pub fn flushes(&self, arch: Arch) -> bool {
        use crate::functions::Runs;
        match arch {
            Arch::X86_64 => {
                self.meaning(|m| m == Meaning::Remote(Runs::FlushAll))
                    && self.meaning(|m| m == Meaning::Remote(Runs::FlushRange))
            }
            // Broadcast instructions, inlined.
            Arch::Arm64 => false,
            _ => self.meaning(|m| m == Meaning::BroadcastFlush),
        }
    }

    /// Whether it is seen when an area's pages go back: who gave it back, and who removes it.
    pub fn frees(&self) -> bool {
        ["vfree", "remove_vm_area"].iter().all(|name| self.entries.contains(name))
            && self.meaning(|m| m == Meaning::UnmapPages)
    }

    /// The kinds recorded.
    pub fn kinds(&self, arch: Arch) -> KindSet {
        use crate::functions::Runs;
        let mut kinds = vec![Kind::Gap, Kind::Marker];
        let has = |m: Meaning| self.meaning(|x| x == m);
        let set_memory = self.meaning(|m| matches!(m, Meaning::SetMemory(_)));
        let maps = has(Meaning::MapPages) || has(Meaning::VmallocRange);
        let unmaps = has(Meaning::UnmapPages) || has(Meaning::RemoveArea);
        if maps && unmaps && (set_memory || self.changes_inside(arch)) {
            kinds.push(Kind::Leaf);
        }
        if has(Meaning::VmallocRange) || has(Meaning::AllocArea) {
            kinds.push(Kind::AreaMade);
        }
        if has(Meaning::RemoveArea) {
            kinds.push(Kind::AreaRemoved);
        }
        if self.frees() || has(Meaning::PagesFreed) {
            kinds.push(Kind::FrameFree);
        }
        if has(Meaning::PagesTaken) {
            kinds.push(Kind::FrameAlloc);
        }
        if !self.returns.is_empty() {
            kinds.extend([Kind::CallEntered, Kind::CallReturned]);
        }
        let promises = |f: &Function| {
            matches!(f.meaning, Meaning::SetMemory(_) | Meaning::AttrCall)
                && self.returns.contains(f.name)
        };
        if self.functions().any(promises) {
            kinds.extend([Kind::Promised, Kind::Refused]);
        }
        if self.flushes(arch) {
            kinds.push(Kind::TlbInvalidate);
        }
        if arch == Arch::X86_64 {
            if has(Meaning::TextPoke) {
                kinds.extend([Kind::WindowOpened, Kind::WindowClosed]);
            }
            if self.seen(arch).patches_end_synced {
                kinds.push(Kind::StoreLate);
            }
            if has(Meaning::PatchTrap) {
                kinds.push(Kind::PatchSite);
            }
            if has(Meaning::Remote(Runs::SyncCore)) {
                kinds.push(Kind::ContextSync);
            }
        }
        if arch == Arch::Arm64 && self.seen(arch).kicks {
            kinds.extend([Kind::StoreLate, Kind::ContextSync]);
        }
        if arch.is_powerpc() {
            kinds.push(Kind::WindowOpened);
        }
        if self.crosses() && self.meaning(|m| matches!(m, Meaning::Remote(_))) {
            kinds.extend([Kind::IpiSent, Kind::IpiTaken, Kind::IpiDone]);
        }
        if has(Meaning::StopMachine) {
            kinds.push(Kind::StopMachine);
        }
        let owners =
            |m| matches!(m, Meaning::ExecmemAlloc | Meaning::ExecAlloc(_) | Meaning::ExecPiece(_));
        if self.meaning(owners) {
            kinds.push(Kind::Region);
        }
        KindSet::of(&kinds)
    }

    /// What this log cannot show, in sentences.
    pub fn not_seen(&self, arch: Arch) -> Vec<String> {
        let mut out: Vec<String> = vec![
            "executed code, fetches and the contents of stores: kprobes do not see them".into(),
            "locks and publication: which CPU learnt of a change by other means than a cross-call"
                .into(),
            "whether a caller looked at a result".into(),
            "user address spaces, and the patcher's own alias: only its window is known".into(),
        ];
        match arch {
            Arch::X86_64 => out.push("interrupts and returns from them but for cross-calls".into()),
            Arch::Arm64 => {
                out.push(
                    "instruction patches one by one (aarch64_insn_patch_text_nosync) and cache \
                     maintenance (caches_clean_inval_pou): no probe can be put there; their \
                     absence is no finding"
                        .into(),
                );
                out.push(
                    "TLB invalidations: broadcast instructions, inlined; modelled here".into(),
                );
            }
            _ => {
                out.push(
                    "patch_instruction and its kin: no probe can be put there; the window of \
                     bpf_arch_text_copy is modelled, others are not seen"
                        .into(),
                );
                out.push("set_memory_* themselves: inline, seen as change_memory_attr".into());
            }
        }
        let missing = KindSet::of(&[
            Kind::Leaf,
            Kind::AreaMade,
            Kind::AreaRemoved,
            Kind::CallEntered,
            Kind::Promised,
            Kind::TlbInvalidate,
            Kind::IpiSent,
        ])
        .without(self.kinds(arch));
        for kind in missing.iter() {
            out.push(format!("{kind:?} events: not all functions behind them were probed"));
        }
        out
    }
}
