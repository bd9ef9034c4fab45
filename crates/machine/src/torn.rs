//! Fetches that get neither the old instruction nor the new one.
//!
//! An architecture promises old or new only for some modifications of code that another CPU may be
//! executing ([`textbed_arch::sync::live`]): one byte on Intel, an aligned quadword on AMD, a word
//! of the live-patchable list elsewhere. Where nothing orders a store before a fetch that may get
//! what was there before it as well, and the two go beyond that, the fetch has further outcomes
//! ([`Choice::Torn`]):
//!
//! - **torn**: units of the instruction from one version and the rest from the other; of a
//!   conditional branch on arm64, the condition of one and the target of the other. The bytes are
//!   what such hardware would execute, and are executed.
//! - **unpredictable**: a word outside the list on arm64 (anything that can be executed at that
//!   exception level) or Power (boundedly undefined). There is nothing to execute that would stand
//!   for it, so the fetch says so, and a CPU that executes code ends there.
//!
//! A CPU that knows of the store (it made it, or loaded, or was called since) and lacks maintenance
//! or synchronisation alone gets one or the other whole. Not modelled: what else Intel's errata
//! list, a quadword that is read twice, more than two versions in one instruction's line (lines and
//! pages have a version each).

use textbed_arch::insn::{self, CmodxRevision, Shape};
use textbed_arch::sync::live::unit_bytes;
use textbed_arch::{Arch, CpuId, VirtAddr};

use crate::Machine;
use crate::choice::Choice;
use crate::iside::Candidate;

/// Most mixtures that a fetch chooses from.
const MOST: usize = 16;

/// Whether a fetch got what was there at some moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Integrity {
    /// It did, line by line.
    #[default]
    Whole,
    /// It got a part of one version and a part of another, where one was promised.
    Torn,
    /// The architecture leaves open what is executed.
    Unpredictable,
}

/// A mixture of two versions.
pub(crate) struct Mixture {
    pub(crate) bytes: Vec<u8>,
    /// The candidates that it is made of, the older one first.
    pub(crate) of: [usize; 2],
}

/// What came of a fetch of a piece.
pub(crate) enum Got {
    Whole,
    Torn(Mixture),
    Unpredictable,
}

impl Machine {
    /// Whether a piece that has several versions is got whole. `own` says how many bytes of a
    /// version of it are the instruction's: what stands behind that has no part in it.
    pub(crate) fn tear(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        found: &[Candidate],
        own: &mut dyn FnMut(&[u8]) -> usize,
    ) -> Got {
        if found.len() < 2 {
            return Got::Whole;
        }
        let known = self.known_until(cpu);
        let races = |newer: &Candidate| newer.by != Some(cpu) && newer.born > known;
        let pairs = found.windows(2).enumerate().filter(|(_, pair)| races(&pair[0]));
        let mut mixtures: Vec<Mixture> = Vec::new();
        let mut unpredictable = false;
        for (n, pair) in pairs {
            let (newer, older) = (&pair[0].bytes, &pair[1].bytes);
            let window = own(newer).max(own(older));
            self.cuts(virt, (newer, older), window, n, &mut mixtures);
            if self.arch() != Arch::X86_64 {
                unpredictable |= self.beyond_the_list((newer, older), window, n, &mut mixtures);
            }
        }
        let mut visible = |bytes: &[u8]| bytes[..own(bytes)].to_vec();
        let mut seen: Vec<Vec<u8>> = found.iter().map(|c| visible(&c.bytes)).collect();
        mixtures.retain(|m| {
            let bytes = visible(&m.bytes);
            let new = !seen.contains(&bytes);
            if new {
                seen.push(bytes);
            }
            new
        });
        mixtures.truncate(MOST);
        let options = 1 + mixtures.len() + usize::from(unpredictable);
        let answer = self.choices.ask(Choice::Torn { cpu, virt, options });
        match answer.checked_sub(1) {
            None => Got::Whole,
            Some(n) if n < mixtures.len() => Got::Torn(mixtures.swap_remove(n)),
            Some(_) => Got::Unpredictable,
        }
    }

    /// Mixtures that change from one version to the other between two units.
    fn cuts(
        &self,
        virt: VirtAddr,
        (newer, older): (&[u8], &[u8]),
        window: usize,
        n: usize,
        out: &mut Vec<Mixture>,
    ) {
        let unit = unit_bytes(self.arch(), self.features());
        for cut in (1..window).filter(|cut| (virt.0 + *cut as u64).is_multiple_of(unit)) {
            let join = |first: &[u8], then: &[u8]| [&first[..cut], &then[cut..]].concat();
            out.push(Mixture { bytes: join(older, newer), of: [n + 1, n] });
            // Where fetches are in order, what comes later is not older.
            if !self.fetches_in_order() {
                out.push(Mixture { bytes: join(newer, older), of: [n + 1, n] });
            }
        }
    }

    /// Whether a word that changes is not in the list of what may change while it is executed. Of
    /// conditional branches that are, condition and target may be mixed.
    fn beyond_the_list(
        &self,
        (newer, older): (&[u8], &[u8]),
        window: usize,
        n: usize,
        out: &mut Vec<Mixture>,
    ) -> bool {
        let arch = self.arch();
        let listed = |bytes: &[u8]| {
            let row = insn::decode(arch, bytes).map(|i| i.row);
            row.filter(|row| row.live_patchable_as_of(CmodxRevision::Latest))
        };
        let mut beyond = false;
        let words = newer[..window].chunks_exact(4).zip(older[..window].chunks_exact(4));
        for (at, (new, old)) in words.enumerate().filter(|(_, (new, old))| new != old) {
            match (listed(new), listed(old)) {
                (Some(a), Some(b)) => {
                    let conditional = |shape| shape == Shape::CondBranch;
                    if arch == Arch::Arm64 && conditional(a.shape) && conditional(b.shape) {
                        // The condition is bits 3:0 of the first byte.
                        for (kept, other) in [(newer, old), (older, new)] {
                            let mut bytes = kept.to_vec();
                            bytes[4 * at] = bytes[4 * at] & 0xf0 | other[0] & 0xf;
                            out.push(Mixture { bytes, of: [n + 1, n] });
                        }
                    }
                }
                _ => beyond = true,
            }
        }
        beyond
    }
}
