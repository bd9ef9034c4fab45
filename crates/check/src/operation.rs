//! Which kind of operation is missing: what a rule found says that something is wrong, this says
//! what would have to be done, in terms that are the same on every architecture.
//!
//! It comes from the state of the machine and the step of the chain that is missing, never from a
//! name. One rule may lack different things: a stale translation may need a flush that nobody
//! issued, or another one than the flush that an erratum defeats. [`KINDS`] has every pair that can
//! be, with the architectures where it can; whoever knows the calls of a kernel completes it.

use textbed_arch::Arch;

use crate::rules::RuleId;
use crate::translation::complete::Leaves;

/// A kind of operation that is missing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// A fence behind a non-temporal store.
    StoreFence,
    /// Cache maintenance of the code, or its completion.
    Maintenance,
    /// Telling the CPU that executes, in an order that it sees.
    Publication,
    /// Context synchronisation of another CPU than the one that stored.
    ContextSync,
    /// Context synchronisation of the CPU that stored, before it executes.
    OwnContextSync,
    /// An invalidation of translations of the kernel, or its completion.
    Flush,
    /// The same in an address space that not everybody uses.
    FlushOfSpace,
    /// One that takes global entries where invalidations by address leave them.
    FlushOfGlobals,
    /// A second one where the first leaves something.
    SecondFlush,
    /// One of every level, before a page-table page goes back.
    FlushOfTable,
    /// A barrier between the store to the tables and the use of the entry.
    OrderOfEntry,
    /// A barrier between the store to the tables and the invalidation.
    OrderBeforeFlush,
    /// An invalid entry, and a flush, between two valid ones.
    Break,
    /// A change of a valid entry in one store.
    ChangeInPlace,
    /// Write permission taken away before execution is granted.
    WriteAway,
    /// The writable alias taken away.
    AliasAway,
    /// Default permissions of the alias that the next owner gets.
    Restore,
    /// The range unmapped and flushed before its frames go back.
    Unmap,
    /// Waiting until nobody stands in the code.
    Quiescence,
    /// A protocol for replacing what is wider than what is fetched whole.
    Protocol,
    /// Alignment of what is patched, or a protocol.
    Alignment,
    /// A lock for everybody who patches.
    Lock,
    /// Code for the patcher that is not patched.
    OwnCode,
    /// The handler of a trap, as long as somebody may run into it.
    Handler,
    /// Removal of the site from the lists of patchers before its memory goes.
    SiteRemoval,
    /// A writable alias for the patch.
    WritableAlias,
    /// One description of what is at a site.
    Agreement,
    /// Bytes that trap, where nothing is.
    TrapFill,
    /// An instruction at which an indirect branch may arrive.
    LandingPad,
    /// What the call promised.
    Promise,
    /// A look at the result.
    Result,
    /// A mapping by base pages.
    BasePages,
    /// Room for all of the code.
    Room,
    /// A task as context, with interrupts on.
    TaskContext,
    /// Interrupts off.
    IrqsOff,
    /// No non-maskable interrupt around.
    OutsideNmi,
    /// All other CPUs standing still.
    OthersStopped,
}

/// One pair of rule and operation.
#[derive(Clone, Copy, Debug)]
pub struct KindRow {
    /// The rule.
    pub rule: RuleId,
    /// What it can find missing.
    pub operation: Operation,
    /// Where.
    pub archs: &'static [Arch],
}

const ALL: &[Arch] = &Arch::ALL;
const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
const TRACKED: &[Arch] = &[Arch::X86_64, Arch::Arm64];
const WEAK: &[Arch] = &[Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];

const fn row(rule: RuleId, operation: Operation, archs: &'static [Arch]) -> KindRow {
    KindRow { rule, operation, archs }
}

/// Every pair that can be.
#[rustfmt::skip]
pub const KINDS: &[KindRow] = &[
    row(RuleId::WxMapping, Operation::WriteAway, ALL),
    row(RuleId::WxAlias, Operation::AliasAway, ALL),
    row(RuleId::WxStaleTranslation, Operation::Flush, ALL),
    row(RuleId::WxStaleTranslation, Operation::FlushOfSpace, ALL),
    row(RuleId::WxStaleTranslation, Operation::FlushOfGlobals, X86),
    row(RuleId::WxStaleTranslation, Operation::SecondFlush, WEAK),
    row(RuleId::DirectMapLeak, Operation::Restore, ALL),
    row(RuleId::DirectMapLeak, Operation::Flush, ARM64),
    row(RuleId::WriteThroughReadOnly, Operation::WritableAlias, ALL),
    row(RuleId::MissingIcacheMaintenance, Operation::StoreFence, X86),
    row(RuleId::MissingIcacheMaintenance, Operation::Maintenance, WEAK),
    row(RuleId::MissingContextSync, Operation::ContextSync, ALL),
    row(RuleId::MissingContextSync, Operation::OwnContextSync, ALL),
    row(RuleId::MissingPublicationOrder, Operation::Publication, ALL),
    row(RuleId::StaleTranslation, Operation::Flush, ALL),
    row(RuleId::StaleTranslation, Operation::FlushOfSpace, ALL),
    row(RuleId::StaleTranslation, Operation::FlushOfGlobals, X86),
    row(RuleId::StaleTranslation, Operation::SecondFlush, WEAK),
    row(RuleId::WalkAfterFree, Operation::FlushOfTable, ALL),
    row(RuleId::MissingPteOrder, Operation::OrderOfEntry, WEAK),
    row(RuleId::MissingPteOrder, Operation::OwnContextSync, WEAK),
    row(RuleId::MissingPteOrder, Operation::OrderBeforeFlush, WEAK),
    row(RuleId::BreakBeforeMake, Operation::Break, ALL),
    row(RuleId::LiveMappingHole, Operation::ChangeInPlace, ALL),
    row(RuleId::ExecAfterFree, Operation::Unmap, ALL),
    row(RuleId::ExecAfterFree, Operation::Flush, ALL),
    row(RuleId::ExecAfterFree, Operation::FlushOfSpace, ALL),
    row(RuleId::ExecAfterFree, Operation::FlushOfGlobals, X86),
    row(RuleId::ExecAfterFree, Operation::SecondFlush, WEAK),
    row(RuleId::ExecAfterFree, Operation::Quiescence, ALL),
    row(RuleId::TornPatch, Operation::Protocol, ALL),
    row(RuleId::TornPatch, Operation::ContextSync, X86),
    row(RuleId::MisalignedPatch, Operation::Alignment, ALL),
    row(RuleId::UnlockedPatch, Operation::Lock, ALL),
    row(RuleId::SelfPatch, Operation::OwnCode, ALL),
    row(RuleId::NoQuiescence, Operation::Quiescence, ALL),
    row(RuleId::PatchMetadata, Operation::Handler, ALL),
    row(RuleId::PatchMetadata, Operation::SiteRemoval, ALL),
    row(RuleId::PatchMetadata, Operation::Agreement, ALL),
    row(RuleId::MissingTrapFill, Operation::TrapFill, ALL),
    row(RuleId::MissingLandingPad, Operation::LandingPad, TRACKED),
    row(RuleId::VerifyMismatch, Operation::Agreement, ALL),
    row(RuleId::BrokenPromise, Operation::Promise, ALL),
    row(RuleId::IgnoredError, Operation::Result, ALL),
    row(RuleId::HugeMappingRefused, Operation::BasePages, ALL),
    row(RuleId::WrongRange, Operation::Maintenance, WEAK),
    row(RuleId::WrongRange, Operation::Flush, ALL),
    row(RuleId::WrongRange, Operation::Room, ALL),
    row(RuleId::WrongAlias, Operation::Maintenance, WEAK),
    row(RuleId::WrongAlias, Operation::WritableAlias, ALL),
    row(RuleId::WrongAlias, Operation::Flush, ALL),
    row(RuleId::WrongContext, Operation::TaskContext, ALL),
    row(RuleId::WrongContext, Operation::IrqsOff, ALL),
    row(RuleId::WrongContext, Operation::OutsideNmi, ALL),
    row(RuleId::WrongContext, Operation::OthersStopped, ALL),
];

impl Operation {
    /// Every kind, in the order of the enum.
    pub const ALL: [Operation; 37] = [
        Operation::StoreFence,
        Operation::Maintenance,
        Operation::Publication,
        Operation::ContextSync,
        Operation::OwnContextSync,
        Operation::Flush,
        Operation::FlushOfSpace,
        Operation::FlushOfGlobals,
        Operation::SecondFlush,
        Operation::FlushOfTable,
        Operation::OrderOfEntry,
        Operation::OrderBeforeFlush,
        Operation::Break,
        Operation::ChangeInPlace,
        Operation::WriteAway,
        Operation::AliasAway,
        Operation::Restore,
        Operation::Unmap,
        Operation::Quiescence,
        Operation::Protocol,
        Operation::Alignment,
        Operation::Lock,
        Operation::OwnCode,
        Operation::Handler,
        Operation::SiteRemoval,
        Operation::WritableAlias,
        Operation::Agreement,
        Operation::TrapFill,
        Operation::LandingPad,
        Operation::Promise,
        Operation::Result,
        Operation::BasePages,
        Operation::Room,
        Operation::TaskContext,
        Operation::IrqsOff,
        Operation::OutsideNmi,
        Operation::OthersStopped,
    ];

    /// Its name: what tables of calls are keyed by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Operation::StoreFence => "store-fence",
            Operation::Maintenance => "maintenance",
            Operation::Publication => "publication",
            Operation::ContextSync => "context-sync",
            Operation::OwnContextSync => "own-context-sync",
            Operation::Flush => "flush",
            Operation::FlushOfSpace => "flush-of-space",
            Operation::FlushOfGlobals => "flush-of-globals",
            Operation::SecondFlush => "second-flush",
            Operation::FlushOfTable => "flush-of-table",
            Operation::OrderOfEntry => "order-of-entry",
            Operation::OrderBeforeFlush => "order-before-flush",
            Operation::Break => "break",
            Operation::ChangeInPlace => "change-in-place",
            Operation::WriteAway => "write-away",
            Operation::AliasAway => "alias-away",
            Operation::Restore => "restore",
            Operation::Unmap => "unmap",
            Operation::Quiescence => "quiescence",
            Operation::Protocol => "protocol",
            Operation::Alignment => "alignment",
            Operation::Lock => "lock",
            Operation::OwnCode => "own-code",
            Operation::Handler => "handler",
            Operation::SiteRemoval => "site-removal",
            Operation::WritableAlias => "writable-alias",
            Operation::Agreement => "agreement",
            Operation::TrapFill => "trap-fill",
            Operation::LandingPad => "landing-pad",
            Operation::Promise => "promise",
            Operation::Result => "result",
            Operation::BasePages => "base-pages",
            Operation::Room => "room",
            Operation::TaskContext => "task-context",
            Operation::IrqsOff => "irqs-off",
            Operation::OutsideNmi => "outside-nmi",
            Operation::OthersStopped => "others-stopped",
        }
    }

    /// The flush that is missing for an old answer of `space`, of which an earlier one left this.
    pub(crate) fn flush(kernel: bool, left: Option<Leaves>) -> Self {
        match left {
            Some(Leaves::Globals) => Operation::FlushOfGlobals,
            Some(Leaves::Others | Leaves::StoresOfOthers) => Operation::SecondFlush,
            _ if kernel => Operation::Flush,
            _ => Operation::FlushOfSpace,
        }
    }
}

/// Whether `rule` can find that missing there.
pub(crate) fn can_miss(rule: RuleId, operation: Operation, arch: Arch) -> bool {
    KINDS.iter().any(|r| (r.rule, r.operation) == (rule, operation) && r.archs.contains(&arch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_and_every_operation_has_a_row_and_none_has_two() {
        for rule in RuleId::ALL {
            assert!(KINDS.iter().any(|r| r.rule == rule), "{rule}");
        }
        for (n, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, n);
            assert!(KINDS.iter().any(|r| r.operation == operation), "{}", operation.name());
            let same = Operation::ALL.iter().filter(|o| o.name() == operation.name());
            assert_eq!(same.count(), 1, "{}", operation.name());
        }
        for (n, row) in KINDS.iter().enumerate() {
            let key = |r: &KindRow| (r.rule, r.operation);
            assert!(KINDS[..n].iter().all(|r| key(r) != key(row)), "{row:?}");
        }
    }
}
