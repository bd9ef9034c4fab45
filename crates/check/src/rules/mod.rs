//! The rules: what each is called, what it needs to see, and the page that explains it.
//!
//! A name is a rule's id for ever. A rule has a row only if its mechanism is built.

pub(crate) mod breaks;
pub(crate) mod calls;
pub(crate) mod contents;
pub(crate) mod fetch;
pub(crate) mod permissions;
mod table;
pub(crate) mod translations;

use std::fmt;

use textbed_arch::Cite;
use textbed_event::{Facts, KindSet};

use crate::finding::Level;

pub use table::RULES;

/// A rule, in table order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum RuleId {
    /// One mapping grants stores and fetches.
    WxMapping,
    /// Two mappings of one frame: one grants stores, the other fetches.
    WxAlias,
    /// Stores and fetches are granted together only through a translation that should be gone.
    WxStaleTranslation,
    /// A frame went back while its alias in the direct map is not what it was.
    DirectMapLeak,
    /// New code may be fetched as old: caches were not maintained, or maintenance not completed.
    MissingIcacheMaintenance,
    /// New code may be run as old: the executing CPU may have fetched it ahead.
    MissingContextSync,
    /// Code is run while nothing tells the executing CPU that it was written.
    MissingPublicationOrder,
    /// A permission was promised to be gone, and a CPU may still use it.
    StaleTranslation,
    /// An executable translation reaches a frame that went back to the allocator.
    ExecAfterFree,
    /// A page-table page went back while a CPU may still walk through it.
    WalkAfterFree,
    /// Bytes that nobody wrote are executable.
    MissingTrapFill,
    /// The tables do not say what a call promised.
    BrokenPromise,
    /// A call failed and nobody looked.
    IgnoredError,
    /// A change of permissions was refused because the mapping is a huge one.
    HugeMappingRefused,
    /// A valid entry was replaced by one that needs the old one to be gone first.
    BreakBeforeMake,
    /// A table store was not ordered before what relies on it.
    MissingPteOrder,
    /// A mapping in use was invalid for a while.
    LiveMappingHole,
    /// A CPU may run a mixture of old and new code.
    TornPatch,
    /// A patched place does not lie in one unit of what CPUs fetch.
    MisalignedPatch,
    /// Text is changed without the lock that its patchers share.
    UnlockedPatch,
    /// A patcher runs what it is in the middle of patching.
    SelfPatch,
    /// Code is replaced or freed while a task stands in it.
    NoQuiescence,
    /// What patchers know of a site does not fit what is there.
    PatchMetadata,
    /// Code is written through a mapping that does not grant it.
    WriteThroughReadOnly,
    /// An indirect branch arrives where no landing pad is.
    MissingLandingPad,
    /// Memory is not what its patcher or generator expected.
    VerifyMismatch,
    /// Maintenance covers other bytes than those that changed.
    WrongRange,
    /// Maintenance used another address than the one that needs it.
    WrongAlias,
    /// A call runs where its own contract forbids it.
    WrongContext,
}

/// What a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// Permissions of mappings.
    Permissions,
    /// Instruction fetch.
    InstructionSide,
    /// Translations.
    Translations,
    /// Code that is replaced while it is used.
    Patching,
    /// What executable memory contains.
    Contents,
    /// What calls promise, refuse and return.
    Calls,
}

impl Family {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Family::Permissions => "permissions",
            Family::InstructionSide => "instruction side",
            Family::Translations => "translations",
            Family::Patching => "patching",
            Family::Contents => "contents",
            Family::Calls => "calls",
        }
    }
}

/// One rule.
#[derive(Debug)]
pub struct RuleRow {
    /// Which.
    pub id: RuleId,
    /// Its name, for ever.
    pub name: &'static str,
    /// What it is about.
    pub family: Family,
    /// One line: what a finding of it says.
    pub summary: &'static str,
    /// Level of a certain finding, unless overridden.
    pub certain: Level,
    /// Level of a possible finding, unless overridden.
    pub possible: Level,
    /// Kinds of event without which it cannot be checked.
    pub needs: KindSet,
    /// Facts without which it cannot be checked.
    pub facts: Facts,
    /// Facts without which a finding is at most possible.
    pub sure: Facts,
    /// Which texts say so.
    pub cites: &'static [Cite],
    /// The page for `textbed explain`, in Markdown.
    pub explain: &'static str,
}

impl RuleId {
    /// Every rule, in table order.
    pub const ALL: [RuleId; 29] = [
        RuleId::WxMapping,
        RuleId::WxAlias,
        RuleId::WxStaleTranslation,
        RuleId::DirectMapLeak,
        RuleId::MissingIcacheMaintenance,
        RuleId::MissingContextSync,
        RuleId::MissingPublicationOrder,
        RuleId::StaleTranslation,
        RuleId::ExecAfterFree,
        RuleId::WalkAfterFree,
        RuleId::MissingTrapFill,
        RuleId::BrokenPromise,
        RuleId::IgnoredError,
        RuleId::HugeMappingRefused,
        RuleId::BreakBeforeMake,
        RuleId::MissingPteOrder,
        RuleId::LiveMappingHole,
        RuleId::TornPatch,
        RuleId::MisalignedPatch,
        RuleId::UnlockedPatch,
        RuleId::SelfPatch,
        RuleId::NoQuiescence,
        RuleId::PatchMetadata,
        RuleId::WriteThroughReadOnly,
        RuleId::MissingLandingPad,
        RuleId::VerifyMismatch,
        RuleId::WrongRange,
        RuleId::WrongAlias,
        RuleId::WrongContext,
    ];

    /// Its row.
    #[must_use]
    pub fn row(self) -> &'static RuleRow {
        &RULES[self as usize]
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The rule of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static RuleRow> {
    RULES.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_every_row_is_whole() {
        assert_eq!(RULES.len(), RuleId::ALL.len());
        for (row, id) in RULES.iter().zip(RuleId::ALL) {
            assert_eq!(row.id, id);
            assert_eq!(by_name(row.name).map(|r| r.id), Some(id));
            assert!(row.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            assert!(!row.cites.is_empty(), "{} has no citation", row.name);
            let first = row.explain.lines().next();
            assert_eq!(first, Some(format!("# {}", row.name).as_str()));
            for part in ["## What it means", "## Why it matters", "## Example", "## How to mend it"]
            {
                assert!(row.explain.contains(part), "{}: no section '{part}'", row.name);
            }
            assert!(row.explain.lines().all(|l| l.chars().count() <= 100), "{}", row.name);
        }
        assert!(by_name("no-such-rule").is_none());
    }
}
