//! What a log was and what came of its lines: the part of a report that scenarios do not have.

use std::collections::BTreeMap;

use serde::Serialize;
use textbed_check::WxWindow;

/// A place in a log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LogPlace {
    /// The file as the user named it.
    pub file: String,
    /// Number of the line, from 1.
    pub line: u64,
}

/// Lines of one kind that were not understood.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NotUnderstood {
    /// Why.
    pub reason: String,
    /// How many.
    pub lines: u64,
    /// The first few.
    pub first: Vec<LogLine>,
}

/// A line of a log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LogLine {
    /// Where.
    pub place: LogPlace,
    /// Its text, cut to a few hundred bytes.
    pub text: String,
}

/// How the lines of a log add up.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct LineCounts {
    /// All of them.
    pub all: u64,
    /// Something was made of them.
    pub used: u64,
    /// Understood, and not needed.
    pub not_needed: u64,
    /// Comments and blank lines.
    pub comments: u64,
    /// Not understood.
    pub not_understood: u64,
    /// Notices of lost events.
    pub lost_notices: u64,
}

/// How often a function was called.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LogCall {
    /// Its name.
    pub name: String,
    /// Entries.
    pub entered: u64,
    /// Returns that belong to one of them.
    pub returned: u64,
    /// Of these, failures.
    pub failed: u64,
    /// Returns without an entry.
    pub return_without_entry: u64,
    /// Entries without a return, where returns were recorded.
    pub entry_without_return: u64,
}

/// Pieces of executable memory that an owner got.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LogOwner {
    /// Kind of owner.
    pub owner: String,
    /// Its name, where it has one.
    pub name: String,
    /// How many pieces.
    pub pieces: u64,
}

/// Where the log and the modelled kernel contradict each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Contradiction {
    /// Which kind, in a word.
    pub kind: String,
    /// What the log has.
    pub recorded: String,
    /// What the model has.
    pub modelled: String,
    /// Where it shows; none for what is seen at the end.
    pub at: Option<LogPlace>,
    /// What it contradicts; none where that was before the log.
    pub against: Option<LogPlace>,
}

/// W+X windows of one status, owner and call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WindowGroup {
    /// Status.
    pub status: &'static str,
    /// Who owns the executable range.
    pub owner: String,
    /// The outermost call in which they began; empty where there was none.
    pub call: String,
    /// How many windows.
    pub windows: u64,
    /// Frames of 4 KiB in them, each as often as it was in one.
    pub frames: u64,
    /// The longest, in nanoseconds; none while one is open, or without times.
    pub longest_ns: Option<u64>,
    /// Whether one was open at the end.
    pub open: bool,
}

/// The summary of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct LogSummary {
    /// Files that were read as one.
    pub files: Vec<String>,
    /// Files beside it that were used.
    pub side_files: Vec<String>,
    /// How architecture, version and the like were found.
    pub found_by: Vec<String>,
    /// Time that it covers, in nanoseconds; none without times.
    pub covered_ns: Option<u64>,
    /// Parts with a clock of their own: boots.
    pub parts: u64,
    /// Its lines.
    pub lines: LineCounts,
    /// Events that were lost, as far as the log says how many.
    pub lost_events: u64,
    /// Lines not understood, by reason.
    pub not_understood: Vec<NotUnderstood>,
    /// Calls, the most frequent first.
    pub calls: Vec<LogCall>,
    /// Owners of executable memory, by name.
    pub owners: Vec<LogOwner>,
    /// W+X windows by status, owner and call, the longest first.
    pub windows: Vec<WindowGroup>,
    /// Contradictions: the first few of each kind.
    pub contradictions: Vec<Contradiction>,
    /// How many contradictions there are.
    pub contradictions_counted: u64,
    /// What could not be seen, in sentences.
    pub not_seen: Vec<String>,
}

/// Groups windows by status, owner and outermost call: open ones first, then the longest.
#[must_use]
pub fn grouped(windows: &[WxWindow]) -> Vec<WindowGroup> {
    let mut groups: BTreeMap<(&str, &str, &str), WindowGroup> = BTreeMap::new();
    for w in windows {
        let call = w.opened.calls.first().map_or("", String::as_str);
        let (status, open) = (w.status.name(), w.closed.is_none());
        let length = w
            .closed
            .as_ref()
            .and_then(|closed| w.longest_ns.or_else(|| closed.at_ns?.checked_sub(w.opened.at_ns?)));
        let group = groups.entry((status, &w.owner, call)).or_insert_with(|| WindowGroup {
            status,
            owner: w.owner.clone(),
            call: call.to_owned(),
            windows: 0,
            frames: 0,
            longest_ns: None,
            open: false,
        });
        group.windows = group.windows.saturating_add(w.count);
        group.frames = group.frames.saturating_add(w.frames);
        group.longest_ns = group.longest_ns.max(length);
        group.open |= open;
    }
    let mut groups: Vec<WindowGroup> = groups.into_values().collect();
    groups.sort_by_key(|g| (!g.open, std::cmp::Reverse(g.longest_ns)));
    groups
}
