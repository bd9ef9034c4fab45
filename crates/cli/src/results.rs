//! `textbed run --results`: what each call of a scenario gave and did, one column a machine.
//!
//! Counted are calls that the scenario makes itself; what they caused (warnings, changes of pages,
//! interrupts, invalidations, halts of all CPUs) is counted with them, whatever called it inside.

mod effects;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anyhow::Result;
use textbed_arch::{Arch, CpuId, SpaceId, VirtAddr};
use textbed_event::{Batch, CallRef, Event, Header, NameTable, Sink, View};
use textbed_kernel::{Returns, Version, errno, find_call};
use textbed_report::text::{Table, wrap};
use textbed_scenario::{Loaded, RunOptions};

use crate::output::Out;
use crate::status::Status;
use effects::{Effects, Pages};

/// What one call gave, and what it caused.
#[derive(Default)]
struct Given {
    name: String,
    value: Option<(i64, bool)>,
    warned: Vec<&'static str>,
    did: Effects,
}

/// Follows the calls of a run.
#[derive(Default)]
pub(crate) struct Calls {
    names: NameTable,
    /// The scenario's own call that each CPU is in.
    open: BTreeMap<CpuId, (CallRef, usize)>,
    /// The call that has others interrupted or stopped, with these (bit n = CPU n).
    reached: Option<(usize, u64)>,
    direct_map: Option<(VirtAddr, u64)>,
    /// In the order in which they began, with the line of each.
    given: Vec<(u32, Given)>,
}

impl Sink for Calls {
    fn begin(&mut self, _header: &Header) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        self.names.absorb(batch);
        for event in &batch.events {
            self.event(batch, event);
        }
        ControlFlow::Continue(())
    }
}

impl Calls {
    fn event(&mut self, batch: &Batch, event: &Event) {
        let view = event.view();
        if let View::Region { virt, len, owner, .. } = view
            && self.names.get(owner) == DIRECT_MAP
        {
            self.direct_map = Some((virt, len));
        }
        if let View::CallEntered { call, name, .. } = view
            && event.cause == CallRef::NONE
        {
            let line = batch.origin(event.origin).map_or(0, |o| o.line);
            self.open.insert(event.cpu, (call, self.given.len()));
            let name = self.names.get(name).to_owned();
            self.given.push((line, Given { name, ..Given::default() }));
            return;
        }
        if let Some((index, cpus)) = self.reached
            && cpus & View::cpu_bit(event.cpu) != 0
            && let Some((_, given)) = self.given.get_mut(index)
        {
            given.did.there(event.cpu, view);
        }
        let Some((call, index)) = self.open.get(&event.cpu).copied() else { return };
        match view {
            View::IpiSent { targets, .. } => self.reached = Some((index, targets)),
            View::StopMachine { begin: true } => {
                self.reached = Some((index, !View::cpu_bit(event.cpu)));
            }
            View::IpiDone { waited: true, .. } | View::StopMachine { begin: false } => {
                self.reached = None;
            }
            _ => {}
        }
        let Some((_, given)) = self.given.get_mut(index) else { return };
        match view {
            View::CallReturned { call: ended, value, failed } if ended == call => {
                given.value = Some((value, failed));
                self.open.remove(&event.cpu);
            }
            View::Warned { reason, .. } => given.warned.push(reason.text()),
            _ => {
                let own = |virt: VirtAddr| {
                    let direct = self.direct_map.is_some_and(|(start, len)| {
                        virt.0.checked_sub(start.0).is_some_and(|offset| offset < len)
                    });
                    let pages = if direct { Pages::DirectMap } else { Pages::Own };
                    (event.space == SpaceId::KERNEL).then_some(pages)
                };
                given.did.here(view, |name| self.names.get(name).to_owned(), own);
            }
        }
    }
}

/// The owner of the region that is the direct map.
const DIRECT_MAP: &str = "direct map";

impl Given {
    /// As it stands in the table.
    fn cell(&self, arch: Arch, kernel: Version) -> String {
        let returns = find_call(&self.name, kernel, arch).map(|spec| spec.returns).ok();
        let mut parts = vec![match (self.value, returns) {
            (None, _) => "does not return".to_owned(),
            (Some(_), Some(Returns::Void)) => "done".to_owned(),
            (Some((value, _)), Some(Returns::PointerOrNull)) => {
                if value == 0 { "NULL" } else { "a pointer" }.to_owned()
            }
            (Some((value, true)), _) => {
                errno::name(value).map_or_else(|| value.to_string(), |name| format!("-{name}"))
            }
            (Some(_), Some(Returns::PointerOrErr)) => "a pointer".to_owned(),
            (Some((value, false)), _) => value.to_string(),
        }];
        parts.extend(self.warned.iter().map(|reason| format!("WARN {reason}")));
        parts.extend(self.did.lines());
        parts.join("\n")
    }
}

/// Runs a scenario on machines and prints its calls' results.
pub(crate) fn print(
    loaded: &Loaded,
    machines: &[(Arch, Version)],
    options: impl Fn(Arch, Version) -> RunOptions,
    out: &mut Out,
) -> Result<Status> {
    let mut status = Status::Clean;
    let mut head = vec!["call".to_owned()];
    // Lines with calls, and for each machine what they gave there.
    let mut lines: BTreeMap<u32, Vec<Option<String>>> = BTreeMap::new();
    for (n, (arch, kernel)) in machines.iter().enumerate() {
        head.push(format!("{arch} {kernel}"));
        let mut calls = Calls::default();
        if let Err(error) = textbed_scenario::run(loaded, &options(*arch, *kernel), &mut calls) {
            out.error(&format!("{}: {error}", loaded.path()));
            status = status.and(Status::Unusable);
            continue;
        }
        for (line, given) in &calls.given {
            let cells = lines.entry(*line).or_default();
            cells.resize(machines.len(), None);
            let cell = given.cell(*arch, *kernel);
            if let Some(place) = cells.get_mut(n) {
                // A line that runs several times shows what differs.
                match place {
                    Some(known) if known.split(" / ").any(|k| k == cell) => {}
                    Some(known) => *known = format!("{known} / {cell}"),
                    None => *place = Some(cell),
                }
            }
        }
    }
    let mut table = Table::new(head);
    for (line, cells) in &lines {
        let index = usize::try_from(*line).unwrap_or(usize::MAX).saturating_sub(1);
        let text = loaded.text().lines().nth(index).unwrap_or("");
        let text = text.split('#').next().unwrap_or("").trim();
        let mut row = vec![text.to_owned()];
        row.extend(cells.iter().map(|c| c.clone().unwrap_or_default()));
        table.row(row);
    }
    let what = "pages: from what to what they change, in order, and what they keep after an error; \
                interrupts: sent and waited for; broadcasts: invalidations of all CPUs by hardware";
    let what = wrap(what, out.style().width, 0);
    out.text(&format!("{} ({})\n{what}\n\n", loaded.name(), loaded.path()))?;
    out.table(&table)?;
    Ok(status)
}
