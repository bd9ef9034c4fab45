//! broken-promise, ignored-error, huge-mapping-refused.

use textbed_arch::{Perm, SpaceId, VirtAddr};
use textbed_event::{CallRef, Facts, Promise, RefusalReason, errno};

use crate::book::Draft;
use crate::calls::{Failed, Refusal};
use crate::finding::{Blame, Window};
use crate::live::Live;
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::{RuleId, contents::granted};
use crate::span::Span;
use crate::words;

/// What a promise demands of each leaf of its range: rights that must be there, rights that must
/// not, and whether a hole breaks it. Nothing for promises that are not about leaves.
pub(crate) fn demands(what: Promise) -> Option<(Perm, Perm, bool)> {
    Some(match what {
        Promise::NoWrite => (Perm::empty(), Perm::WRITE, false),
        Promise::NoExec => (Perm::empty(), Perm::EXEC, false),
        Promise::NoAccess => (Perm::empty(), Perm::PRESENT, false),
        Promise::Write => (Perm::WRITE, Perm::empty(), true),
        Promise::Exec => (Perm::EXEC, Perm::empty(), true),
        Promise::ReadOnlyExec => (Perm::EXEC, Perm::WRITE, true),
        Promise::NoStaleCode | Promise::Other => return None,
    })
}

/// Whether a leaf with this permission breaks a promise.
pub(crate) fn breaks((must, must_not, _): (Perm, Perm, bool), perm: Perm) -> bool {
    let present = perm.contains(Perm::PRESENT);
    present && (!perm.contains(must) || perm.intersects(must_not)) || !present && !must.is_empty()
}

/// A call promised something of a range: do the tables say so?
pub(crate) fn broken_promise(
    live: &mut Live,
    space: SpaceId,
    call: CallRef,
    what: Promise,
    span: Span,
    mark: &Mark,
) {
    let Some(demand) = demands(what) else { return };
    live.occasions.looked(RuleId::BrokenPromise);
    let mut broken: Option<(u64, u64, Perm, Option<Mark>)> = None;
    let mut next = Some(span.first);
    let mut add = |at: Span, perm: Perm, why: Option<Mark>| match &mut broken {
        Some((_, bytes, _, _)) => *bytes = bytes.saturating_add(at.len()),
        none => *none = Some((at.first, at.len(), perm, why)),
    };
    for (at, mapping) in live.tables.within(space, span) {
        if let Some(gap) = next.filter(|n| *n < at.first && demand.2) {
            add(Span { first: gap, last: at.first - 1 }, Perm::empty(), None);
        }
        if breaks(demand, mapping.perm) {
            add(at, mapping.perm, Some(mapping.since));
        }
        next = at.last.checked_add(1);
    }
    if let Some(gap) = next.filter(|n| *n <= span.last && demand.2) {
        add(Span { first: gap, last: span.last }, Perm::empty(), None);
    }
    let Some((first, bytes, perm, why)) = broken else { return };
    let name = live.call_name(call);
    let message = format!(
        "{name} promised that {} from {} on are {}, but the tables say {}",
        words::size(bytes),
        live.address(first),
        what.text(),
        perm.letters()
    );
    let site = live.site(&mark.about(first), format!("promised: {}", what.text()));
    let mut draft = Draft::new(RuleId::BrokenPromise, Operation::Promise, message, site);
    draft.because = why.map(|w| live.site(&w, "the tables were last changed here"));
    draft.sure = mark.sure && why.is_none_or(|w| w.sure);
    draft.blame = Blame::Callee;
    draft.missing.push(format!("change of the tables to {}", what.text()));
    draft.window = Window::Other;
    draft.help = Some(format!("{name} must return an error, or change every leaf of the range"));
    live.report(draft);
}

/// A call refused because the mapping is a huge one: a finding if its caller does not look. Where
/// the source does not say who looks, it is one at once, and at most possible.
pub(crate) fn refused(
    live: &mut Live,
    space: SpaceId,
    call: CallRef,
    refusal: Refusal,
    mark: &Mark,
) {
    live.occasions.looked(RuleId::HugeMappingRefused);
    if refusal.reason != RefusalReason::HugeMapping {
        return;
    }
    let name = live.call_name(call);
    let stays = granted(live, space, VirtAddr(refusal.virt), refusal.len);
    let message = format!(
        "{name} refuses to make {} at {} {}: {}",
        words::size(refusal.len),
        live.address(refusal.virt),
        refusal.what.text(),
        refusal.reason.text()
    );
    let site = live.site(mark, format!("refused: {}", refusal.what.text()));
    let mut draft = Draft::new(RuleId::HugeMappingRefused, Operation::BasePages, message, site);
    draft.sure = mark.sure;
    draft.blame = Blame::Caller;
    if let Some(span) = Span::of(refusal.virt, refusal.len)
        && let Some((_, mapping)) = live.tables.within(space, span).next()
    {
        draft.because = Some(live.site(&mapping.since, "the range was mapped here"));
    }
    draft.missing.push("mapping by base pages".to_owned());
    draft.notes.push(format!("the range stays {stays}"));
    if stays.contains('w') {
        draft.notes.push("what was meant to be read-only can still be written".to_owned());
    }
    if !stays.contains('x') && matches!(refusal.what, Promise::Exec | Promise::ReadOnlyExec) {
        draft.notes.push("what was meant to be code cannot be executed".to_owned());
    }
    draft.help = Some(
        "allocate without huge pages where permissions change later, or only where this \
         architecture can change them on huge mappings; look at the result"
            .to_owned(),
    );
    let told = live.header.facts.contains(Facts::RESULT_USE);
    match live.calls.get(call).map(|c| c.parent) {
        Some(parent) if told => live.refusals.add(call, parent, vec![draft]),
        _ => {
            draft.sure &= told;
            live.report(draft);
        }
    }
}

/// A caller dropped the result of a call that had failed.
pub(crate) fn ignored_error(live: &mut Live, failed: &Failed, mark: &Mark) {
    let name = live.names.get(failed.name);
    let name = if name.is_empty() { "a call".to_owned() } else { format!("'{name}'") };
    let value = errno::said(failed.value);
    let message = format!("{name} failed with {value}, and its result was dropped");
    let site = live.site(mark, "the result is dropped here");
    let mut draft = Draft::new(RuleId::IgnoredError, Operation::Result, message, site);
    // The caller's chain has lost the callee: name it, so that two of them are told apart.
    draft.at.calls.push(name.trim_matches('\'').to_owned());
    draft.because = Some(live.site(&failed.returned, format!("returned {value}")));
    draft.sure = mark.sure && failed.returned.sure;
    draft.blame = Blame::Caller;
    draft.missing.push("look at the result".to_owned());
    draft.window = Window::Other;
    for refusal in &failed.refusals {
        let stays = granted(live, SpaceId::KERNEL, VirtAddr(refusal.virt), refusal.len);
        draft.notes.push(format!(
            "{} at {} were to become {}, which was refused ({}): they stay {stays}",
            words::size(refusal.len),
            live.address(refusal.virt),
            refusal.what.text(),
            refusal.reason.text(),
        ));
    }
    draft.help =
        Some(format!("look at what {name} returns, and undo what was done for it when it fails"));
    live.report(draft);
}
