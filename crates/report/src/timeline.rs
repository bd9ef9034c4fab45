//! Events on a time axis, as a Chrome trace that Perfetto and `chrome://tracing` open.
//!
//! Three groups of tracks for each run: a track a CPU (calls as slices, interrupts as flow arrows,
//! barriers and context synchronisation as instants, findings as instants with their rule), a track
//! an area (a slice for each permission that its pages had, coloured by it), and a track a status
//! for the W+X windows. Source of the form: "Trace Event Format" (the Chrome project's document).
//!
//! Times are the source's; where it has none (scenarios), an event's number counts as microseconds.
//! Not shown: single stores and fetches, and more than [`MAX_ENTRIES`] entries or [`MAX_AREAS`]
//! areas; what was left off is said in the trace's metadata.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;

use serde_json::json;
use textbed_arch::{CpuId, Perm};
use textbed_check::{Finding, Level, Site};
use textbed_event::{Batch, CallRef, Event, Header, Kind, NameTable, Sink, View};

use crate::run::Run;

/// Entries of one run's timeline at most.
pub const MAX_ENTRIES: usize = 4_000_000;
/// Areas with a track at most.
pub const MAX_AREAS: usize = 4096;

/// Interrupts that are remembered until a CPU takes them.
const MAX_SENT: usize = 4096;

const CPUS: u32 = 1;
const AREAS: u32 = 2;
const WINDOWS: u32 = 3;

/// Gathers one run's timeline from its stream.
#[derive(Debug, Default)]
pub struct Timeline {
    number: u32,
    names: NameTable,
    /// The entries' JSON, each with a comma behind it.
    text: String,
    entries: usize,
    left_off: u64,
    cpus: Vec<CpuId>,
    calls: BTreeMap<CallRef, Open>,
    /// Interrupts sent last, by number: from where, and when.
    sent: BTreeMap<u32, (CpuId, u64)>,
    areas: BTreeMap<u64, Area>,
    tracks: u32,
    last: u64,
    /// What each CPU did last: a run of maintenance by line is one instant.
    before: BTreeMap<CpuId, Kind>,
}

#[derive(Debug)]
struct Open {
    name: String,
    cpu: CpuId,
    at: u64,
}

/// An area of virtual memory: its permission is that of the last change in it.
#[derive(Debug)]
struct Area {
    len: u64,
    track: u32,
    name: String,
    shown: Option<(Perm, u64)>,
}

/// Nanoseconds of an event on the axis.
fn time(at_ns: Option<u64>, seq: u64) -> u64 {
    at_ns.unwrap_or_else(|| seq.saturating_mul(1000))
}

fn event_time(event: &Event) -> u64 {
    time((event.at_ns != u64::MAX).then_some(event.at_ns), event.seq)
}

fn site_time(site: &Site) -> u64 {
    time(site.at_ns, site.seq)
}

/// A reserved colour name of the trace viewer for a permission.
fn colour(perm: Perm) -> &'static str {
    match (perm.writable(), perm.executable()) {
        (true, true) => "terrible",
        (false, true) => "good",
        (true, false) => "thread_state_runnable",
        (false, false) => "grey",
    }
}

impl Timeline {
    /// An empty one; `number` tells the runs of one trace apart.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    fn pid(&self, group: u32) -> u32 {
        group + 10 * self.number
    }

    fn push(&mut self, entry: &serde_json::Value) {
        if self.entries >= MAX_ENTRIES {
            self.left_off += 1;
            return;
        }
        self.entries += 1;
        let _ = writeln!(self.text, "{entry},");
    }

    fn instant(&mut self, cpu: CpuId, at: u64, name: &str) {
        self.push(&json!({
            "ph": "i", "s": "t", "name": name, "pid": self.pid(CPUS), "tid": cpu.0, "ts": number(at),
        }));
    }

    fn event(&mut self, event: &Event) {
        let at = event_time(event);
        self.last = self.last.max(at);
        let cpu = event.cpu;
        if !self.cpus.contains(&cpu) {
            self.cpus.push(cpu);
        }
        let repeated = self.before.insert(cpu, event.kind) == Some(event.kind);
        match event.view() {
            View::CallEntered { call, name, .. } => {
                let name = self.names.get(name).to_owned();
                self.calls.insert(call, Open { name, cpu, at });
            }
            View::CallReturned { call, value, failed } => {
                if let Some(open) = self.calls.remove(&call) {
                    self.push(&json!({
                        "ph": "X", "name": open.name, "pid": self.pid(CPUS), "tid": open.cpu.0,
                        "ts": number(open.at), "dur": number(at.saturating_sub(open.at)),
                        "args": {"returned": value, "failed": failed},
                    }));
                }
            }
            View::IpiSent { ipi, function, .. } => {
                let name = self.names.get(function).to_owned();
                self.slice(cpu, at, &format!("sends {name}"));
                if self.sent.len() >= MAX_SENT {
                    self.sent.pop_first();
                }
                self.sent.insert(ipi, (cpu, at));
            }
            View::IpiTaken { ipi, .. } => {
                self.slice(cpu, at, "takes an interrupt");
                if let Some((from, sent)) = self.sent.get(&ipi).copied() {
                    self.flow("s", (ipi, cpu), from, sent);
                    self.flow("f", (ipi, cpu), cpu, at);
                }
            }
            View::ContextSync { cause } => {
                self.instant(cpu, at, &format!("context synchronisation: {cause:?}"));
            }
            View::TlbInvalidate { virt, .. } if !repeated => {
                self.instant(cpu, at, &format!("invalidates translations from {virt}"));
            }
            View::IcacheInvalidate { virt, .. } if !repeated => {
                self.instant(cpu, at, &format!("invalidates instruction caches at {virt}"));
            }
            View::Marker { name } => {
                let name = self.names.get(name).to_owned();
                self.push(&json!({
                    "ph": "i", "s": "g", "name": name, "pid": self.pid(CPUS), "tid": cpu.0,
                    "ts": number(at),
                }));
            }
            // Parts of a page that an allocator inside of an area hands out have no track.
            View::AreaMade { len, .. } | View::AreaRemoved { len, .. } if len < 4096 => {}
            View::AreaMade { virt, len, .. } => self.area(virt.0, len, String::new()),
            View::Region { virt, len, owner, name } => {
                let name = format!("{} {}", self.names.get(owner), self.names.get(name));
                self.area(virt.0, len, name.trim().to_owned());
            }
            View::AreaRemoved { virt, .. } => {
                if let Some(area) = self.areas.remove(&virt.0) {
                    self.close(&area, virt.0, at);
                    self.name_area(virt.0, &area);
                }
            }
            View::Leaf { virt, change, .. } => self.leaf(virt.0, change.new, at),
            _ => {}
        }
    }

    /// An arrow begins or ends here; each receiver has one of its own, and viewers take numbers of
    /// arrows as one space for all processes.
    fn flow(&mut self, ph: &str, (ipi, to): (u32, CpuId), cpu: CpuId, at: u64) {
        let id = format!("{}.{ipi}.{}", self.number, to.0);
        self.push(&json!({
            "ph": ph, "bp": "e", "id": id, "cat": "ipi", "name": "ipi", "pid": self.pid(CPUS),
            "tid": cpu.0, "ts": number(at),
        }));
    }

    /// A slice of a nanosecond: an arrow is drawn between slices only.
    fn slice(&mut self, cpu: CpuId, at: u64, name: &str) {
        self.push(&json!({
            "ph": "X", "name": name, "pid": self.pid(CPUS), "tid": cpu.0, "ts": number(at),
            "dur": number(1),
        }));
    }

    fn area(&mut self, virt: u64, len: u64, name: String) {
        if let Some(area) = self.areas.get_mut(&virt) {
            area.len = area.len.max(len);
            if !name.is_empty() {
                area.name = name;
            }
            return;
        }
        if self.tracks as usize >= MAX_AREAS {
            self.left_off += 1;
            return;
        }
        self.tracks += 1;
        self.areas.insert(virt, Area { len, track: self.tracks, name, shown: None });
    }

    fn leaf(&mut self, virt: u64, new: Perm, at: u64) {
        let Some((first, area)) = self.areas.range_mut(..=virt).next_back() else { return };
        if virt - first >= area.len {
            return;
        }
        let old = area.shown;
        if old.is_some_and(|(perm, _)| perm == new) {
            return;
        }
        area.shown = (!new.is_empty()).then_some((new, at));
        let (first, track) = (*first, area.track);
        if let Some((perm, since)) = old {
            self.span(first, track, perm, since, at);
        }
    }

    fn close(&mut self, area: &Area, virt: u64, at: u64) {
        if let Some((perm, since)) = area.shown {
            self.span(virt, area.track, perm, since, at);
        }
    }

    fn span(&mut self, virt: u64, track: u32, perm: Perm, since: u64, until: u64) {
        self.push(&json!({
            "ph": "X", "name": perm.letters(), "cname": colour(perm), "pid": self.pid(AREAS), "tid": track,
            "ts": number(since), "dur": number(until.saturating_sub(since)),
            "args": {"from": format!("{virt:#x}")},
        }));
    }

    fn name_area(&mut self, virt: u64, area: &Area) {
        let name = if area.name.is_empty() { "area" } else { &area.name };
        let name = format!("{name} {virt:#x} ({} KiB)", area.len >> 10);
        self.metadata("thread_name", AREAS, area.track, &name);
    }

    fn metadata(&mut self, what: &str, pid: u32, tid: u32, name: &str) {
        self.push(&json!({
            "ph": "M", "name": what, "pid": self.pid(pid), "tid": tid, "args": {"name": name},
        }));
    }

    /// Adds what the checker found, and closes what is open.
    pub fn finish(&mut self, run: &Run) {
        let last = self.last;
        for (virt, area) in std::mem::take(&mut self.areas) {
            self.close(&area, virt, last);
            self.name_area(virt, &area);
        }
        for open in std::mem::take(&mut self.calls).into_values() {
            self.instant(open.cpu, open.at, &format!("{} (its return is not seen)", open.name));
        }
        for f in run.report.findings.iter().filter(|f| f.level != Level::Allow) {
            self.finding(f);
        }
        for window in &run.report.windows {
            let since = site_time(&window.opened);
            let until = window.closed.as_ref().map_or(last, site_time);
            let tid = window.status as u32 + 1;
            self.push(&json!({
                "ph": "X", "name": format!("W+X {}", window.owner), "pid": self.pid(WINDOWS), "tid": tid,
                "ts": number(since), "dur": number(until.saturating_sub(since)),
                "args": {
                    "write at": window.write_at.to_string(), "exec at": window.exec_at.to_string(),
                    "frames": window.frames, "windows of this kind": window.count,
                },
            }));
            self.metadata("thread_name", WINDOWS, tid, window.status.name());
        }
        let title = run.title();
        for (pid, what) in [(CPUS, "CPUs"), (AREAS, "areas"), (WINDOWS, "W+X windows")] {
            self.metadata("process_name", pid, 0, &format!("{what}: {title}"));
        }
        for cpu in std::mem::take(&mut self.cpus) {
            self.metadata("thread_name", CPUS, u32::from(cpu.0), &format!("CPU {}", cpu.0));
        }
    }

    fn finding(&mut self, f: &Finding) {
        self.push(&json!({
            "ph": "i", "s": "p", "name": f.rule.name(), "cname": "terrible", "pid": self.pid(CPUS),
            "tid": f.at.cpu.0, "ts": number(site_time(&f.at)),
            "args": {"message": f.message, "missing": f.missing, "times": f.count},
        }));
    }
}

/// Microseconds, with the nanoseconds behind the point.
fn number(ns: u64) -> serde_json::Value {
    json!(ns as f64 / 1000.0)
}

impl Sink for Timeline {
    fn begin(&mut self, _header: &Header) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        self.names.absorb(batch);
        for event in &batch.events {
            self.event(event);
        }
        ControlFlow::Continue(())
    }
}

/// The timelines as one trace.
#[must_use]
pub fn document(timelines: &[Timeline]) -> String {
    let mut out = String::from("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
    for timeline in timelines {
        out += &timeline.text;
    }
    if let Some(end) = out.trim_end().strip_suffix(',') {
        out.truncate(end.len());
    }
    let left_off: u64 = timelines.iter().map(|t| t.left_off).sum();
    let _ = writeln!(out, "\n],\"otherData\":{{\"entries left off\":\"{left_off}\"}}}}");
    out
}
