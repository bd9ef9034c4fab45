//! What closes a translation window, and which changes of an entry need closing.
//!
//! The chain: the table store is visible to walks; every CPU that may hold the old translation
//! invalidates it; the invalidation is complete; the executing CPU synchronises its context.
//! [`changes`] says per change of a valid entry what follows without the chain.

use super::Rule;
pub use super::translation_rows::TRANSLATION_ROWS;
use crate::effect::Barrier;
use crate::features::Features;
use crate::isa::Arch;

/// What a row does or allows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TlbAction {
    /// The store to the table is visible to walks.
    StoreVisible,
    /// This CPU drops the translation.
    InvalidateLocal,
    /// Every other CPU drops it.
    InvalidateRemote,
    /// The invalidation is complete: no access uses the old translation any more.
    Complete,
    /// Instructions fetched through the old translation are dropped.
    ContextSync,
    /// A change that needs no invalidation, or tolerates its absence.
    Upgrade(Change),
    /// A change that needs the entry to be invalid in between.
    BreakBeforeMake(Change),
}

impl TlbAction {
    /// Whether the row is an arrow of the chain.
    #[must_use]
    pub const fn in_chain(self) -> bool {
        !matches!(self, TlbAction::Upgrade(_) | TlbAction::BreakBeforeMake(_))
    }

    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            TlbAction::StoreVisible => "the page-table store is visible to walks",
            TlbAction::InvalidateLocal => "this CPU drops the translation",
            TlbAction::InvalidateRemote => "the other CPUs drop the translation",
            TlbAction::Complete => "the invalidation is complete",
            TlbAction::ContextSync => "instructions fetched through it are dropped",
            TlbAction::Upgrade(_) => "no invalidation is needed",
            TlbAction::BreakBeforeMake(_) => "the entry is invalid in between",
        }
    }
}

/// A change of a translation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Change {
    /// Invalid to valid.
    MakeValid,
    /// Writing is granted.
    GrantWrite,
    /// Executing is granted.
    GrantExec,
    /// User access is granted.
    GrantUser,
    /// Another frame.
    Frame,
    /// Memory type, cacheability or shareability.
    MemoryType,
    /// Leaf size, or table against leaf.
    Size,
    /// A global entry where a non-global one may be cached.
    Global,
    /// An entry that points to a table.
    UpperLevel,
    /// The contiguous bit.
    Contiguous,
    /// One of the entries that translate together, and not the others.
    Group,
}

/// A rule about translations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TranslationRow {
    /// Id, scope, text and source.
    pub rule: Rule,
    /// What it does or allows.
    pub action: TlbAction,
    /// Ids of rows that must come before.
    pub needs: &'static [&'static str],
    /// Instructions that do it, by the table's names, the one to print first.
    pub by: &'static [&'static str],
    /// Events other than instructions that do it.
    pub also: &'static [&'static str],
    /// Another way beside the row with this id.
    pub instead_of: Option<&'static str>,
}

impl TranslationRow {
    /// What to print as missing.
    #[must_use]
    pub fn missing(&self) -> &'static str {
        let first = self.by.first().or(self.also.first());
        first.copied().unwrap_or_else(|| self.action.text())
    }
}

/// Whether a CPU's own stores to the tables and its own invalidations take effect in the order of
/// its program, without barriers: on x86, and on 8xx, where the only CPU walks by its program.
/// (8xx: deduced from what Linux leaves out, include/asm/nohash/tlbflush.h of 6.12.)
#[must_use]
pub fn walks_in_order(arch: Arch, features: Features) -> bool {
    arch == Arch::X86_64 || arch == Arch::Ppc32 && features.contains(Features::PPC_8XX)
}

/// What comes of an access that a held translation refuses and the tables grant: the rows of
/// [`Change::GrantWrite`] and [`Change::GrantExec`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeldRefusal {
    /// A fault behind which the translation is gone: tried again the access succeeds.
    Spurious,
    /// The tables are read again first.
    ReadAgain,
    /// A fault as any other, until the translation is invalidated.
    Fault,
}

/// How CPUs of an architecture refuse by what they hold.
#[must_use]
pub fn held_refusal(arch: Arch, features: Features) -> HeldRefusal {
    match arch {
        Arch::X86_64 if !features.contains(Features::X86_AMD) => HeldRefusal::Spurious,
        Arch::Arm64 => HeldRefusal::Fault,
        _ => HeldRefusal::ReadAgain,
    }
}

/// How far powerpc's other CPUs are asked to answer for a `tlbie` (row `powerpc.tlb.complete`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlbieStage {
    /// Nothing that counts came behind it.
    Issued,
    /// An `eieio` or more did, so that the next `tlbsync` is about it.
    Ordered,
    /// And a `tlbsync`: the next `ptesync` completes it.
    Announced,
}

impl TlbieStage {
    /// Where it is behind a barrier of the CPU that issued it.
    #[must_use]
    pub fn behind(self, barrier: Barrier) -> Self {
        match (self, barrier) {
            (TlbieStage::Issued, Barrier::Eieio | Barrier::Sync | Barrier::Ptesync) => {
                TlbieStage::Ordered
            }
            (TlbieStage::Ordered, Barrier::Tlbsync) => TlbieStage::Announced,
            _ => self,
        }
    }
}

/// The arrows of an unmap or tightening on `arch` with `features`, in order.
#[must_use]
pub fn translation_chain(arch: Arch, features: Features) -> Vec<&'static TranslationRow> {
    let mut rows: Vec<_> = TRANSLATION_ROWS
        .iter()
        .filter(|r| r.action.in_chain() && r.instead_of.is_none())
        .filter(|r| r.rule.scope.holds(arch, features))
        .collect();
    rows.sort_by_key(|r| r.action);
    rows
}

/// The rows that speak of `change` on `arch` with `features`.
pub fn changes(
    arch: Arch,
    features: Features,
    change: Change,
) -> impl Iterator<Item = &'static TranslationRow> {
    TRANSLATION_ROWS.iter().filter(move |r| {
        let speaks = match r.action {
            TlbAction::Upgrade(c) | TlbAction::BreakBeforeMake(c) => c == change,
            _ => false,
        };
        speaks && r.rule.scope.holds(arch, features)
    })
}

/// The row by which `change` may be made only with a break, where there is one.
#[must_use]
pub fn wants_break(
    arch: Arch,
    features: Features,
    change: Change,
) -> Option<&'static TranslationRow> {
    changes(arch, features, change).find(|r| matches!(r.action, TlbAction::BreakBeforeMake(_)))
}
