//! break-before-make, missing-pte-order, live-mapping-hole.

use textbed_arch::sync::translation::{Change, TranslationRow, changes};
use textbed_arch::{Arch, SpaceId, VirtAddr};

use crate::book::Draft;
use crate::finding::{Blame, Window};
use crate::groups::{Differs, Disagreement};
use crate::live::Live;
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;
use crate::translation::Old;
use crate::translation::watch::{Fresh, Hole};
use crate::words;

/// What a change that needs a break did wrong.
pub(crate) struct Unbroken {
    pub(crate) row: &'static TranslationRow,
    pub(crate) change: Change,
    /// The texts forbid it whatever the frames contain.
    pub(crate) sure: bool,
    /// The event that made the old entry, or that made it invalid.
    pub(crate) old: Mark,
    /// The letters of the old entry.
    pub(crate) granted: &'static str,
    /// CPUs that may hold the old entry though it was made invalid; 0: it never was.
    pub(crate) held: u64,
}

/// In words, what changed.
fn change_text(change: Change) -> &'static str {
    match change {
        Change::Frame => "another frame",
        Change::Size | Change::UpperLevel => "another leaf size",
        Change::Global => "a global entry",
        Change::MemoryType => "another memory type",
        Change::Contiguous => "another contiguous bit",
        _ => "another entry",
    }
}

/// A new entry replaces one that CPUs may still hold.
pub(crate) fn break_before_make(live: &mut Live, span: Span, u: &Unbroken, mark: &Mark) {
    let flush = words::tlb_flush(live.arch());
    let at = live.address(span.first);
    let what = change_text(u.change);
    let (message, label, missing) = if u.held == 0 {
        (
            format!(
                "{} from {at} on: a valid entry is replaced by one with {what}, without a break",
                words::size(span.len()),
            ),
            "the entry that is replaced was made here",
            format!("an invalid entry, then {flush}, before the new entry"),
        )
    } else {
        (
            format!(
                "{} from {at} on: an entry with {what} is made while {} may still hold the old one",
                words::size(span.len()),
                live.cpus_text(u.held),
            ),
            "made invalid here, and not flushed since",
            format!("{flush} between the break and the new entry"),
        )
    };
    let site = live.site(&mark.about(span.first), "the new entry is stored here");
    let mut draft = Draft::new(RuleId::BreakBeforeMake, Operation::Break, message, site);
    draft.because = Some(live.site(&u.old, label));
    draft.sure = mark.sure && u.old.sure && u.sure;
    draft.missing.push(missing);
    draft.cites.push(u.row.rule.cite);
    draft.window = Window::Translation {
        cpu: mark.cpu,
        virt: VirtAddr(span.first),
        granted: u.granted,
        tables: "another",
    };
    if !u.sure {
        draft.notes.push(
            "both entries are read-only: a break is needed only if the frames differ in contents"
                .to_owned(),
        );
    }
    draft.notes.push(format!("{}: {}", u.row.rule.id, u.row.rule.text));
    draft.help =
        Some(format!("make the entry invalid, then `{flush}`, and only then store the new entry"));
    live.report(draft);
}

/// Entries that a CPU may hold as one translation do not agree.
pub(crate) fn group_disagrees(live: &mut Live, found: &Disagreement, mark: &Mark) {
    let (group, joined) = (found.group, found.joined);
    let entries = group.len() >> found.shift.min(63);
    let at = live.address(found.at);
    let other = found.other;
    let letters = other.map_or("---", |m| m.perm.letters());
    let what = match (found.differs, other) {
        (Differs::Bit, _) => format!("the one at {at} has not the contiguous bit"),
        (Differs::Frame, _) => format!("the frame at {at} is not where that of the others goes on"),
        (Differs::Type, m) => {
            let memory = m.map_or("", |m| m.attributes.memory.text());
            format!("the one at {at} is of {memory}")
        }
        (Differs::Rights, _) => {
            format!("the one at {at} grants {letters} where another grants {}", {
                joined.perm.letters()
            })
        }
        (Differs::Validity, _) => format!("the one at {at} is not valid"),
    };
    let start = live.address(group.first);
    let message = format!(
        "{entries} entries from {start} on translate together by the contiguous bit, and {what}"
    );
    let site = live.site(&mark.about(found.at), "the entry is changed here");
    let mut draft = Draft::new(RuleId::BreakBeforeMake, Operation::Break, message, site);
    draft.because =
        Some(live.site(&joined.since, "one with the contiguous bit became what it is here"));
    draft.sure = mark.sure && joined.since.sure && found.differs != Differs::Validity;
    let flush = words::tlb_flush(live.arch());
    draft
        .missing
        .push(format!("{entries} invalid entries, then {flush} for each, before new ones"));
    let features = live.header.features;
    let of = |change| changes(live.arch(), features, change).next();
    let bit = (found.differs == Differs::Bit).then(|| of(Change::Contiguous)).flatten();
    let row = bit.or_else(|| of(Change::Group));
    if let Some(row) = row {
        draft.cites.push(row.rule.cite);
        draft.notes.push(format!("{}: {}", row.rule.id, row.rule.text));
    }
    if found.differs == Differs::Validity {
        draft.notes.push(
            "that one of them is invalid is no misprogramming by itself, and keeps no CPU from \
             holding the group whole"
                .to_owned(),
        );
    }
    let (virt, granted) = (VirtAddr(found.at), joined.perm.letters());
    draft.window = Window::Translation { cpu: mark.cpu, virt, granted, tables: letters };
    draft.help = Some(format!(
        "make all {entries} entries invalid, `{flush}` for each, and only then store the new ones; \
         or take the contiguous bit from all of them so before one changes"
    ));
    live.report(draft);
}

/// What makes a table store visible to walks.
fn store_barrier(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "nothing",
        Arch::Arm64 => "dsb ishst",
        _ => "ptesync",
    }
}

/// A new entry is used before walks are bound to see it, or by its maker before what that did ahead
/// is dropped.
pub(crate) fn new_entry_used(live: &mut Live, virt: u64, fresh: &Fresh, mark: &Mark, exec: bool) {
    let at = live.address(virt);
    let made = fresh.made.cpu;
    let missing = if fresh.visible {
        format!("{} on {made}", words::context_sync(live.arch()))
    } else {
        format!("{} on {made}", store_barrier(live.arch()))
    };
    let message = if fresh.visible {
        let (does, what) = if exec { ("executes at", "fetches") } else { ("uses", "accesses") };
        format!("{} {does} {at} through a new entry that its {what} may not see yet", mark.cpu)
    } else {
        format!("{} uses {at} through a new entry that walks may not see yet", mark.cpu)
    };
    let site = live.site(&mark.about(virt), "used here");
    let lack = if fresh.visible { Operation::OwnContextSync } else { Operation::OrderOfEntry };
    let mut draft = Draft::new(RuleId::MissingPteOrder, lack, message, site);
    draft.because = Some(live.site(&fresh.made, "the entry became valid here"));
    draft.sure = mark.sure && fresh.made.sure;
    draft.help = Some(format!("{missing}, after the entry is stored and before it is used"));
    draft.missing.push(missing);
    draft.notes.push("without it the access may fault though the entry is valid".to_owned());
    if fresh.visible && !exec {
        draft.notes.push("a CPU with FEAT_ETS2 needs it before fetches alone".to_owned());
    }
    live.report(draft);
}

/// An invalidation was issued before the change that it was for could be seen by walks: a walk may
/// have brought the old entry back.
pub(crate) fn early_invalidation(live: &mut Live, space: SpaceId, first: u64, old: &Old) {
    let Some(early) = old.too_early().map(|early| early.done) else { return };
    if !live.watch.tell_early(old.since.seq) {
        return;
    }
    let at = live.address(first);
    let who = live.cpus_text(old.cpus);
    let barrier = store_barrier(live.arch());
    let tables = live.tables.lookup(space, first).map_or("---", |(_, m)| m.perm.letters());
    let message = format!(
        "the invalidation for {at} came before its table store was visible to walks: {who} may \
         have walked to the old entry ({}) again",
        old.perm.letters()
    );
    let site = live.site(&early.about(first), "the invalidation completes here");
    let mut draft = Draft::new(RuleId::MissingPteOrder, Operation::OrderBeforeFlush, message, site);
    draft.because = Some(live.site(&old.since, "the entry was changed here"));
    draft.sure = early.sure && old.since.sure;
    draft.blame = Blame::Callee;
    draft.missing.push(format!("{barrier} between the change and the invalidation"));
    let cpu = textbed_arch::CpuId((old.cpus & live.cpus.online).trailing_zeros().min(63) as u16);
    let granted = old.perm.letters();
    draft.window = Window::Translation { cpu, virt: VirtAddr(first), granted, tables };
    draft.help = Some(format!("{barrier} after the table store, before the invalidation"));
    live.report(draft);
}

/// A mapping was not there for a while, inside one call, though it was in use.
pub(crate) fn live_mapping_hole(
    live: &mut Live,
    space: SpaceId,
    span: Span,
    hole: &Hole,
    mended: &Mark,
) {
    live.occasions.looked(RuleId::LiveMappingHole);
    let user = match hole.used {
        Some(used) => Some((used.cpu, used.virt.map_or(span.first, |v| v.0), Some(used))),
        None if hole.perm.executable() => {
            live.watch.running_in(space, span, mended.cpu).map(|(cpu, at)| (cpu, at, None))
        }
        None => None,
    };
    let Some((cpu, at, used)) = user else { return };
    let place = live.address(at);
    let message = match used {
        Some(_) => {
            format!("{cpu} used {place} while the mapping was invalid for a change of permissions")
        }
        None => format!(
            "{cpu} executes at {place}, and the mapping was invalid meanwhile for a change of \
             permissions"
        ),
    };
    let site = match &used {
        Some(used) => live.site(used, "used here"),
        None => live.site(&mended.about(span.first), "valid again here"),
    };
    let mut draft = Draft::new(RuleId::LiveMappingHole, Operation::ChangeInPlace, message, site);
    draft.because = Some(live.site(&hole.broken.about(span.first), "made invalid here"));
    draft.sure = used.is_some_and(|u| u.sure) && hole.broken.sure && mended.sure;
    draft.blame = Blame::Callee;
    draft.missing.push("a change of the valid entry in one store".to_owned());
    draft.window = Window::Translation {
        cpu,
        virt: VirtAddr(span.first),
        granted: hole.perm.letters(),
        tables: "---",
    };
    draft.notes.push(
        "a change of permissions alone needs no break on any of these architectures".to_owned(),
    );
    draft.help = Some(
        "change the permissions without making the entry invalid, or keep every other CPU out of \
         the range (stop the machine) meanwhile"
            .to_owned(),
    );
    live.report(draft);
}
