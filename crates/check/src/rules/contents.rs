//! missing-trap-fill.

use textbed_arch::{Arch, SpaceId, VirtAddr, trap};

use crate::book::Draft;
use crate::finding::{Blame, Window};
use crate::live::Live;
use crate::mark::Mark;
use crate::memory::BecameExec;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;
use crate::words;

/// Bytes that are executable though nobody wrote them, in ranges that one call made executable.
pub(crate) fn missing_trap_fill(live: &mut Live, ranges: &[BecameExec]) {
    live.occasions.looked(RuleId::MissingTrapFill);
    let zero_traps = trap::is_trap_fill(live.arch(), &[0; 8]);
    // (first address, bytes, pieces, zeroed, became executable, handed out)
    let mut found: Vec<(u64, u64, u64, bool, Mark, Mark)> = Vec::new();
    for range in ranges {
        for (at, mapping) in live.tables.within(range.space, range.span) {
            let same = mapping.phys.wrapping_sub(range.phys) == at.first - range.span.first;
            if !mapping.perm.executable() || !same {
                continue;
            }
            let Some(frames) = Span::of(mapping.phys, at.len()) else { continue };
            for (part, left) in live.frames.unwritten.within(frames) {
                if left.zeroed && zero_traps {
                    continue;
                }
                let virt = at.first + (part.first - frames.first);
                match found.last_mut() {
                    Some((_, bytes, pieces, zeroed, mark, _))
                        if *zeroed == left.zeroed && mark.same_call(&range.mark) =>
                    {
                        *bytes = bytes.saturating_add(part.len());
                        *pieces += 1;
                    }
                    _ => {
                        let handed = left.since;
                        found.push((virt, part.len(), 1, left.zeroed, range.mark, handed));
                    }
                }
            }
        }
    }
    for (virt, bytes, pieces, zeroed, mark, handed) in found {
        let what = if zeroed { "zeros" } else { "whatever the frames held before" };
        let where_ = match pieces {
            1 => format!("at {}", live.address(virt)),
            n => format!("in {n} places from {} on", live.address(virt)),
        };
        let message = format!("{} {where_} are executable and hold {what}", words::size(bytes));
        let site = live.site(&mark.about(virt), "becomes executable here");
        let mut draft = Draft::new(RuleId::MissingTrapFill, Operation::TrapFill, message, site);
        draft.because =
            Some(live.site(&handed.about(virt), "frames handed out here, not written since"));
        draft.sure = mark.sure && handed.sure;
        draft.blame = Blame::Caller;
        let pattern: Vec<String> =
            trap::trap_pattern(live.arch()).iter().map(|b| format!("{b:02x}")).collect();
        draft.missing.push(format!("fill with {}", filler(live.arch())));
        draft.window = Window::Other;
        draft.notes.push(
            "execution that strays into the range runs these bytes instead of trapping".to_owned(),
        );
        if zeroed {
            draft.notes.push("zeroed bytes decode to instructions here".to_owned());
        }
        draft.help = Some(format!(
            "fill the whole range with bytes that trap ({}) before it becomes executable",
            pattern.join(" ")
        ));
        live.report(draft);
    }
}

fn filler(arch: Arch) -> &'static str {
    let bytes = trap::trap_pattern(arch);
    let row = trap::TRAP_FILLS.iter().find(|r| r.arch == arch && r.bytes == bytes);
    row.map_or("a trapping instruction", |r| r.name)
}

/// What the tables grant in `span`, as letters; `mixed` where it is not uniform.
pub(crate) fn granted(live: &Live, space: SpaceId, virt: VirtAddr, len: u64) -> &'static str {
    let Some(span) = Span::of(virt.0, len) else { return "---" };
    let mut letters = live.tables.within(space, span).map(|(_, m)| m.perm.letters());
    let Some(first) = letters.next() else { return "---" };
    if letters.all(|l| l == first) { first } else { "mixed" }
}
