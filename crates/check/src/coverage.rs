//! What each rule could see: occasions looked at, and what the source does not record.

use textbed_event::{Facts, Header, Kind, KindSet};

use crate::finding::Coverage;
use crate::rules::{RULES, RuleId};

/// Occasions by rule.
#[derive(Default, Debug)]
pub(crate) struct Occasions {
    counts: [u64; RuleId::ALL.len()],
}

impl Occasions {
    pub(crate) fn looked(&mut self, rule: RuleId) {
        if let Some(count) = self.counts.get_mut(rule as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// For each rule in table order. Without a header nothing is checkable.
    pub(crate) fn finish(&self, header: Option<&Header>) -> Vec<(RuleId, Coverage)> {
        let phys = header.is_some_and(|h| h.facts.contains(Facts::PHYS));
        let blind = |id: RuleId| !phys && id.row().sure.contains(Facts::PHYS);
        let of = |id: RuleId, count: u64| match header.map(|h| lacking(h, id)) {
            None => Coverage::NotCheckable("the stream has no header"),
            Some(Some(what)) => Coverage::NotCheckable(what),
            // A source that knows some physical addresses is looked at as far as they go.
            Some(None) if count == 0 && blind(id) => Coverage::NotCheckable(fact_text(Facts::PHYS)),
            Some(None) if count == 0 => Coverage::NotExercised,
            Some(None) => Coverage::Checked(count),
        };
        RULES.iter().zip(self.counts).map(|(row, count)| (row.id, of(row.id, count))).collect()
    }
}

/// What a source lacks for a rule, in words; nothing if it has all that the rule needs.
pub(crate) fn lacking(header: &Header, rule: RuleId) -> Option<&'static str> {
    let row = rule.row();
    let kinds = row.needs.without(header.records);
    if let Some(kind) = kinds.iter().next() {
        return Some(kind_text(kind));
    }
    (row.facts - header.facts).iter().next().map(fact_text)
}

/// What a source does not record, by kind.
fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Leaf => "the source does not record mappings",
        Kind::Store | Kind::Fill => "the source does not record stores",
        Kind::Fetch => "the source does not record what is executed",
        Kind::CacheClean | Kind::IcacheInvalidate => "the source does not record cache maintenance",
        Kind::Barrier => "the source does not record barriers",
        Kind::ContextSync => "the source does not record context synchronisation",
        Kind::TlbInvalidate => "the source does not record invalidations of translations",
        Kind::FrameAlloc | Kind::FrameFree => "the source does not record the page allocator",
        Kind::CallReturned => "the source does not record results of calls",
        Kind::ResultDropped | Kind::ResultUsed => {
            "the source does not record whether results are looked at"
        }
        Kind::Promised => "no promises are known for the calls of this source",
        Kind::Refused => "the source does not record what calls refuse",
        Kind::Needs => "the source does not record what calls need of where they run",
        Kind::LockAcquired | Kind::LockReleased => "the source does not record locks",
        Kind::PatchSite => "the source does not record which sites are replaced, and by how much",
        Kind::TrapHandler | Kind::Trap => "the source does not record traps and their handlers",
        Kind::Branch => "the source does not record indirect branches",
        Kind::Compared => "the source does not record what memory was compared with",
        Kind::TaskStands => "the source does not record where tasks stand",
        _ => "the source does not record a kind of event that it needs",
    }
}

/// What a source does not know, by the first fact that is missing.
fn fact_text(fact: Facts) -> &'static str {
    let texts = [
        (Facts::PHYS, "the source does not know physical addresses"),
        (Facts::ALL_ALIASES, "the source does not record every mapping of a frame"),
        (Facts::CONTENTS, "the source does not record stored bytes"),
        (Facts::ALL_STORES, "the source does not record every store to code"),
        (Facts::ALL_FETCHES, "the source does not record every fetch of code"),
        (Facts::RESULT_USE, "the source does not record whether results are looked at"),
        (Facts::MAINTENANCE, "the source does not record maintenance one by one"),
        (Facts::FRAMES, "the source does not record the page allocator"),
        (Facts::TOTAL_ORDER, "the order between CPUs is not known"),
        (Facts::SYNCHRONISATION, "the source does not record synchronisation between CPUs"),
    ];
    let known = texts.iter().find(|(f, _)| f.intersects(fact));
    known.map_or("the source lacks a fact that it needs", |(_, text)| text)
}

/// The kinds that bear on a rule: a gap in one of them makes its findings possible only.
pub(crate) fn kinds_of(rule: RuleId) -> KindSet {
    rule.row().needs
}
