//! missing-icache-maintenance, missing-context-sync, missing-publication-order.

use textbed_arch::effect::SyncCause;
use textbed_arch::insn::CmodxRevision;
use textbed_arch::{
    Arch, CpuId, SpaceId, VirtAddr,
    sync::{self, Action, FetchRow},
};

use textbed_event::CallRef;

use crate::book::Draft;
use crate::fetch::verdict::Broken;
use crate::finding::{Blame, ChainStep, StepState, Window};
use crate::live::Live;
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::words;

/// The CPU that has to carry out a step. Where every store releases, it is by a load that one CPU
/// learns of another's.
fn who(arch: Arch, action: Action, writer: CpuId, executor: CpuId) -> CpuId {
    let loads = action == Action::Publish && arch == Arch::X86_64;
    if loads || action == Action::ContextSync { executor } else { writer }
}

/// A chain that is broken, at a fetch.
pub(crate) fn broken(live: &Live, mark: &Mark, broken: &Broken) -> Draft {
    let p = mark.cpu;
    let version = &broken.version;
    let q = version.cpu;
    let virt = mark.virt.map_or(0, |v| v.0);
    let at = live.address(virt);
    let row = broken.steps.iter().find(|(r, _)| r.action == broken.first).map(|(r, _)| *r);
    let operation = row.map_or("", FetchRow::missing);
    let message = match (broken.rule, broken.race) {
        (RuleId::MissingContextSync, _) => format!(
            "{p} executes {at} after it changed, but may have fetched the old bytes ahead: \
             no context synchronisation since"
        ),
        (RuleId::MissingPublicationOrder, true) => format!(
            "{p} executes {at} while nothing orders the store of {q} before or after the fetch"
        ),
        (RuleId::MissingPublicationOrder, false) => format!(
            "{p} executes {at} without knowing that the cache maintenance of it is complete"
        ),
        _ => format!(
            "{p} executes {at}, stored by {q}, but its fetch may still return the old bytes: {}",
            missing_text(broken.first)
        ),
    };
    let lack = match broken.first {
        Action::StoreFence => Operation::StoreFence,
        Action::Publish => Operation::Publication,
        Action::ContextSync if p == q => Operation::OwnContextSync,
        Action::ContextSync => Operation::ContextSync,
        _ => Operation::Maintenance,
    };
    let mut draft = Draft::new(broken.rule, lack, message, live.site(mark, "executed here"));
    draft.because = Some(live.stored_site(&version.mark, virt, "the code was stored here"));
    draft.sure = broken.sure && version.mark.sure && mark.sure;
    fill_chain(live, &mut draft, broken, q, p);
    draft.window = window(mark, broken, p);
    if let Some((saved, cause)) = &broken.saved {
        let by = match cause {
            Some(SyncCause::ExceptionEntry) => "an interrupt or exception that it took",
            Some(SyncCause::ExceptionReturn) => "a return from an interrupt or exception",
            Some(SyncCause::SpaceSwitch) => "a change of its address space",
            Some(SyncCause::Reset) => "its start from reset",
            _ => "a context synchronisation",
        };
        draft.notes.push(format!(
            "saved in this run by {by} (event {} on {p}), which nothing orders after the store",
            saved.seq
        ));
    }
    if let Some(row) = row.filter(|r| !r.not_by.is_empty()) {
        draft.notes.push(format!("not enough: {}", row.not_by.join(", ")));
    }
    if broken.race && live.fetches.cmodx {
        let list = live.fetches.cmodx_list;
        let of = if live.arch() == Arch::Arm64 && list != CmodxRevision::Latest {
            format!(", by the list as of {}", list.name())
        } else {
            String::new()
        };
        draft.notes.push(format!(
            "not a change that the architecture lets meet a CPU that runs the code{of}"
        ));
    }
    draft.help = Some(help(live, broken, operation, q, p));
    draft
}

/// The chain of a finding, what is missing of it, and the texts that ask for that.
fn fill_chain(live: &Live, draft: &mut Draft, broken: &Broken, q: CpuId, p: CpuId) {
    for (row, state) in &broken.steps {
        let doer = who(live.arch(), row.action, q, p);
        if *state == StepState::Missing {
            draft.missing.push(format!("{} on {doer}", row.missing()));
        }
        let site = match row.action {
            Action::ContextSync => live
                .fetches
                .last_sync
                .get(p)
                .map(|(m, _)| live.site(m, "the CPU's last context synchronisation")),
            Action::CompleteInvalidate => {
                broken.completed.map(|m| live.site(&m, "the maintenance was complete here"))
            }
            _ => None,
        };
        draft.chain.push(ChainStep {
            what: row.action.text(),
            operation: row.missing().to_owned(),
            state: *state,
            site,
            cite: row.rule.cite,
        });
        if *state == StepState::Missing {
            draft.cites.push(row.rule.cite);
        }
    }
    draft.cites.dedup();
}

fn window(mark: &Mark, broken: &Broken, cpu: CpuId) -> Window {
    let virt = mark.virt.unwrap_or(VirtAddr(0));
    Window::Fetch { cpu, virt, low: broken.low, high: broken.high }
}

/// A call promised that no CPU runs old code, and `p` may.
pub(crate) fn broken_promise(
    live: &Live,
    mark: &Mark,
    call: CallRef,
    p: CpuId,
    broken: &Broken,
) -> Draft {
    let version = &broken.version;
    let name = live.call_name(call);
    let virt = mark.virt.map_or(0, |v| v.0);
    let at = live.address(virt);
    let message = format!(
        "{name} promised that no CPU runs old code, but {p} may still fetch the old bytes at {at}"
    );
    let site = live.site(mark, "promised: no CPU runs old code");
    let mut draft = Draft::new(RuleId::BrokenPromise, Operation::Promise, message, site);
    draft.because = Some(live.stored_site(&version.mark, virt, "the code was stored here"));
    draft.sure = broken.sure && version.mark.sure && mark.sure;
    draft.blame = Blame::Callee;
    draft.window = window(mark, broken, p);
    fill_chain(live, &mut draft, broken, version.cpu, p);
    draft.help = Some(format!("{name} must complete the chain for {p} before it returns"));
    draft
}

fn missing_text(action: Action) -> &'static str {
    match action {
        Action::StoreFence => "the store is not fenced",
        Action::Clean => "the data cache was not cleaned to where fetches look",
        Action::CompleteClean => "nothing orders the invalidation after the store reached memory",
        Action::Invalidate => "instruction caches were not invalidated after the store",
        _ => "the invalidation was not completed",
    }
}

fn help(live: &Live, broken: &Broken, operation: &str, q: CpuId, p: CpuId) -> String {
    match (broken.first, broken.race) {
        (Action::ContextSync, _) => format!(
            "let {p} synchronise its context after it learns of the new code and before it runs \
             it: {operation} there, or an interrupt to it that ends with one"
        ),
        (Action::Publish, true) => format!(
            "publish the code after it is written and maintained (on {q}: {}), let {p} acquire what \
             is published, and synchronise its context ({})",
            words::publish(live.arch()),
            words::context_sync(live.arch())
        ),
        (Action::Publish, false) => {
            let publish = words::publish(live.arch());
            format!("publish the code only after the maintenance is complete (on {q}: {publish})")
        }
        _ => {
            let chain = sync::chain(live.arch(), live.header.features);
            let steps: Vec<&str> =
                chain.iter().filter(|r| r.action < Action::Publish).map(|r| r.missing()).collect();
            if broken.first == Action::StoreFence {
                format!("{operation} on {q} before the code is published")
            } else {
                format!("on {q}, after the last store: {}", steps.join("; "))
            }
        }
    }
}

/// Code at an address that led elsewhere since the CPU's last context synchronisation.
pub(crate) fn remapped(live: &Live, mark: &Mark, space: SpaceId, until: u64) -> Draft {
    let p = mark.cpu;
    let at = live.address(mark.virt.map_or(0, |v| v.0));
    let message = format!(
        "{p} executes {at}, where other code was mapped until event {until}, and may have fetched \
         that ahead: no context synchronisation since"
    );
    let site = live.site(mark, "executed here");
    let mapping = mark.virt.and_then(|virt| live.tables.lookup(space, virt.0));
    let lack = match mapping {
        Some((_, m)) if m.since.cpu == p => Operation::OwnContextSync,
        _ => Operation::ContextSync,
    };
    let mut draft = Draft::new(RuleId::MissingContextSync, lack, message, site);
    // That the bytes differ was not looked at, and that a mapping counts is a deduction.
    draft.sure = false;
    draft.cause = Some(until);
    draft.because = mapping.map(|(_, m)| live.site(&m.since, "this code was mapped here"));
    draft.missing.push(format!("{} on {p}", words::context_sync(live.arch())));
    draft.window =
        Window::Fetch { cpu: p, virt: mark.virt.unwrap_or(VirtAddr(0)), low: 0, high: 1 };
    if let Some(rule) = sync::rule("arm64.live.remap") {
        draft.cites.push(rule.cite);
    }
    draft.help = Some(format!(
        "let {p} synchronise its context after the mapping changed and before it runs the code"
    ));
    draft
}
