//! stale-translation, exec-after-free, walk-after-free.

use textbed_arch::sync::translation::{HeldRefusal, held_refusal};
use textbed_arch::{Perm, SpaceId, VirtAddr};
use textbed_event::{CallRef, Promise};

use crate::book::Draft;
use crate::finding::{Blame, Window};
use crate::live::Live;
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::{RuleId, breaks, calls};
use crate::span::Span;
use crate::tables::{Alias, Mapping};
use crate::translation::Old;
use crate::translation::ways::HeldWay;
use crate::words;

/// A call promised that a right is gone, or there: may a CPU still use an old answer that grants
/// it, or one that refuses it until it is invalidated?
pub(crate) fn stale_translation(
    live: &mut Live,
    space: SpaceId,
    call: CallRef,
    what: Promise,
    span: Span,
    among: u64,
    mark: &Mark,
) {
    let Some((must, must_not, _)) = calls::demands(what) else { return };
    let faults = held_refusal(live.arch(), live.header.features) == HeldRefusal::Fault;
    let must = if faults { must } else { Perm::empty() };
    if must.is_empty() && must_not.is_empty() {
        return;
    }
    live.occasions.looked(RuleId::StaleTranslation);
    let mut found: Option<(u64, u64, Old)> = None;
    for (at, olds) in live.stale.within(space, span) {
        let frame = live.tables.lookup(space, at.first).map(|(_, m)| m.phys);
        let held = |old: &Old| old.perm.contains(Perm::PRESENT) && old.cpus & among != 0;
        let grants = |old: &&Old| held(old) && old.perm.intersects(must_not);
        let refuses = |old: &&Old| held(old) && frame == Some(old.phys) && !old.perm.contains(must);
        let mut all = olds.0.iter();
        let Some(old) = all.clone().find(grants).or_else(|| all.find(refuses)) else { continue };
        let cpus = old.cpus & among;
        match &mut found {
            Some((_, bytes, first)) => {
                *bytes = bytes.saturating_add(at.len());
                first.cpus |= cpus;
            }
            none => *none = Some((at.first, at.len(), Old { cpus, ..*old })),
        }
    }
    let Some((first, bytes, old)) = found else { return };
    if old.too_early().is_some() && live.checkable(RuleId::MissingPteOrder) {
        breaks::early_invalidation(live, space, first, &old);
        return;
    }
    let name = live.call_name(call);
    let who = live.cpus_text(old.cpus);
    let tables = live.tables.lookup(space, first).map_or(Perm::empty(), |(_, m)| m.perm);
    let message = format!(
        "{name} promised that {} from {} on are {}, but {who} may still use the old translation \
         ({})",
        words::size(bytes),
        live.address(first),
        what.text(),
        old.perm.letters(),
    );
    let site = live.site(&mark.about(first), format!("promised: {}", what.text()));
    let lack = Operation::flush(space == SpaceId::KERNEL, None);
    let mut draft = Draft::new(RuleId::StaleTranslation, lack, message, site);
    draft.because = Some(live.site(&old.since, "the tables were changed here"));
    draft.sure = mark.sure && old.since.sure;
    draft.blame = Blame::Callee;
    live.say_what_closes(&mut draft, space, first, &old);
    if !old.perm.intersects(must_not) {
        draft.notes.push("it refuses what was promised, until it is invalidated".to_owned());
    }
    let cpu = textbed_arch::CpuId((old.cpus & live.cpus.online).trailing_zeros().min(63) as u16);
    draft.window = Window::Translation {
        cpu,
        virt: VirtAddr(first),
        granted: old.perm.letters(),
        tables: tables.letters(),
    };
    draft.help = Some(format!(
        "{name} must flush the range on {who} after the change and before it returns"
    ));
    by_erratum(&mut draft, &old);
    live.report(draft);
}

/// Where an invalidation was not enough, by an erratum of the CPUs: says so, and what is.
pub(crate) fn by_erratum(draft: &mut Draft, old: &Old) {
    let Some((flush, leaves)) = old.left else { return };
    let Some((so, end)) = leaves.text() else { return };
    draft.notes.push(format!("event {flush} invalidated it, but on these CPUs {so} (an erratum)"));
    draft.missing = vec![end.to_owned()];
    draft.operation = Operation::flush(true, Some(leaves));
    draft.help = Some(format!("{end}, before what relies on the old translation's end"));
}

/// Code is executed by an address for which this CPU may still use an old answer, which leads to
/// another frame.
pub(crate) fn stale_fetch(live: &mut Live, space: SpaceId, virt: u64, old: &Old, mark: &Mark) {
    if old.too_early().is_some() && live.checkable(RuleId::MissingPteOrder) {
        breaks::early_invalidation(live, space, virt, old);
        return;
    }
    if !live.checkable(RuleId::StaleTranslation) {
        return;
    }
    let p = mark.cpu;
    let message = format!(
        "{p} executes {} by a mapping that changed, but may still use the old translation ({}), \
         which leads to another frame",
        live.address(virt),
        old.perm.letters(),
    );
    let at = (&mark.about(virt), "executed here");
    let mut draft =
        own_stale(live, space, message, at, (&old.since, "the tables were changed here"));
    let mine = Old { cpus: textbed_event::View::cpu_bit(p), ..*old };
    live.say_what_closes(&mut draft, space, virt, &mine);
    let tables = live.tables.lookup(space, virt).map_or(Perm::empty(), |(_, m)| m.perm);
    draft.window = Window::Translation {
        cpu: p,
        virt: VirtAddr(virt),
        granted: old.perm.letters(),
        tables: tables.letters(),
    };
    draft.help =
        Some(format!("flush the old translation on {p} before the address leads elsewhere"));
    by_erratum(&mut draft, old);
    live.report(draft);
}

/// An access was refused by a translation that this CPU holds, though the tables grant it.
pub(crate) fn stale_refusal(
    live: &mut Live,
    space: SpaceId,
    virt: u64,
    mapping: &Mapping,
    mark: &Mark,
) {
    let p = mark.cpu;
    let granted = mapping.perm.letters();
    let message = format!(
        "{p} is refused an access to {} that the tables grant ({granted}): it goes by an old \
         translation",
        live.address(virt),
    );
    let at = (&mark.about(virt), "refused here");
    let since = (&mapping.since, "the tables grant it from here on");
    let mut draft = own_stale(live, space, message, at, since);
    draft.missing.push(flush_for(live, textbed_event::View::cpu_bit(p)));
    draft.help =
        Some(format!("flush the old translation on {p} before anybody relies on the new right"));
    live.report(draft);
}

/// A finding about what a CPU did by an old translation of its own: where, and what changed before.
fn own_stale(
    live: &Live,
    space: SpaceId,
    message: String,
    (at, what): (&Mark, &str),
    (since, changed): (&Mark, &str),
) -> Draft {
    let lack = Operation::flush(space == SpaceId::KERNEL, None);
    let mut draft = Draft::new(RuleId::StaleTranslation, lack, message, live.site(at, what));
    draft.because = Some(live.site(since, changed));
    draft.sure = at.sure && since.sure;
    draft.blame = Blame::Caller;
    draft
}

/// The flush that would take `cpus` off an old answer.
fn flush_for(live: &Live, cpus: u64) -> String {
    format!("{} for {}", words::tlb_flush(live.arch()), live.cpus_text(cpus))
}

/// A page-table page goes back that CPUs may still walk through.
pub(crate) fn walk_after_free(live: &mut Live, table: &HeldWay, freed: &Mark) {
    let who = live.cpus_text(table.cpus);
    let message = format!(
        "a page of page tables went back to the allocator while {who} may still walk through it, \
         for {} from {} on",
        words::size(table.span.len()),
        live.address(table.span.first)
    );
    let site = live.site(&freed.about(table.span.first), "the page goes back here");
    let mut draft = Draft::new(RuleId::WalkAfterFree, Operation::FlushOfTable, message, site);
    draft.because = Some(live.site(&table.since, "nothing points to it from here on"));
    draft.sure = freed.sure && table.since.sure;
    draft.blame = Blame::Callee;
    draft.missing.push(flush_for(live, table.cpus));
    draft.window = Window::Other;
    draft.notes.push("whoever owns the page next decides what is mapped there".to_owned());
    draft.help = Some(format!(
        "clear the entry that points to the page, invalidate its addresses on {who}, at every \
         level, and give the page back then"
    ));
    live.report(draft);
}

/// Frames go back: does an executable translation still reach them?
pub(crate) fn exec_after_free(live: &mut Live, frames: Span, freed: &Mark) {
    let mut mapped: Option<(u64, u64, Mark)> = None;
    let mut held: Option<(u64, u64, Old, SpaceId)> = None;
    for (part, aliases) in live.tables.aliases(frames) {
        for alias in aliases.iter() {
            let Some(virt) = part.moved(alias.delta) else { continue };
            if live.cpus.using(alias.space) == 0 {
                continue;
            }
            for (at, mapping) in live.tables.within(alias.space, virt) {
                let leads = at.first.wrapping_sub(alias.delta) == mapping.phys;
                if leads && mapping.perm.executable() {
                    match &mut mapped {
                        Some((_, bytes, _)) => *bytes = bytes.saturating_add(at.len()),
                        none => *none = Some((at.first, at.len(), mapping.since)),
                    }
                }
            }
            for (at, olds) in live.stale.within(alias.space, virt) {
                let leads = |old: &&Old| {
                    at.first.wrapping_sub(alias.delta) == old.phys && old.perm.executable()
                };
                if let Some(old) = olds.0.iter().find(leads) {
                    match &mut held {
                        Some((_, bytes, ..)) => *bytes = bytes.saturating_add(at.len()),
                        none => *none = Some((at.first, at.len(), *old, alias.space)),
                    }
                }
            }
        }
    }
    if let Some((first, bytes, since)) = mapped {
        let message = format!(
            "{} went back to the page allocator while they are mapped executable at {}",
            words::size(bytes),
            live.address(first)
        );
        let site = live.site(&freed.about(first), "the frames go back here");
        let mut draft = Draft::new(RuleId::ExecAfterFree, Operation::Unmap, message, site);
        draft.because = Some(live.site(&since, "mapped executable here"));
        draft.sure = freed.sure && since.sure;
        draft.blame = Blame::Callee;
        draft.missing.push("unmap, then flush, before the frames go back".to_owned());
        draft.help = Some("unmap the range and flush it on every CPU, then free".to_owned());
        live.report(draft);
    }
    if let Some((first, bytes, old, space)) = held {
        let who = live.cpus_text(old.cpus);
        let message = format!(
            "{} went back to the page allocator while {who} may still execute them at {} through \
             an old translation",
            words::size(bytes),
            live.address(first)
        );
        let site = live.site(&freed.about(first), "the frames go back here");
        let lack = Operation::flush(space == SpaceId::KERNEL, None);
        let mut draft = Draft::new(RuleId::ExecAfterFree, lack, message, site);
        draft.because = Some(live.site(&old.since, "unmapped here, not flushed since"));
        // Nobody was seen to execute there: the window is open, its use is not shown.
        draft.sure = false;
        draft.blame = Blame::Callee;
        live.say_what_closes(&mut draft, space, first, &old);
        draft.window = Window::Translation {
            cpu: textbed_arch::CpuId((old.cpus & live.cpus.online).trailing_zeros().min(63) as u16),
            virt: VirtAddr(first),
            granted: old.perm.letters(),
            tables: "---",
        };
        draft.help =
            Some("flush executable ranges before their frames go back, not lazily".to_owned());
        by_erratum(&mut draft, &old);
        live.report(draft);
    }
}

/// What became of memory before code in it was executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum After {
    /// The page allocator has its frame again.
    FrameFree,
    /// Its range of addresses was given back.
    Free,
    /// That, and handed out again: to whom it is no code, since the fetch was refused.
    Reuse,
}

/// Code was executed, or was to be, in memory that is free.
pub(crate) fn executed_after_free(
    live: &mut Live,
    virt: u64,
    freed: &Mark,
    after: After,
    mark: &Mark,
) {
    let at = live.address(virt);
    let message = match after {
        After::FrameFree => {
            format!("code at {at} is executed in a frame that went back to the page allocator")
        }
        After::Free => format!("code at {at} is executed after its memory was given back"),
        After::Reuse => format!(
            "code at {at} is to be executed after its memory was given back and handed out again"
        ),
    };
    let site = live.site(mark, "executed here");
    let mut draft = Draft::new(RuleId::ExecAfterFree, Operation::Quiescence, message, site);
    draft.because = Some(live.site(freed, "given back here"));
    // Whether what was there before was code is not known any more.
    draft.sure = freed.sure && mark.sure && after != After::Reuse;
    draft.blame = Blame::Caller;
    draft.missing.push("wait until no CPU runs the code before its frames go back".to_owned());
    draft.help = Some(
        "unpublish the code, wait for a grace period, unmap, flush on every CPU, then free"
            .to_owned(),
    );
    live.report(draft);
}

/// A call promised that no translation but the frames' home leads to them.
pub(crate) fn promised_frames(
    live: &mut Live,
    call: CallRef,
    what: Promise,
    frames: Span,
    mark: &Mark,
) {
    let Some(demand) = calls::demands(what) else { return };
    live.occasions.looked(RuleId::BrokenPromise);
    let mut ranges: Vec<(SpaceId, Span)> = Vec::new();
    for (part, aliases) in live.tables.aliases(frames) {
        // The oldest alias that leads there now is the home: it does so by right.
        let leads = |alias: &Alias| {
            let virt = part.moved(alias.delta);
            let leaf = virt.and_then(|virt| live.tables.lookup(alias.space, virt.first));
            leaf.is_some_and(|(_, leaf)| leaf.phys == part.first)
        };
        let home = aliases.iter().position(leads).unwrap_or(0);
        for (place, alias) in aliases.iter().enumerate() {
            if let Some(virt) = part.moved(alias.delta).filter(|_| place != home) {
                ranges.push((alias.space, virt));
            }
        }
    }
    let no_hole = (demand.0, demand.1, false);
    for (space, virt) in ranges {
        let broken = live.tables.within(space, virt).any(|(at, m)| {
            frames.meet(Span { first: m.phys, last: m.phys + (at.last - at.first) }).is_some()
                && calls::breaks(no_hole, m.perm)
        });
        if broken && live.checkable(RuleId::BrokenPromise) {
            calls::broken_promise(live, space, call, what, virt, mark);
        }
        if live.checkable(RuleId::StaleTranslation) {
            // What a CPU holds of a space that it has not loaded it cannot use now.
            let among = live.cpus.using(space);
            stale_translation(live, space, call, what, virt, among, mark);
        }
    }
}
