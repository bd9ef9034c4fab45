//! The rules that close a fetch window or a translation window, as rows.
//!
//! [`fetch`] has the chain from a store of code to its execution, arrow by arrow; [`live`] what may
//! be changed while it runs; [`translation`] the chain from a page-table store to its effect, and
//! which changes need none. Rows are facts about architectures with their sources; what follows
//! from them for a run is computed elsewhere, and cites rows by id.
//!
//! Where Intel and AMD differ, there are two rows. Not modelled: device memory, uncacheable or
//! write-through code, self-modification by DMA, stage 2 but for one row.

pub mod fetch;
mod fetch_rows;
pub mod live;
pub mod translation;
mod translation_rows;

use crate::cite::{Cite, Evidence};
use crate::features::Features;
use crate::insn::Family;
use crate::isa::Arch;

pub use fetch::{Action, Applies, FETCH_ROWS, FetchRow, chain, closers};
pub use live::{LIVE_ROWS, LiveRow, live_rows, patch_list};
pub use translation::{
    Change, TRANSLATION_ROWS, TlbAction, TranslationRow, changes, translation_chain, wants_break,
};

/// CPUs for which a row holds, beyond their architecture.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Vendor {
    /// All.
    Any,
    /// Intel (x86 without [`Features::X86_AMD`]).
    Intel,
    /// AMD.
    Amd,
}

/// Features on which a row depends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct When {
    /// All of these must be there.
    pub with: Features,
    /// None of these may be there.
    pub without: Features,
}

impl When {
    /// No condition.
    pub const ALWAYS: When = When { with: Features::empty(), without: Features::empty() };

    pub(crate) const fn with(with: Features) -> When {
        When { with, without: Features::empty() }
    }

    pub(crate) const fn without(without: Features) -> When {
        When { with: Features::empty(), without }
    }

    /// Whether `features` meet the condition.
    #[must_use]
    pub fn holds(self, features: Features) -> bool {
        features.contains(self.with) && !features.intersects(self.without)
    }
}

/// What all rows have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// The instruction set.
    pub family: Family,
    /// The vendor.
    pub vendor: Vendor,
    /// The features.
    pub when: When,
}

impl Scope {
    /// Whether a row of this scope holds on `arch` with `features`.
    #[must_use]
    pub fn holds(&self, arch: Arch, features: Features) -> bool {
        let vendor = match self.vendor {
            Vendor::Any => true,
            Vendor::Intel => !features.contains(Features::X86_AMD),
            Vendor::Amd => features.contains(Features::X86_AMD),
        };
        self.family == Family::of(arch) && vendor && self.when.holds(features)
    }
}

/// A row of any of the tables, as a report prints it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its id, for ever.
    pub id: &'static str,
    /// Where it holds.
    pub scope: Scope,
    /// What it says.
    pub text: &'static str,
    /// Its source.
    pub cite: Cite,
    /// The text allows it, but it is disputed or narrower than it seems: a finding that it excuses
    /// or rests on is at most possible.
    pub disputed: bool,
}

impl Rule {
    /// Whether a finding that needs this row can be certain.
    #[must_use]
    pub fn is_firm(&self) -> bool {
        self.cite.evidence != Evidence::Memory && !self.disputed
    }
}

/// Every row of the three tables.
pub fn rules() -> impl Iterator<Item = Rule> {
    let fetch = FETCH_ROWS.iter().map(|r| r.rule);
    let live = LIVE_ROWS.iter().map(|r| r.rule);
    fetch.chain(live).chain(TRANSLATION_ROWS.iter().map(|r| r.rule))
}

/// The row with this id.
#[must_use]
pub fn rule(id: &str) -> Option<Rule> {
    rules().find(|r| r.id == id)
}

const fn scope(family: Family, vendor: Vendor, when: When) -> Scope {
    Scope { family, vendor, when }
}

const fn rule_of(id: &'static str, scope: Scope, text: &'static str, cite: Cite) -> Rule {
    Rule { id, scope, text, cite, disputed: false }
}

#[cfg(test)]
mod tests;
