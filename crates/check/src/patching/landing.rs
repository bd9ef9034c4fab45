//! missing-landing-pad: an indirect branch arrives where no landing pad is.
//!
//! Judged while enforcement is known to be on for the CPU: x86 CR4.CET (SDM 1, 17.3: with
//! IA32_S_CET.ENDBR_EN, which events do not carry), arm64 SCTLR_EL1.BT1 (Arm ARM D8.4: with GP in
//! the leaf, which events do not carry). So findings are at most possible, but where the branch
//! faulted. Bytes are kept from the moment that enforcement is on anywhere; of code stored before,
//! nothing is said. powerpc has no landing pads.

use rustc_hash::FxHashMap;
use textbed_arch::effect::{Effect, Flow};
use textbed_arch::{Arch, CpuId, VirtAddr, insn};
use textbed_event::ControlRegister;

use crate::book::Draft;
use crate::finding::Blame;
use crate::live::{Live, Now};
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;

/// x86 CR4.CET.
const CR4_CET: u64 = 1 << 23;
/// arm64 SCTLR_EL1.BT1.
const SCTLR_BT1: u64 = 1 << 36;

/// arm64's landing pad for jumps alone.
const BTI_J: [u8; 4] = [0x9f, 0x24, 0x03, 0xd5];

/// Instructions at which an indirect branch may arrive. Returns may arrive anywhere. On arm64 a
/// branch with link may not arrive at `bti j` (Arm ARM C6.2.41: BTYPE 10); which register another
/// branch used, events do not say, so that it may arrive at any of these.
const PADS: &[(Arch, [u8; 4])] = &[
    (Arch::X86_64, [0xf3, 0x0f, 0x1e, 0xfa]), // endbr64
    (Arch::Arm64, [0x5f, 0x24, 0x03, 0xd5]),  // bti c
    (Arch::Arm64, BTI_J),                     // bti j
    (Arch::Arm64, [0xdf, 0x24, 0x03, 0xd5]),  // bti jc
    (Arch::Arm64, [0x3f, 0x23, 0x03, 0xd5]),  // paciasp
    (Arch::Arm64, [0x7f, 0x23, 0x03, 0xd5]),  // pacibsp
];

/// Units of four bytes kept.
const MAX_BYTES: usize = 1 << 22;

/// CPUs that enforce, and what was stored since.
#[derive(Default, Debug)]
pub(crate) struct Pads {
    enforced: FxHashMap<CpuId, bool>,
    bytes: FxHashMap<u64, u8>,
}

impl Pads {
    /// Whether no CPU ever said whether it enforces.
    pub(crate) fn is_idle(&self) -> bool {
        self.enforced.is_empty()
    }
}

impl Live {
    pub(crate) fn landing_control(&mut self, now: Now<'_>, register: ControlRegister, value: u64) {
        let bit = match (self.arch(), register) {
            (Arch::X86_64, ControlRegister::Cr4) => CR4_CET,
            (Arch::Arm64, ControlRegister::Sctlr) => SCTLR_BT1,
            _ => return,
        };
        self.patching.pads.enforced.insert(now.cpu(), value & bit != 0);
    }

    /// Whether contents are wanted.
    pub(crate) fn pads_matter(&self) -> bool {
        self.patching.pads.enforced.values().any(|on| *on)
    }

    pub(crate) fn remember_bytes(&mut self, frames: Span, bytes: &[u8]) {
        let pads = &mut self.patching.pads;
        if pads.bytes.len() + bytes.len() > MAX_BYTES {
            pads.bytes.clear();
        }
        pads.bytes.extend((frames.first..=frames.last).zip(bytes.iter().copied()));
    }

    /// A range holds a pattern whose bytes are not kept.
    pub(crate) fn forget_bytes(&mut self, frames: Span) {
        self.patching.pads.bytes.retain(|at, _| !(frames.first..=frames.last).contains(at));
    }

    pub(crate) fn branched(&mut self, now: Now<'_>, from: VirtAddr, to: VirtAddr) {
        if self.patching.pads.enforced.get(&now.cpu()) != Some(&true) {
            return;
        }
        let row = insn::by_id(insn::OpId(now.event.op.0));
        if row.is_some_and(insn::Row::is_return) {
            return;
        }
        let links = row.is_some_and(|r| r.effect == Effect::Branch(Flow::Call));
        let space = self.cpus.space_of(now.cpu());
        let Some((_, mapping)) = self.tables.lookup(space, to.0) else { return };
        let bytes = &self.patching.pads.bytes;
        let held: Option<Vec<u8>> =
            (0..4).map(|i| bytes.get(&mapping.phys.wrapping_add(i)).copied()).collect();
        let Some(held) = held else { return };
        self.occasions.looked(RuleId::MissingLandingPad);
        let arch = self.arch();
        let fits = |pad: &[u8; 4]| *pad != BTI_J || !links;
        if PADS.iter().any(|(a, pad)| *a == arch && pad.as_slice() == held && fits(pad))
            || !self.checkable(RuleId::MissingLandingPad)
        {
            return;
        }
        let mark = self.mark(now);
        let hex: Vec<String> = held.iter().map(|b| format!("{b:02x}")).collect();
        let message = format!(
            "an indirect branch from {} arrives at {}, where no landing pad is ({})",
            self.address(from.0),
            self.address(to.0),
            hex.join(" ")
        );
        let site = self.site(&mark.about(to.0), "arrives here");
        let mut draft = Draft::new(RuleId::MissingLandingPad, Operation::LandingPad, message, site);
        draft.because = Some(self.site(&mark.about(from.0), "branches here"));
        // That the page is guarded, or that pads are tracked in this mode, events do not say.
        draft.sure = false;
        draft.blame = Blame::Callee;
        let pad = if arch == Arch::X86_64 { "endbr64" } else { "bti" };
        draft.missing.push(format!("{pad} at the target"));
        draft.help = Some(format!(
            "emit {pad} where the branch arrives, or arrive by a direct branch or a return"
        ));
        self.report(draft);
    }
}
