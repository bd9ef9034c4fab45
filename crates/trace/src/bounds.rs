//! What a log may make grow, and how far.
//!
//! A log is not to be trusted: whatever it holds, the state of a replay stays bounded, and so does
//! the work for each of its lines on average. Every table that a line can add to has a row here;
//! what is dropped because one is full is counted by [`Dropped`], and each count is a sentence in
//! the report, for it limits the verdict. No recorded log came near any of them.
//!
//! Bounds that end the replay instead (a line, a file beside the log) are errors of their readers;
//! examples and markers that are not shown one by one are counted where they are listed.

/// A table that is full, or another limit that a log can pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// Runs of mappings.
    Mappings,
    /// Pieces of mappings that lines may touch, on average.
    Pieces,
    /// Living areas.
    Areas,
    /// Tasks with open calls.
    CallTasks,
    /// Calls open in one task.
    CallDepth,
    /// Tasks with a change of permissions under way.
    ChangeTasks,
    /// Aliases of one change of permissions.
    Aliases,
    /// Pieces of a freed area whose frames are remembered.
    FreedFrames,
    /// Tasks with a patcher's window, a copy or a wait open.
    OpenTasks,
    /// The same in one task.
    OpenDepth,
    /// Cross-calls that not all receivers took.
    CrossCalls,
    /// Stores of one task that wait for a synchronisation.
    Stores,
    /// Tasks with such stores.
    StoreTasks,
    /// Contradictions that wait for a synchronisation.
    Held,
    /// Allocations of modules whose name is not known yet.
    Nameless,
    /// Owners that are told apart.
    Owners,
    /// Names that are told apart.
    Names,
    /// Bytes of a name.
    NameBytes,
    /// Functions of the function-graph tracer that are open.
    GraphOpen,
    /// Areas that were given back and are not removed yet.
    GivenBack,
    /// Tasks that are removing an area.
    Removals,
    /// Patches under way, in as many tasks.
    Patches,
    /// Places that one patch stores to.
    PatchStores,
    /// Patches that wait for a synchronisation behind them.
    HeldPatches,
    /// Copies of code whose maintenance was seen.
    Copies,
    /// Pages of the kernel's text that are patched.
    TextPages,
}

/// How much of it is kept, and what a report calls the rest, behind its number.
struct Row {
    bound: Bound,
    most: usize,
    /// `{}` stands for `most`.
    rest: &'static str,
}

const fn row(bound: Bound, most: usize, rest: &'static str) -> Row {
    Row { bound, most, rest }
}

use Bound::*;

#[rustfmt::skip]
const ROWS: [Row; 26] = [
    row(Mappings, 1 << 20, "changes of mappings beyond the {} runs of them that are followed at one time"),
    row(Pieces, 1 << 20, "changes of mappings that touch more pieces than so few lines may (64 a line, {} at once)"),
    row(Areas, 1 << 20, "areas beyond the {} that are followed at one time"),
    row(CallTasks, 1 << 14, "open calls, given up when more than {} tasks had some"),
    row(CallDepth, 64, "open calls, given up when a task had more than {}"),
    row(ChangeTasks, 1 << 10, "permission changes under way, forgotten when more than {} tasks were at one"),
    row(Aliases, 1 << 16, "aliases of a permission change beyond the first {}: their frames are not learnt"),
    row(FreedFrames, 1 << 12, "pieces of a freed area beyond the first {}: their frames are forgotten"),
    row(OpenTasks, 1 << 14, "windows and waits taken to be over when more than {} tasks had some"),
    row(OpenDepth, 64, "windows and waits taken to be over when a task had more than {}"),
    row(CrossCalls, 64, "cross-calls given up when more than {} had not been taken by all receivers"),
    row(Stores, 256, "stores of patchers, forgotten when more than {} of a task waited for a synchronisation"),
    row(StoreTasks, 1 << 10, "stores of patchers, forgotten when more than {} tasks had some"),
    row(Held, 256, "contradictions in patches, when more than {} waited for a synchronisation"),
    row(Nameless, 1 << 14, "pieces of module memory without a name, when more than {} waited for one"),
    row(Owners, 4096, "pieces of executable memory of owners beyond the first {}"),
    row(Names, 1 << 16, "uses of names beyond the first {}: they are shown as one"),
    row(NameBytes, 256, "names cut to {} bytes"),
    row(GraphOpen, 1 << 14, "functions of the function-graph tracer, forgotten when more than {} were open"),
    row(GivenBack, 1 << 12, "areas given back, forgotten when more than {} waited to be removed: their pages are not judged"),
    row(Removals, 1 << 8, "removals of areas, forgotten when more than {} tasks were at one: their pages are not judged"),
    row(Patches, 1 << 6, "patches under way, forgotten when more than {} tasks were at one: what they promise is not judged"),
    row(PatchStores, 1 << 9, "stores of patches beyond the first {} of one: what is promised of them is not judged"),
    row(HeldPatches, 1 << 6, "patches without a synchronisation behind them, when more than {} waited for one: they are not judged"),
    row(Copies, 1 << 6, "copies of code under way, forgotten when more than {} tasks were at one: their maintenance counts twice"),
    row(TextPages, 1 << 13, "patches of pages of the kernel's text beyond the first {}: they are not judged"),
];

impl Bound {
    /// All of them, in the order of reports.
    pub const ALL: [Bound; ROWS.len()] = {
        let mut all = [Mappings; ROWS.len()];
        let mut i = 0;
        while i < all.len() {
            // The place of each is its number: `dropped` counts by it.
            assert!(ROWS[i].bound as usize == i);
            all[i] = ROWS[i].bound;
            i += 1;
        }
        all
    };

    /// How many are kept.
    #[must_use]
    pub const fn most(self) -> usize {
        ROWS[self as usize].most
    }

    /// What a report says of `count` that were dropped.
    #[must_use]
    pub fn text(self, count: u64) -> String {
        let rest = ROWS[self as usize].rest.replace("{}", &self.most().to_string());
        format!("{count} {rest}")
    }
}

/// What was dropped, by bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    counts: [u64; Bound::ALL.len()],
}

impl Dropped {
    /// Counts some.
    pub(crate) fn add(&mut self, bound: Bound, count: usize) {
        self.counts[bound as usize] = self.counts[bound as usize].saturating_add(count as u64);
    }

    /// Takes over another's counts.
    pub(crate) fn add_all(&mut self, other: Self) {
        for (bound, count) in other.iter() {
            self.counts[bound as usize] = self.counts[bound as usize].saturating_add(count);
        }
    }

    /// How many were dropped for this one.
    #[must_use]
    pub fn count(&self, bound: Bound) -> u64 {
        self.counts[bound as usize]
    }

    /// Those for which something was dropped.
    pub fn iter(&self) -> impl Iterator<Item = (Bound, u64)> {
        Bound::ALL.into_iter().zip(self.counts).filter(|(_, count)| *count > 0)
    }
}
