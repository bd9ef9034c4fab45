//! What closes a fetch window: four steps, each one or more arrows.
//!
//! 1 the bytes reach where fetches look; 2 old lines leave every instruction cache; 3 completion of
//! 1 and 2 happens before 4; 4 the executing CPU drops what it fetched ahead. Each arrow is a row
//! with the instructions that do it; the first one named is what a diagnostic prints as missing.

use super::Rule;
pub use super::fetch_rows::FETCH_ROWS;
use crate::features::Features;
use crate::isa::Arch;

/// What an arrow of the chain does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Step 1: weakly ordered stores are made visible before anything that announces them.
    StoreFence,
    /// Step 1: data is cleaned to the point of unification.
    Clean,
    /// Step 1: the clean (or, where none is needed, the store) is complete before step 2.
    CompleteClean,
    /// Step 2: instruction caches drop the lines.
    Invalidate,
    /// Step 2: the invalidation (or, where none is needed, the store) is complete.
    CompleteInvalidate,
    /// Step 3: the executing CPU knows of the completion.
    Publish,
    /// Step 4: the executing CPU synchronises its context.
    ContextSync,
}

impl Action {
    /// The step of the chain, 1 to 4.
    #[must_use]
    pub const fn step(self) -> u8 {
        match self {
            Action::StoreFence | Action::Clean | Action::CompleteClean => 1,
            Action::Invalidate | Action::CompleteInvalidate => 2,
            Action::Publish => 3,
            Action::ContextSync => 4,
        }
    }

    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Action::StoreFence => "non-temporal stores are made visible",
            Action::Clean => "the data cache is cleaned to where fetches look",
            Action::CompleteClean => "the stores or cleans are complete",
            Action::Invalidate => "the instruction caches drop the old lines",
            Action::CompleteInvalidate => "the invalidation is complete",
            Action::Publish => "the executing CPU learns of it",
            Action::ContextSync => "the executing CPU drops what it fetched ahead",
        }
    }
}

/// To which stores and executions a row applies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Applies {
    /// All.
    Always,
    /// Code stored by non-temporal or write-combining stores.
    NonTemporalStore,
    /// Code stored by the CPU that executes it, through any address.
    SameCpu,
    /// Code stored by the CPU that executes it, through the address from which it executes.
    SameCpuSameAddress,
    /// Code that no execution could reach until one store exposed it.
    Unreachable,
}

/// One arrow of the chain, or another way to have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchRow {
    /// Id, scope, text and source.
    pub rule: Rule,
    /// What it does.
    pub action: Action,
    /// To what it applies.
    pub applies: Applies,
    /// Ids of rows that must come before, each ordered before this one.
    pub needs: &'static [&'static str],
    /// Instructions that do it, by the table's names. Empty: nothing need be done.
    pub by: &'static [&'static str],
    /// Events other than instructions that do it.
    pub also: &'static [&'static str],
    /// What does not do it though it might be thought to.
    pub not_by: &'static [&'static str],
    /// Another way beside the row with this id; the chain lists only that one.
    pub instead_of: Option<&'static str>,
}

impl FetchRow {
    /// The step of the chain, 1 to 4.
    #[must_use]
    pub const fn step(&self) -> u8 {
        self.action.step()
    }

    /// What to print as missing: the first instruction, else the first event.
    #[must_use]
    pub fn missing(&self) -> &'static str {
        let first = self.by.first().or(self.also.first());
        first.copied().unwrap_or_else(|| self.action.text())
    }
}

/// The arrows that code must pass on `arch` with `features`, in order, for ordinary stores.
#[must_use]
pub fn chain(arch: Arch, features: Features) -> Vec<&'static FetchRow> {
    let mut rows: Vec<_> = FETCH_ROWS
        .iter()
        .filter(|r| r.rule.scope.holds(arch, features))
        .filter(|r| r.applies == Applies::Always && r.instead_of.is_none())
        .collect();
    rows.sort_by_key(|r| r.action);
    rows
}

/// Every row that provides `action` on `arch` with `features`, whatever it applies to.
pub fn closers(
    arch: Arch,
    features: Features,
    action: Action,
) -> impl Iterator<Item = &'static FetchRow> {
    FETCH_ROWS.iter().filter(move |r| r.action == action && r.rule.scope.holds(arch, features))
}
