//! torn-patch: a CPU may run a mixture of old and new code.
//!
//! Three ways. *Open*: it runs bytes of a site of which a part is written (the order of the stream
//! shows it). *By window*: it ran the place before, the store that replaced it is wider than what
//! is fetched as one, and nothing orders the two: each unit may come from either version. (Where
//! only the executing CPU's synchronisation is missing, that is said instead.) *By site*: a site of
//! several words is about to be replaced where another CPU ran (not on x86-64, which has
//! [`super::behind_trap`]); possible, for it may be that nobody comes by.
//! The protocol with a trap in the first byte is none of these: each of its stores is one unit or
//! lies behind the trap, and is synchronised before the next.

use crate::book::Draft;
use crate::fetch::verdict::Broken;
use crate::finding::{Blame, Window};
use crate::live::Live;
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;

use textbed_arch::sync::live::unit_bytes;

/// How far around a fetch the extent of a store is looked for.
const REACH: u64 = 64;

impl Live {
    /// A fetch window holds old and new at `frames`: is the replacement wider than a unit?
    pub(crate) fn torn_by_window(&mut self, mark: &Mark, frames: Span, broken: &Broken) {
        self.occasions.looked(RuleId::TornPatch);
        let version = &broken.version;
        // What a CPU stored itself, or knows to be complete, it meets whole or old.
        if version.cpu == mark.cpu || !broken.race {
            return;
        }
        let ran = self.fetches.looks.executed(mark.cpu, frames, 0, version.stamp);
        if !ran || !self.checkable(RuleId::TornPatch) {
            return;
        }
        let unit = self.code_unit;
        let around = Span {
            first: frames.first.saturating_sub(REACH),
            last: frames.last.saturating_add(REACH),
        };
        let wide: u64 = self
            .fetches
            .versions
            .within(around)
            .filter(|(_, h)| h.newest().is_some_and(|v| v.stamp == version.stamp))
            .map(|(part, _)| part.len())
            .sum();
        if wide <= unit {
            return;
        }
        let at = self.address(mark.virt.map_or(0, |v| v.0));
        let message = format!(
            "{} may run a mixture of old and new code at {at}: {wide} bytes were replaced, and {} \
             at a time are fetched whole",
            mark.cpu,
            if unit == 1 { "1".to_owned() } else { unit.to_string() }
        );
        let site = self.site(mark, "runs here");
        let mut draft = Draft::new(RuleId::TornPatch, Operation::Protocol, message, site);
        draft.because = Some(self.site(&version.mark, "replaced here"));
        draft.sure = broken.sure && version.mark.sure && mark.sure;
        draft.blame = Blame::Caller;
        draft.window = Window::Fetch {
            cpu: mark.cpu,
            virt: mark.virt.unwrap_or(textbed_arch::VirtAddr(0)),
            low: broken.low,
            high: broken.high,
        };
        self.torn_help(&mut draft);
        self.report(draft);
    }

    /// A site is about to be replaced: is it wider than what is fetched as one, and did another CPU
    /// run it? That one store writes all of it is no promise to fetches.
    pub(crate) fn torn_by_site(&mut self, mark: &Mark, frames: Span) {
        let (arch, features) = (self.arch(), self.header.features);
        let unit = unit_bytes(arch, features);
        let alone = self.watch.stopped || self.cpus.online.count_ones() < 2;
        if arch == textbed_arch::Arch::X86_64 || frames.len() <= unit || alone {
            return;
        }
        self.occasions.looked(RuleId::TornPatch);
        if !self.checkable(RuleId::TornPatch) || !self.ran_elsewhere(mark.cpu, frames) {
            return;
        }
        let at = self.address(mark.virt.map_or(0, |v| v.0));
        let message = format!(
            "{} bytes are replaced at {at} while another CPU that ran them may come by: {unit} at \
             a time are fetched whole",
            frames.len()
        );
        let site = self.site(mark, "patched here");
        let mut draft = Draft::new(RuleId::TornPatch, Operation::Protocol, message, site);
        draft.because = self.run_by_another(mark, frames);
        draft.sure = false;
        draft.blame = Blame::Caller;
        self.torn_help(&mut draft);
        self.report(draft);
    }

    /// A CPU runs bytes of a site of which only a part is written.
    pub(crate) fn torn_open(&mut self, mark: &Mark, site: &Mark) {
        if !self.checkable(RuleId::TornPatch) {
            return;
        }
        let at = self.address(mark.virt.map_or(0, |v| v.0));
        let message =
            format!("{} runs {at} while {} has written only a part of it", mark.cpu, site.cpu);
        let here = self.site(mark, "runs here");
        let mut draft = Draft::new(RuleId::TornPatch, Operation::Protocol, message, here);
        draft.because = Some(self.site(site, "the patch began here and is not done"));
        draft.sure = mark.sure && site.sure;
        draft.blame = Blame::Callee;
        self.torn_help(&mut draft);
        self.report(draft);
    }

    fn torn_help(&self, draft: &mut Draft) {
        draft.missing.push("one store that is seen whole, or CPUs that cannot be there".to_owned());
        draft.help = Some(match self.arch() {
            textbed_arch::Arch::X86_64 => {
                "put a trap into the first byte, synchronise all CPUs, write the rest, synchronise, \
                 write the first byte, synchronise; or stop all CPUs"
                    .to_owned()
            }
            _ => "replace one instruction at a time, so that every mixture is sound, or stop all \
                  CPUs outside of the code"
                .to_owned(),
        });
    }
}
