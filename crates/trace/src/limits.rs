//! What a log could not show, in sentences, each with what that does to the verdict.
//!
//! Modelled: lost and overwritten events, missed probe hits, a log that begins in the middle, what
//! the files beside it leave open, unknown frames. What follows from the choice of probes is in
//! [`crate::coverage`].

use crate::accounting::Accounting;
use crate::areas::AreaCounts;
use crate::bounds::Dropped;
use crate::calls::CallCount;
use crate::merge::MergeCounts;
use crate::sections::{Begins, Section};
use crate::side::SideFiles;
use crate::summary::Counts;
use std::collections::BTreeMap;

/// The word that `vmallocinfo` has for areas made under a return probe of the allocator.
const BY_RETURN_PROBE: &str = "kretprobe_trampoline";

/// What the files beside the log leave open.
pub(crate) fn of_side_files(side: &SideFiles) -> Vec<String> {
    let mut out = Vec::new();
    for (name, missed) in &side.missed {
        out.push(format!(
            "{missed} hits of the probe {name}, missed by the kernel: what it would have shown did \
             happen"
        ));
    }
    if side.areas_hashed > 0 {
        out.push(format!(
            "areas from before the log: {} lines of vmallocinfo have hashed addresses \
             (kptr_restrict)",
            side.areas_hashed
        ));
    }
    if side.modules_hidden > 0 {
        out.push(format!(
            "modules from before the log without an address, which only root is shown: {}",
            side.modules_hidden
        ));
    }
    let named = |virt: &u64| side.modules.binary_search_by_key(virt, |m| m.base).is_ok();
    let hidden = side
        .areas
        .iter()
        .filter(|(virt, _, words)| words.contains(BY_RETURN_PROBE) && !named(virt))
        .count();
    if hidden > 0 {
        out.push(format!(
            "owners of {hidden} areas from before the log: vmallocinfo names a return probe of the \
             allocator in the place of their callers"
        ));
    }
    out
}

/// What the clock and the files leave open.
pub(crate) fn of_order(
    sections: &[Section],
    more: u64,
    merged: Option<MergeCounts>,
    time_backwards: u64,
    place: impl Fn((u32, u64)) -> String,
) -> Vec<String> {
    let mut out = Vec::new();
    let seconds = |ns: u64| format!("{}.{:06} s", ns / 1_000_000_000, ns % 1_000_000_000 / 1000);
    for pair in sections.windows(2) {
        let [before, now] = pair else { continue };
        let what = match now.begins {
            Begins::OtherCpu => {
                "another CPU's file put behind, it seems: nothing is carried over, and what one CPU \
                 did while another one did something is not seen (--merge puts such files together)"
            }
            _ => {
                "another boot or another recording: nothing is carried over, and what files beside \
                 the log say is taken to be of the first"
            }
        };
        out.push(format!(
            "what was mapped at {}, where the clock goes back from {} to {}: {what}",
            place(now.line),
            seconds(before.last_ns),
            seconds(now.first_ns)
        ));
    }
    if more > 0 {
        out.push(format!("the same at {more} more places"));
    }
    if let Some(merged) = merged.filter(|m| m.ties > 0) {
        out.push(format!(
            "the order of {} events that have the very time of an event of another file: they come \
             in the order of the files",
            merged.ties
        ));
    }
    if let Some(merged) = merged.filter(|m| m.late > 0) {
        out.push(format!(
            "the place of {} lines that stand behind a later one in their own file: they come as \
             early as that file lets them",
            merged.late
        ));
    }
    if time_backwards > 0 {
        out.push(format!(
            "the order of events of different CPUs, from the first of {time_backwards} lines on \
             whose time is before that of the line above"
        ));
    }
    out
}

/// What the log itself leaves open.
pub(crate) fn of_log(
    accounting: &Accounting,
    areas: AreaCounts,
    calls: &BTreeMap<&'static str, CallCount>,
    counts: Counts,
) -> Vec<String> {
    let mut out = Vec::new();
    if accounting.overwritten > 0 {
        out.push(format!(
            "the {} oldest events, overwritten in the buffer: the log begins in the middle, and \
             what they changed is not known",
            accounting.overwritten
        ));
    }
    if counts.modules_unplaced > 0 {
        out.push(format!(
            "modules from before the log whose memory neither vmallocinfo nor page tables beside it \
             show: {}",
            counts.modules_unplaced
        ));
    }
    let lost = accounting.lost_events - accounting.overwritten.min(accounting.lost_events);
    if lost > 0 || accounting.lost_unknown > 0 {
        let more = if accounting.lost_unknown > 0 { " or more" } else { "" };
        out.push(format!(
            "{lost} events{more} that the kernel lost: findings that bear on their kinds are at \
             most possible"
        ));
    }
    if accounting.missing > 0 {
        out.push(format!(
            "{} events that the log's header counts are not in the log, and nobody knows where \
             they were: every finding is at most possible",
            accounting.missing
        ));
    }
    if accounting.torn > 0 {
        out.push(format!(
            "what {} changes of permissions lack: they have an entry and no return, or a return \
             and no entry, so lines may be gone anywhere, and every finding is at most possible",
            accounting.torn
        ));
    }
    let unread: u64 =
        accounting.reasons().filter(|(r, _)| r.may_be_lost()).map(|(_, t)| t.lines).sum();
    if unread > 0 {
        out.push(format!(
            "what {unread} lines told that were not understood: findings behind them are at most \
             possible"
        ));
    }
    let unpaired: u64 = calls.values().map(|c| c.return_without_entry).sum();
    if unpaired > 0 {
        out.push(format!(
            "calls behind {unpaired} returns (begun before the log, or their entries were missed): \
             what they promised is not known"
        ));
    }
    let unended: u64 = calls.values().map(|c| c.entry_without_return).sum();
    if unended > 0 {
        out.push(format!(
            "returns of {unended} calls (after the end of the log, or missed): whether they failed \
             is not known"
        ));
    }
    if areas.removed_unknown > 0 {
        out.push(format!(
            "{} areas that were removed and of which nothing showed that they were made",
            areas.removed_unknown
        ));
    }
    if counts.frees_unsaid > 0 {
        out.push(format!(
            "when the pages of {} freed areas went back to the page allocator: whether they were \
             executable then is not known",
            counts.frees_unsaid
        ));
    }
    let changes = counts.leaves_with_phys + counts.leaves_without_phys;
    if counts.leaves_without_phys > 0 {
        out.push(format!(
            "frames behind {} of {changes} changes of page-table entries: other mappings of these \
             frames are not seen",
            counts.leaves_without_phys
        ));
    }
    out
}

/// What was too much, and what a tracer left out.
pub(crate) fn of_size(dropped: &Dropped, without_arguments: u64) -> Vec<String> {
    let mut out: Vec<String> = dropped.iter().map(|(bound, count)| bound.text(count)).collect();
    if without_arguments > 0 {
        out.push(format!(
            "arguments of {without_arguments} calls of the function-graph tracer: it prints them \
             with the option funcgraph-args (Linux 6.15 and later)"
        ));
    }
    out
}
