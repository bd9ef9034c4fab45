//! wx-mapping, wx-alias, wx-stale-translation, direct-map-leak.

use textbed_arch::sync::translation::{HeldRefusal, held_refusal};
use textbed_arch::{Perm, Pfn, SpaceId, VirtAddr};

use crate::book::Draft;
use crate::finding::{Blame, Window};
use crate::frames::Frame;
use crate::live::Live;
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::rules::translations::by_erratum;
use crate::span::Span;
use crate::translation::{Old, Olds};
use crate::words;
use crate::wx::{Grant, OpenWindow};

/// How a W+X window ended, as far as is known when it is reported.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended<'a> {
    /// By this event.
    By(&'a Mark),
    /// It was open when the call in which it began returned.
    NotInCall,
    /// It was open when the stream ended.
    NotAtAll,
}

/// What gave one of the two rights of a W+X window; `writes` says which.
fn grant_text(grant: &Grant, writes: bool) -> &'static str {
    match (writes, grant.now) {
        (true, true) => "writable from here on",
        (true, false) => "still writable by old translations, from here on by these alone",
        (false, true) => "executable from here on",
        (false, false) => "still executable by old translations, from here on by these alone",
    }
}

/// A W+X window that nothing excuses.
pub(crate) fn wx(live: &Live, window: &OpenWindow, ended: Ended<'_>) -> Draft {
    let bytes = words::size(window.bytes);
    let (exec, write) = (live.address(window.exec_at), live.address(window.write_at));
    let write_cpus = live.cpus_text(window.write.cpus);
    let exec_cpus = live.cpus_text(window.exec.cpus);
    let message = match window.rule {
        RuleId::WxMapping => format!("{bytes} at {exec} are writable and executable at once"),
        RuleId::WxAlias => {
            format!("{bytes} executable at {exec} are writable at {write}")
        }
        _ if window.write.now => format!(
            "{bytes} writable at {write} may still be executed at {exec} by {exec_cpus}: \
             the old translation was not invalidated"
        ),
        _ => format!(
            "{bytes} executable at {exec} may still be written at {write} by {write_cpus}: \
             the old translation was not invalidated"
        ),
    };
    // The window opened with one of the two grants, or later: with the use of an address space, or
    // with the end of what excused it. Where one event made both, the old answer is the other one.
    let (writing, executing) = (window.write.since.seq, window.exec.since.seq);
    let opened_by_write = match (writing == window.opened.seq, executing == window.opened.seq) {
        (true, true) => window.write.now,
        (by_write, _) => by_write,
    };
    let write_grant = (&window.write, window.write_at, true);
    let exec_grant = (&window.exec, window.exec_at, false);
    let (opening, other) =
        if opened_by_write { (write_grant, exec_grant) } else { (exec_grant, write_grant) };
    let label = match window.rule {
        RuleId::WxMapping => "becomes writable and executable here",
        _ if opening.0.since.seq == window.opened.seq => grant_text(opening.0, opening.2),
        _ => "both are in force from here on",
    };
    let stale = if window.write.now { &window.exec } else { &window.write };
    let lack = match window.rule {
        RuleId::WxMapping => Operation::WriteAway,
        RuleId::WxAlias => Operation::AliasAway,
        _ => Operation::flush(stale.space == SpaceId::KERNEL, None),
    };
    let site = live.site(&window.opened.about(opening.1), label);
    let mut draft = Draft::new(window.rule, lack, message, site);
    if window.rule != RuleId::WxMapping {
        let (grant, at, writes) = other;
        draft.because = Some(live.site(&grant.since.about(at), grant_text(grant, writes)));
    }
    draft.sure = window.write.since.sure && window.exec.since.sure && window.opened.sure;
    draft.window = Window::WriteExec {
        write_at: VirtAddr(window.write_at),
        exec_at: VirtAddr(window.exec_at),
        pfn: Pfn(window.phys >> 12),
        frames: window.bytes.div_ceil(4096),
    };
    match window.rule {
        RuleId::WxMapping => {
            draft.missing.push("write permission taken away before execute is granted".to_owned());
            draft.help = Some(
                "make the range read-only first and executable then, look at both results, and \
                 write later bytes through a temporary alias"
                    .to_owned(),
            );
        }
        RuleId::WxAlias => {
            draft.missing.push("write permission taken away from the other mapping".to_owned());
            draft.help = Some(format!(
                "make the alias at {write} read-only (or unmap it) and flush before the range \
                 becomes executable; write through an authorised temporary alias"
            ));
        }
        _ => {
            let who = live.cpus_text(stale.cpus);
            draft.help = Some(format!(
                "flush the old translation on {who} between taking the permission away and \
                 granting the other one, before the call returns"
            ));
            let at = window.phys.wrapping_add(stale.delta);
            let old = Span::of(at, 1).and_then(|at| live.stale.within(stale.space, at).next());
            let right = if window.write.now { Perm::EXEC } else { Perm::WRITE };
            let held = |(_, olds): (Span, Olds)| {
                let grants =
                    |o: &&Old| o.perm.contains(Perm::PRESENT | right) && o.cpus & stale.cpus != 0;
                olds.0.iter().rev().find(grants).copied()
            };
            match old.and_then(held) {
                Some(old) => {
                    let old = Old { cpus: stale.cpus, ..old };
                    live.say_what_closes(&mut draft, stale.space, at, &old);
                    by_erratum(&mut draft, &old);
                }
                None => draft.missing.push(format!("{} for {who}", words::tlb_flush(live.arch()))),
            }
        }
    }
    let since = format!("the window opened at event {}", window.opened.seq);
    draft.notes.push(match ended {
        Ended::By(mark) => {
            let lasted = words::lasted(&window.opened, mark);
            format!("{since} and was closed by event {} of {}, {lasted} later", mark.seq, mark.cpu)
        }
        Ended::NotInCall => format!("{since} and was open when the outermost call returned"),
        Ended::NotAtAll => format!("{since} and was still open at the end"),
    });
    draft
}

/// Permissions that a frame's alias must have back when the frame goes back.
const RIGHTS: Perm = Perm::PRESENT.union(Perm::READ).union(Perm::WRITE).union(Perm::EXEC);

/// Frames go back: does each of their home aliases grant what it did when they were handed out?
pub(crate) fn direct_map_leak(live: &mut Live, frames: Span, freed: &Mark) {
    // (first virtual address, bytes, home, now, event that changed it, event that handed out)
    let mut leaks: Vec<(u64, u64, Perm, Perm, Option<Mark>, Mark)> = Vec::new();
    for (part, frame) in live.frames.state.within(frames) {
        let Frame::Taken { since, homes } = frame else { continue };
        for (alias, home) in homes.iter().filter(|(a, _)| a.space == SpaceId::KERNEL) {
            let Some(virt) = part.moved(alias.delta) else { continue };
            let mut next = Some(virt.first);
            let mut seen = |at: Span, perm: Perm, why: Option<Mark>| {
                if perm & RIGHTS != *home & RIGHTS {
                    match leaks.last_mut() {
                        Some((first, bytes, h, p, _, _))
                            if first.wrapping_add(*bytes) == at.first
                                && (*h, *p) == (*home, perm) =>
                        {
                            *bytes += at.len();
                        }
                        _ => leaks.push((at.first, at.len(), *home, perm, why, since)),
                    }
                }
            };
            for (at, mapping) in live.tables.within(alias.space, virt) {
                if let Some(gap) = next.filter(|n| *n < at.first) {
                    seen(Span { first: gap, last: at.first - 1 }, Perm::empty(), None);
                }
                let home_frame = at.first.wrapping_sub(alias.delta) == mapping.phys;
                let perm = if home_frame { mapping.perm } else { Perm::empty() };
                seen(at, perm, Some(mapping.since));
                next = at.last.checked_add(1);
            }
            if let Some(gap) = next.filter(|n| *n <= virt.last) {
                seen(Span { first: gap, last: virt.last }, Perm::empty(), None);
            }
        }
    }
    if leaks.is_empty() {
        held_alias(live, frames, freed);
    }
    for (first, bytes, home, perm, why, taken) in leaks {
        let (was, is) = (home.letters(), perm.letters());
        let message = format!(
            "{} went back to the page allocator while their alias at {} is {is}; it was {was} \
             when they were handed out",
            words::size(bytes),
            live.address(first)
        );
        let site = live.site(&freed.about(first), "the frames go back here");
        let mut draft = Draft::new(RuleId::DirectMapLeak, Operation::Restore, message, site);
        let because = why.unwrap_or_else(|| taken.about(first));
        let label = if why.is_some() { "the alias was changed here" } else { "handed out here" };
        draft.because = Some(live.site(&because, label));
        draft.sure = freed.sure && because.sure && taken.sure;
        draft.blame = Blame::Callee;
        draft.missing.push(format!("restore of {was} in the alias before the frames go back"));
        draft.window = Window::Other;
        if home.writable() && !perm.writable() {
            draft.notes.push("the next owner of a frame faults at its first store".to_owned());
        }
        if perm.executable() && !home.executable() {
            draft.notes.push("the next owner's data is executable through this alias".to_owned());
        }
        draft.help = Some(
            "invalidate the alias, flush, and give it its default permissions back before the \
             frames are freed; let the allocator do it where it offers to"
                .to_owned(),
        );
        live.report(draft);
    }
}

/// Frames go back, and the tables are as they were: may a CPU still go by an older answer that
/// refuses what they grant?
fn held_alias(live: &mut Live, frames: Span, freed: &Mark) {
    // Elsewhere who is refused so looks again.
    if held_refusal(live.arch(), live.header.features) != HeldRefusal::Fault {
        return;
    }
    let mut found: Option<(u64, u64, Perm, Old, Mark)> = None;
    for (part, frame) in live.frames.state.within(frames) {
        let Frame::Taken { since, homes } = frame else { continue };
        for (alias, home) in homes.iter().filter(|(a, _)| a.space == SpaceId::KERNEL) {
            let Some(virt) = part.moved(alias.delta) else { continue };
            for (at, olds) in live.stale.within(alias.space, virt) {
                let refuses = |old: &&Old| {
                    old.way.is_none()
                        && old.cpus & live.cpus.online != 0
                        && old.phys == at.first.wrapping_sub(alias.delta)
                        && old.perm.contains(Perm::PRESENT)
                        && !old.perm.contains(*home & RIGHTS)
                };
                let Some(old) = olds.0.iter().find(refuses) else { continue };
                match &mut found {
                    Some((_, bytes, ..)) => *bytes = bytes.saturating_add(at.len()),
                    none => *none = Some((at.first, at.len(), *home, *old, since)),
                }
            }
        }
    }
    let Some((first, bytes, home, old, taken)) = found else { return };
    let (was, is, who) = (home.letters(), old.perm.letters(), live.cpus_text(old.cpus));
    let message = format!(
        "{} went back to the page allocator while {who} may still go by an older translation of \
         their alias at {}, which is {is}; it was {was} when they were handed out",
        words::size(bytes),
        live.address(first)
    );
    let site = live.site(&freed.about(first), "the frames go back here");
    let lack = Operation::flush(true, None);
    let mut draft = Draft::new(RuleId::DirectMapLeak, lack, message, site);
    draft.because = Some(live.site(&old.since, "the alias was changed here, not flushed since"));
    draft.sure = freed.sure && old.since.sure && taken.sure;
    draft.blame = Blame::Callee;
    live.say_what_closes(&mut draft, SpaceId::KERNEL, first, &old);
    draft.window = Window::Other;
    draft.notes.push("the next owner of a frame may fault at an access that is his".to_owned());
    draft.help = Some(
        "flush the alias, and not only the area, between the change that takes rights away and \
         the end of the frames' use"
            .to_owned(),
    );
    live.report(draft);
}
