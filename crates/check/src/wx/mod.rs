//! W+X windows: frames that some CPU may write and some CPU may execute, and why that is tolerated.
//!
//! A frame is in a window while a write grant and an execute grant on it lie in translation windows
//! of CPUs that use the address space: what the tables say now, and old answers not yet excluded.
//! Status: `platform` (the frame's oldest alias, under a window that the platform declared),
//! `protocol` (a writable alias made inside an authorised window), `in-call` (closed before the
//! outermost call that was open at its beginning returned; outside calls: before the CPU did
//! anything but change and flush translations), else `violation`.
//!
//! A frame is in at most two windows at a time: the worst that the tables grant now, and the worst
//! that needs an old answer whose right the tables no longer give at that address. The first does
//! not excuse the second: another change mends it.
//!
//! Windows are kept by ranges of frames; the window of a tebibyte of direct map is one entry. Not
//! modelled: protection keys, write protection switched off by control bits.

mod grants;

use std::collections::BTreeMap;

use textbed_arch::{CpuId, Perm, Pfn, SpaceId, VirtAddr};
use textbed_event::CallRef;

pub(crate) use grants::Grant;
use grants::{Layers, Pair, layer};

use crate::finding::{WindowStatus, WxWindow};
use crate::live::Live;
use crate::mark::{ChainId, Mark};
use crate::rules::RuleId;
use crate::rules::permissions::{self, Ended};
use crate::span::{Span, SpanMap};
use crate::tables::UNKNOWN_PHYS;

/// A part of an open window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    window: u32,
}

crate::span::flat_piece!(Part);

/// A window that is open.
#[derive(Clone, Debug)]
pub(crate) struct OpenWindow {
    pub(crate) rule: RuleId,
    pub(crate) status: WindowStatus,
    pub(crate) opened: Mark,
    /// The outermost call open when it began.
    pub(crate) outer: CallRef,
    pub(crate) write: Grant,
    pub(crate) exec: Grant,
    /// First physical byte, bytes ever in it, bytes in it now.
    pub(crate) phys: u64,
    pub(crate) bytes: u64,
    open_bytes: u64,
    pub(crate) write_at: u64,
    pub(crate) exec_at: u64,
    reported: bool,
    /// Outside calls: the CPU went on to something else.
    act_over: bool,
}

type MergeKey = (WindowStatus, RuleId, String, ChainId);

/// All windows.
#[derive(Default, Debug)]
pub(crate) struct WxWindows {
    parts: Layers<Part>,
    open: BTreeMap<u32, OpenWindow>,
    next: u32,
    /// The window opened last, to which the next piece may belong.
    last: Option<u32>,
    by_call: BTreeMap<CallRef, Vec<u32>>,
    /// Windows opened outside calls by CPUs that have done nothing since but change and flush.
    in_act: Vec<(CpuId, u32)>,
    closed: Vec<WxWindow>,
    merged: BTreeMap<MergeKey, usize>,
}

impl Live {
    /// Looks at the grants on `frames` again after something changed.
    pub(crate) fn review_frames(&mut self, frames: Span, mark: &Mark) {
        let (grants, nowhere) = self.grants(frames);
        let quiet = grants != Perm::WRITE | Perm::EXEC && !self.in_window(frames);
        let wanted = (!quiet).then(|| self.pairs(frames));
        // Only now: the place of an alias in its list says which is the oldest.
        for (part, alias) in nowhere {
            self.tables.forget(part, alias);
        }
        let Some(wanted) = wanted else { return };
        let mut fresh = wanted.clone();
        let mut over = Vec::new();
        for ((parts, wanted), fresh) in self.wx.parts.iter().zip(&wanted).zip(&mut fresh) {
            for (span, part) in parts.within(frames) {
                let Some(window) = self.wx.open.get(&part.window) else { continue };
                let mut gone = SpanMap::default();
                gone.insert(span, part);
                for (same, pair) in wanted.within(span) {
                    if (pair.rule, pair.status) == (window.rule, window.status) {
                        gone.remove(same);
                        fresh.remove(same);
                    }
                }
                over.extend(gone.iter().map(|(gone, part)| (gone, *part)));
            }
        }
        // Before anything opens, what is gone closes: a window may turn into another kind.
        for (gone, part) in over {
            self.close_part(gone, part, mark);
        }
        for (span, pair) in fresh.iter().flat_map(SpanMap::iter) {
            self.open_part(span, pair, mark);
        }
    }

    /// Whether a window is open on some of `frames`.
    pub(crate) fn in_window(&self, frames: Span) -> bool {
        self.wx.parts.iter().any(|layer| layer.meets(frames))
    }

    fn open_part(&mut self, span: Span, pair: &Pair, mark: &Mark) {
        if pair.rule == RuleId::WxStaleTranslation {
            self.occasions.looked(pair.rule);
        }
        let outer = self.calls.outermost(mark.cause);
        let write_at = span.first.wrapping_add(pair.write.delta);
        let exec_at = span.first.wrapping_add(pair.exec.delta);
        let id = match self.wx.last.and_then(|id| Some((id, self.wx.open.get_mut(&id)?))) {
            Some((id, w))
                if (w.rule, w.status, w.outer) == (pair.rule, pair.status, outer)
                    && (w.opened.seq == mark.seq || w.opened.same_call(mark))
                    && w.opened.cpu == mark.cpu
                    && !w.reported =>
            {
                w.bytes = w.bytes.saturating_add(span.len());
                w.open_bytes = w.open_bytes.saturating_add(span.len());
                id
            }
            _ => {
                let id = self.wx.next;
                self.wx.next = self.wx.next.wrapping_add(1);
                let window = OpenWindow {
                    rule: pair.rule,
                    status: pair.status,
                    opened: mark.about(exec_at),
                    outer,
                    write: pair.write,
                    exec: pair.exec,
                    phys: span.first,
                    bytes: span.len(),
                    open_bytes: span.len(),
                    write_at,
                    exec_at,
                    reported: false,
                    act_over: false,
                };
                self.wx.open.insert(id, window);
                if outer != CallRef::NONE {
                    self.wx.by_call.entry(outer).or_default().push(id);
                } else {
                    self.wx.in_act.push((mark.cpu, id));
                }
                self.wx.last = Some(id);
                id
            }
        };
        self.wx.parts[layer(pair.rule)].insert(span, Part { window: id });
    }

    fn close_part(&mut self, span: Span, part: Part, mark: &Mark) {
        let Some(window) = self.wx.open.get_mut(&part.window) else { return };
        self.wx.parts[layer(window.rule)].remove(span);
        window.open_bytes = window.open_bytes.saturating_sub(span.len());
        if window.open_bytes == 0
            && let Some(window) = self.wx.open.remove(&part.window)
        {
            if let Some(list) = self.wx.by_call.get_mut(&window.outer) {
                list.retain(|id| *id != part.window);
            }
            self.finish_window(window, Some(mark));
        }
    }

    /// `cpu` goes on to something that is no change of translations and no flush: what it opened
    /// outside calls and left open is no longer one act with what closes it.
    pub(crate) fn act_ends(&mut self, cpu: CpuId) {
        let WxWindows { in_act, open, .. } = &mut self.wx;
        in_act.retain(|(c, id)| {
            if *c == cpu
                && let Some(window) = open.get_mut(id)
            {
                window.act_over = true;
            }
            *c != cpu && open.contains_key(id)
        });
    }

    /// Whether any window waits for the end of an act.
    pub(crate) fn in_act(&self) -> bool {
        !self.wx.in_act.is_empty()
    }

    /// The outermost call `call` returned: windows that it opened and left open are violations.
    pub(crate) fn judge_windows(&mut self, call: CallRef) {
        for id in self.wx.by_call.remove(&call).unwrap_or_default() {
            if let Some(window) = self.wx.open.get_mut(&id)
                && window.status == WindowStatus::Violation
                && !window.reported
            {
                window.reported = true;
                let window = window.clone();
                let draft = permissions::wx(self, &window, Ended::NotInCall);
                self.report(draft);
            }
        }
    }

    /// The end of the stream.
    pub(crate) fn finish_windows(&mut self) -> Vec<WxWindow> {
        for window in std::mem::take(&mut self.wx.open).into_values() {
            self.finish_window(window, None);
        }
        let mut windows = std::mem::take(&mut self.wx.closed);
        windows.sort_by_key(|w| (w.opened.seq, w.exec_at, w.write_at));
        windows
    }

    /// A window is over, or the stream is.
    fn finish_window(&mut self, window: OpenWindow, closed: Option<&Mark>) {
        let in_call = match window.outer {
            CallRef::NONE => !window.act_over && closed.is_some(),
            outer => self.calls.is_open(outer),
        };
        let status = match window.status {
            WindowStatus::Violation if in_call && !window.reported => WindowStatus::InCall,
            other => other,
        };
        if status == WindowStatus::Violation && !window.reported {
            let draft = permissions::wx(self, &window, closed.map_or(Ended::NotAtAll, Ended::By));
            self.report(draft);
        }
        let owner = self.symbols.owner(window.exec_at, &self.names);
        let length = closed.and_then(|c| c.ns_since(&window.opened));
        let key = (status, window.rule, owner.clone(), window.opened.chain);
        if status != WindowStatus::Violation
            && let Some(known) = self.wx.merged.get(&key)
            && let Some(known) = self.wx.closed.get_mut(*known)
        {
            known.count = known.count.saturating_add(1);
            known.frames = known.frames.saturating_add(window.bytes.div_ceil(4096));
            known.longest_ns = known.longest_ns.max(length);
            return;
        }
        let opened = self.site(&window.opened, "window begins");
        let closed = closed.map(|c| self.site(c, "window ends"));
        if status != WindowStatus::Violation {
            self.wx.merged.insert(key, self.wx.closed.len());
        } else if self.wx.closed.len() >= MAX_WINDOWS {
            return;
        }
        self.wx.closed.push(WxWindow {
            status,
            pfn: (window.phys < UNKNOWN_PHYS).then_some(Pfn(window.phys >> 12)),
            frames: window.bytes.div_ceil(4096),
            write_at: VirtAddr(window.write_at),
            exec_at: VirtAddr(window.exec_at),
            owner,
            opened,
            closed,
            rule: window.rule,
            count: 1,
            longest_ns: length,
        });
    }

    /// Frames that the tables of `space` lead to: to be looked at again when a CPU loads or leaves
    /// it.
    pub(crate) fn review_space(&mut self, space: SpaceId, mark: &Mark) {
        let all = Span { first: 0, last: u64::MAX };
        let mut frames: Vec<Span> = self
            .tables
            .within(space, all)
            .filter_map(|(span, mapping)| Span::of(mapping.phys, span.len()))
            .collect();
        for (span, olds) in self.stale.within(space, all) {
            frames.extend(olds.0.iter().filter_map(|old| Span::of(old.phys, span.len())));
        }
        frames.sort_unstable();
        frames.dedup();
        for span in frames {
            self.review_frames(span, mark);
        }
    }

    /// A CPU uses `space` from here on.
    pub(crate) fn uses_space(&mut self, cpu: CpuId, space: SpaceId, mark: &Mark) {
        let before = self.cpus.space_of(cpu);
        if before == space {
            return;
        }
        self.cpus.space.set(cpu, space);
        for changed in [before, space] {
            if changed != SpaceId::KERNEL {
                self.review_space(changed, mark);
            }
        }
    }
}

/// Violations kept as windows; their findings are merged and counted besides.
const MAX_WINDOWS: usize = 1 << 16;
