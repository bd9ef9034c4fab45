//! The live state of one stream: everything that the rules look at, and the way from a mark to a
//! site of a finding.

use textbed_arch::{Arch, CpuId, PhysAddr, SpaceId, VirtAddr, sync::live::unit_bytes};
use textbed_event::{
    Batch, CallRef, Event, Facts, Flags, Header, KindSet, NameTable, Source, View,
};

use rustc_hash::FxHashMap;

use crate::book::{Book, Draft};
use crate::calls::Calls;
use crate::coverage::{Occasions, kinds_of, lacking};
use crate::fetch::Fetches;
use crate::finding::{Confidence, Finding, Level, Site};
use crate::frames::Frames;
use crate::groups::Groups;
use crate::mark::Mark;
use crate::memory::BecameExec;
use crate::operation::can_miss;
use crate::options::{Mode, Options};
use crate::patching::Patching;
use crate::per_cpu::PerCpu;
use crate::permits::Authorised;
use crate::refusals::Waiting;
use crate::rules::RuleId;
use crate::span::Span;
use crate::symbols::Symbols;
use crate::tables::{Tables, UNKNOWN_PHYS};
use crate::translation::closing::Attempts;
use crate::translation::{Stale, complete::Issued, told::Told, watch::Watch};
use crate::words;
use crate::wx::WxWindows;

/// The event at hand, with its batch.
#[derive(Clone, Copy)]
pub(crate) struct Now<'a> {
    pub(crate) event: &'a Event,
    pub(crate) batch: &'a Batch,
}

impl Now<'_> {
    pub(crate) fn cpu(self) -> CpuId {
        self.event.cpu
    }

    pub(crate) fn seq(self) -> u64 {
        self.event.seq
    }

    /// Whether the source of an event knows physical addresses.
    pub(crate) fn knows_phys(self) -> bool {
        !self.event.flags.has(Flags::PHYS_UNKNOWN)
    }

    /// The physical address of an event, if its source knows it.
    pub(crate) fn phys(self, phys: PhysAddr) -> Option<u64> {
        (self.knows_phys() && phys.0 < UNKNOWN_PHYS).then_some(phys.0)
    }
}

/// Which CPU uses which address space.
#[derive(Default, Debug)]
pub(crate) struct Cpus {
    /// CPUs that are up, one bit each; from 63 on they share a bit.
    pub(crate) online: u64,
    /// Address space in use by CPU; the kernel's where none was loaded.
    pub(crate) space: PerCpu<SpaceId>,
    /// CPUs that may hold translations of a space, with the identifier they are tagged with.
    pub(crate) tagged: FxHashMap<(CpuId, SpaceId), u16>,
}

impl Cpus {
    fn of(header: &Header) -> Self {
        let online = match header.cpus {
            0 | 64.. => u64::MAX,
            n => (1 << n) - 1,
        };
        Self { online, ..Self::default() }
    }

    pub(crate) fn space_of(&self, cpu: CpuId) -> SpaceId {
        self.space.get(cpu).copied().unwrap_or(SpaceId::KERNEL)
    }

    /// The space that an address belongs to on a CPU.
    #[inline]
    pub(crate) fn space_at(&self, arch: Arch, cpu: CpuId, virt: VirtAddr) -> SpaceId {
        if arch.is_kernel_address(virt) { SpaceId::KERNEL } else { self.space_of(cpu) }
    }

    /// CPUs that use `space` now.
    pub(crate) fn using(&self, space: SpaceId) -> u64 {
        if space == SpaceId::KERNEL {
            return self.online;
        }
        self.space
            .iter()
            .filter(|(_, s)| **s == space)
            .fold(0, |mask, (cpu, _)| mask | View::cpu_bit(cpu))
    }

    /// CPUs that may hold translations of `space`.
    pub(crate) fn holding(&self, space: SpaceId) -> u64 {
        if space == SpaceId::KERNEL {
            return self.online;
        }
        self.tagged
            .keys()
            .filter(|(_, s)| *s == space)
            .fold(0, |mask, (cpu, _)| mask | View::cpu_bit(*cpu))
    }
}

/// Everything that is known at one point of a stream.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) header: Header,
    pub(crate) options: Options,
    pub(crate) names: NameTable,
    pub(crate) calls: Calls,
    pub(crate) refusals: Waiting,
    pub(crate) symbols: Symbols,
    pub(crate) cpus: Cpus,
    pub(crate) tables: Tables,
    pub(crate) stale: Stale,
    /// arm64 and powerpc: what CPUs learned of each other's changes.
    pub(crate) told: Told,
    pub(crate) issued: FxHashMap<CpuId, Issued>,
    /// The last invalidations, for what findings say.
    pub(crate) attempts: Attempts,
    /// The last event by which walks may have come to find something else: a change of the tables
    /// that CPUs may hold, or a barrier.
    pub(crate) walks_moved: u64,
    pub(crate) watch: Watch,
    pub(crate) groups: Groups,
    /// Ranges whose invalidation came before their change was visible, by the outermost call.
    pub(crate) early: Vec<(CallRef, SpaceId, Span)>,
    pub(crate) frames: Frames,
    pub(crate) patching: Patching,
    pub(crate) became_exec: Vec<BecameExec>,
    pub(crate) authorised: Authorised,
    pub(crate) wx: WxWindows,
    pub(crate) fetches: Fetches,
    pub(crate) book: Book,
    pub(crate) occasions: Occasions,
    /// Bytes of code that are seen whole or not at all, see [`unit_bytes`].
    pub(crate) code_unit: u64,
    /// Kinds of which events were lost.
    pub(crate) gaps: KindSet,
    /// Those of which nobody knows where they were lost.
    pub(crate) doubted: KindSet,
    /// Addresses of which the source did not know the frame.
    pub(crate) without_phys: u64,
    /// The rules for which the source records all that they need, a bit each.
    checkable: u64,
}

const _: () = assert!(RuleId::ALL.len() <= 64, "a bit for each rule");

/// The rules for which a source records all that they need, a bit each.
fn checkable(header: &Header) -> u64 {
    let can = RuleId::ALL.into_iter().filter(|rule| lacking(header, *rule).is_none());
    can.fold(0, |all, rule| all | 1 << rule as u32)
}

impl Live {
    pub(crate) fn new(header: Header, mut options: Options) -> Self {
        if !header.facts.contains(Facts::SYNCHRONISATION) {
            options.mode = Mode::Observed;
        }
        Self {
            cpus: Cpus::of(&header),
            fetches: Fetches::new(&header, &options),
            names: NameTable::default(),
            calls: Calls::default(),
            refusals: Waiting::default(),
            symbols: Symbols::default(),
            tables: Tables::default(),
            stale: Stale::default(),
            told: Told::default(),
            issued: FxHashMap::default(),
            attempts: Attempts::default(),
            walks_moved: 0,
            watch: Watch::default(),
            groups: Groups::default(),
            early: Vec::new(),
            frames: Frames::default(),
            patching: Patching::default(),
            became_exec: Vec::new(),
            authorised: Authorised::default(),
            wx: WxWindows::default(),
            book: Book::default(),
            occasions: Occasions::default(),
            code_unit: unit_bytes(header.arch, header.features),
            gaps: KindSet::EMPTY,
            doubted: KindSet::EMPTY,
            without_phys: 0,
            checkable: checkable(&header),
            header,
            options,
        }
    }

    pub(crate) fn arch(&self) -> Arch {
        self.header.arch
    }

    /// Whether the source records all that a rule needs.
    #[inline]
    pub(crate) fn checkable(&self, rule: RuleId) -> bool {
        self.checkable >> rule as u32 & 1 != 0
    }

    /// Bytes of a base page.
    pub(crate) fn page_bytes(&self) -> u64 {
        1 << self.header.page_shift.clamp(12, 30)
    }

    /// The event at hand, as a mark.
    pub(crate) fn mark(&self, now: Now<'_>) -> Mark {
        Mark::of(now.event, now.batch, self.calls.chain(now.event.cause))
    }

    /// The mark as a site of a finding.
    pub(crate) fn site(&self, mark: &Mark, label: impl Into<String>) -> Site {
        let name = |id| {
            let name = self.names.get(id);
            if name.is_empty() { "?".to_owned() } else { name.to_owned() }
        };
        Site {
            seq: mark.seq,
            at_ns: mark.time(),
            kind: mark.kind,
            cpu: mark.cpu,
            virt: mark.virt,
            symbol: mark.virt.and_then(|v| self.symbols.symbol(v.0, &self.names)),
            place: mark.virt.and_then(|v| self.symbols.place(v.0, &self.names)),
            origin: mark.origin,
            calls: self.calls.chains.names(mark.chain).into_iter().map(name).collect(),
            label: label.into(),
        }
    }

    /// The store of code that runs at `virt` as a site. A patcher's own alias lies in nobody's
    /// region, and says less than the place where the code runs.
    pub(crate) fn stored_site(&self, mark: &Mark, virt: u64, label: impl Into<String>) -> Site {
        let named = mark.virt.is_some_and(|v| self.symbols.symbol(v.0, &self.names).is_some());
        self.site(&if named { *mark } else { mark.about(virt) }, label)
    }

    /// `'name'` of a call that is open, or `a call`.
    pub(crate) fn call_name(&self, call: CallRef) -> String {
        match self.calls.get(call).map(|c| self.names.get(c.name)) {
            Some(name) if !name.is_empty() => format!("'{name}'"),
            _ => "a call".to_owned(),
        }
    }

    /// The address with its owner, if it has one.
    pub(crate) fn address(&self, virt: u64) -> String {
        match self.symbols.symbol(virt, &self.names) {
            Some(symbol) => format!("{} ({symbol})", VirtAddr(virt)),
            None => VirtAddr(virt).to_string(),
        }
    }

    pub(crate) fn cpus_text(&self, mask: u64) -> String {
        words::cpus(mask & self.cpus.online, self.cpus.online)
    }

    /// How sure a finding of a rule is, and its level, which the user may have chosen.
    pub(crate) fn weigh(&self, rule: RuleId, sure: bool) -> (Confidence, Level) {
        let row = rule.row();
        let (confidence, level) = match sure {
            true => (Confidence::Certain, row.certain),
            false => (Confidence::Possible, row.possible),
        };
        (confidence, self.options.levels.get(rule).unwrap_or(level))
    }

    /// Makes a finding of a draft.
    pub(crate) fn report(&mut self, mut draft: Draft) {
        debug_assert!(
            can_miss(draft.rule, draft.operation, self.arch()),
            "no row for {}, {} on {}",
            draft.rule,
            draft.operation.name(),
            self.arch()
        );
        // An instruction has at least so many bytes.
        draft.fetched = draft.fetched.max(if self.arch() == Arch::X86_64 { 1 } else { 4 });
        let (target, apart) = (draft.target(|virt| self.address(virt)), draft.apart());
        let recorded = self.header.source == Source::Log;
        let fingerprint = draft.fingerprint(self.header.arch.name(), recorded);
        let row = draft.rule.row();
        let gap = self.gaps.0 & kinds_of(draft.rule).0 != 0;
        let sure = draft.sure && self.header.facts.contains(row.sure) && !gap;
        let (confidence, level) = self.weigh(draft.rule, sure);
        let mut notes = draft.notes;
        if gap {
            notes.push("events that bear on this were lost before it".to_owned());
        }
        let finding = Finding {
            rule: draft.rule,
            operation: draft.operation,
            level,
            confidence,
            blame: draft.blame,
            arch: self.header.arch,
            kernel: self.header.kernel.clone(),
            message: draft.message,
            at: draft.at,
            because: draft.because,
            missing: draft.missing,
            window: draft.window,
            chain: draft.chain,
            notes,
            help: draft.help,
            cites: if draft.cites.is_empty() {
                row.cites.iter().filter(|c| c.concerns(self.header.arch)).copied().collect()
            } else {
                draft.cites
            },
            count: 1,
            less_sure: 0,
            fingerprint,
        };
        self.book.enter(finding, target, apart);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RULES;

    #[test]
    fn every_rule_has_a_source_for_every_architecture_that_it_speaks_of() {
        for row in RULES {
            let count = |arch| row.cites.iter().filter(|c| c.concerns(arch)).count();
            assert!(count(Arch::Arm64) > 0, "{}", row.name);
            let nameless = row.cites.iter().find(|c| c.text().is_none());
            assert!(nameless.is_none(), "{}: what kind of text is {nameless:?}?", row.name);
        }
    }
}
