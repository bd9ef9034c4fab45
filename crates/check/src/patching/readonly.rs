//! write-through-read-only: code is written through a mapping that does not grant it.
//!
//! Three ways: the store went through because a control bit switches protection off (x86 CR0.WP),
//! it went through by an old translation, or it faulted. Judged for mappings of frames that are
//! executable somewhere; other faults are nobody's business here.

use textbed_arch::{Arch, Perm, VirtAddr};
use textbed_event::{Access, ControlRegister, FaultReason, Provenance, View};

use crate::book::Draft;
use crate::finding::{Blame, Window};
use crate::live::{Live, Now};
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;

/// x86 CR0.WP: without it a supervisor store ignores read-only leaves (SDM 3A 4.6.1).
const CR0_WP: u64 = 1 << 16;

impl Live {
    pub(crate) fn write_protection(&mut self, now: Now<'_>, register: ControlRegister, value: u64) {
        if self.arch() == Arch::X86_64 && register == ControlRegister::Cr0 {
            let mark = self.mark(now);
            self.patching.write_protect.insert(now.cpu(), (value & CR0_WP != 0, mark));
        }
    }

    /// A store went through: did the tables grant it?
    pub(crate) fn stored_by_right(&mut self, now: Now<'_>, virt: VirtAddr) {
        if now.event.flags.provenance() != Provenance::Recorded {
            return;
        }
        let space = self.cpus.space_of(now.cpu());
        let Some(writable) = self.tables.is_writable(space, virt.0) else { return };
        self.occasions.looked(RuleId::WriteThroughReadOnly);
        if writable {
            return;
        }
        let Some((home, mapping)) = self.tables.lookup(space, virt.0) else { return };
        if !self.leads_to_code(mapping.phys, mapping.perm) {
            return;
        }
        let at = Span { first: virt.0, last: virt.0 };
        let bit = View::cpu_bit(now.cpu());
        let mut olds = self.stale.within(home, at);
        let old = olds.find_map(|(_, olds)| {
            olds.0.iter().find(|o| o.perm.writable() && o.cpus & bit != 0).copied()
        });
        drop(olds);
        let off =
            self.patching.write_protect.get(&now.cpu()).filter(|(on, _)| !on).map(|(_, m)| *m);
        let (how, why) = match (off, old) {
            (Some(mark), _) => ("with write protection switched off (CR0.WP = 0)", Some(mark)),
            (None, Some(old)) => {
                ("through an old translation that is not invalidated", { Some(old.since) })
            }
            (None, None) => ("though the tables do not grant it", Some(mapping.since)),
        };
        self.write_through(now, virt, mapping.perm, how, why, "protection ignored");
    }

    /// A store faulted.
    pub(crate) fn write_fault(
        &mut self,
        now: Now<'_>,
        virt: VirtAddr,
        access: Access,
        reason: FaultReason,
    ) {
        if access != Access::Write || reason != FaultReason::Permission {
            return;
        }
        self.occasions.looked(RuleId::WriteThroughReadOnly);
        let space = self.cpus.space_of(now.cpu());
        let Some((_, mapping)) = self.tables.lookup(space, virt.0) else { return };
        if !mapping.perm.writable() && self.leads_to_code(mapping.phys, mapping.perm) {
            let how = "which faults: the mapping is read-only";
            self.write_through(now, virt, mapping.perm, how, Some(mapping.since), "faults here");
        }
    }

    /// Whether the frame is executable by this mapping or another.
    fn leads_to_code(&self, phys: u64, perm: Perm) -> bool {
        let frame = Span { first: phys, last: phys };
        perm.executable()
            || self.tables.aliases(frame).any(|(part, aliases)| {
                aliases.iter().any(|alias| {
                    part.moved(alias.delta).is_some_and(|virt| {
                        self.tables
                            .within(alias.space, virt)
                            .any(|(_, m)| m.phys == phys && m.perm.executable())
                    })
                })
            })
    }

    fn write_through(
        &mut self,
        now: Now<'_>,
        virt: VirtAddr,
        perm: Perm,
        how: &str,
        why: Option<crate::mark::Mark>,
        label: &str,
    ) {
        if !self.checkable(RuleId::WriteThroughReadOnly) {
            return;
        }
        let mark = self.mark(now).about(virt.0);
        let message = format!("{} writes code at {} {how}", now.cpu(), self.address(virt.0));
        let site = self.site(&mark, label);
        let mut draft =
            Draft::new(RuleId::WriteThroughReadOnly, Operation::WritableAlias, message, site);
        draft.because = why.map(|m| self.site(&m, "since here"));
        draft.sure = mark.sure && why.is_none_or(|m| m.sure);
        draft.blame = Blame::Caller;
        draft.missing.push("a writable alias for the patch".to_owned());
        draft.window =
            Window::Translation { cpu: now.cpu(), virt, granted: "rw-", tables: perm.letters() };
        draft.help = Some(
            "write code through a temporary writable alias of its own, or before it becomes \
             read-only"
                .to_owned(),
        );
        self.report(draft);
    }
}
