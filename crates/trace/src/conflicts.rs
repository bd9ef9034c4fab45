//! Where the log and the model of the kernel that it is of contradict each other.
//!
//! The log is believed: what it shows is what happened. A contradiction says that something else
//! was not seen, that this kernel is not the one that the model knows, or that it has a bug; each
//! names the line where it shows and the one that it contradicts.
//!
//! Not modelled: contradictions about user address spaces; about what no probe recorded.

use crate::accounting::EXAMPLES;

/// Kinds of contradiction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A call failed that succeeds in the model.
    Failed,
    /// A call succeeded that the model refuses.
    Succeeded,
    /// An area was made where another one lives.
    Overlap,
    /// Memory for code lies outside of the region for it.
    OutsideRegion,
    /// A patcher's steps came without the synchronisation that its protocol has between them.
    Protocol,
    /// Page tables taken at the end have something else than the replayed log.
    Tables,
}

impl Kind {
    /// All kinds, in the order of reports.
    pub const ALL: [Kind; 6] = [
        Kind::Failed,
        Kind::Succeeded,
        Kind::Overlap,
        Kind::OutsideRegion,
        Kind::Protocol,
        Kind::Tables,
    ];

    /// For people, of several of them.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Kind::Failed => "calls that failed and succeed in the model",
            Kind::Succeeded => "calls that succeeded and are refused in the model",
            Kind::Overlap => "areas made where another one is alive",
            Kind::OutsideRegion => "memory for code outside of the region for it",
            Kind::Protocol => "patches outside of their protocol",
            Kind::Tables => "pages that the tables at the end have otherwise",
        }
    }

    /// One word for machines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Succeeded => "succeeded",
            Kind::Overlap => "overlap",
            Kind::OutsideRegion => "outside-region",
            Kind::Protocol => "protocol",
            Kind::Tables => "tables",
        }
    }
}

/// A place in a log: which of its files, and the number of the line.
pub type Place = (u32, u64);

/// One contradiction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// What kind.
    pub kind: Kind,
    /// The line where it shows; none for what is seen at the end.
    pub line: Option<Place>,
    /// The line that it contradicts; none where that was before the log.
    pub other: Option<Place>,
    /// What was recorded.
    pub recorded: String,
    /// What the model has instead.
    pub modelled: String,
}

/// All of a log: each counted, the first few of each kind kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conflicts {
    kept: Vec<Conflict>,
    counts: [u64; Kind::ALL.len()],
}

impl Conflicts {
    pub(crate) fn add(&mut self, conflict: Conflict) {
        self.add_many(conflict, 1);
    }

    /// Adds one that counts for several things.
    pub(crate) fn add_many(&mut self, conflict: Conflict, of: u64) {
        let Some(count) = self.counts.get_mut(conflict.kind as usize) else { return };
        *count = count.saturating_add(of);
        if self.of(conflict.kind).count() < EXAMPLES {
            self.kept.push(conflict);
        }
    }

    /// How many there were of a kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(kind as usize).copied().unwrap_or(0)
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The first few of each kind, in the order of the log.
    pub fn iter(&self) -> impl Iterator<Item = &Conflict> {
        self.kept.iter()
    }

    /// Those of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Conflict> {
        self.kept.iter().filter(move |c| c.kind == kind)
    }
}
