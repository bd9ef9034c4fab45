//! What the checker is asked to do.

use std::collections::BTreeMap;
use std::str::FromStr;

use textbed_arch::insn::CmodxRevision;

use crate::finding::Level;
use crate::rules::RuleId;

/// How the architectures' texts about what a CPU fetched ahead are read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Reading {
    /// Completion of the chain must be in the fetch view, as the litmus models decide.
    Strict,
    /// Context synchronisation is needed iff, since the CPU's last one, the address was executable
    /// for it with other bytes.
    #[default]
    Mapped,
    /// Context synchronisation is needed iff the CPU executed other bytes there since its last one.
    Fresh,
}

/// Which order counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Mode {
    /// The order of the stream.
    Observed,
    /// Only real edges; the order of the stream is computed too. A source that does not record
    /// synchronisation is read as observed.
    #[default]
    Predicted,
}

/// A name that stands for no reading, mode or rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown {what} '{name}' (known: {known})")]
pub struct UnknownName {
    /// What was looked for.
    pub what: &'static str,
    /// What was given.
    pub name: String,
    /// What there is.
    pub known: &'static str,
}

impl Reading {
    /// Every reading.
    pub const ALL: [Reading; 3] = [Reading::Strict, Reading::Mapped, Reading::Fresh];

    /// Its name in options and scenarios.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reading::Strict => "strict",
            Reading::Mapped => "mapped",
            Reading::Fresh => "fresh",
        }
    }
}

impl Mode {
    /// Both modes.
    pub const ALL: [Mode; 2] = [Mode::Observed, Mode::Predicted];

    /// Its name in options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Observed => "observed",
            Mode::Predicted => "predicted",
        }
    }
}

impl FromStr for Reading {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|r| r.name() == s).ok_or_else(|| UnknownName {
            what: "reading",
            name: s.to_owned(),
            known: "strict, mapped, fresh",
        })
    }
}

impl FromStr for Mode {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|m| m.name() == s).ok_or_else(|| UnknownName {
            what: "mode",
            name: s.to_owned(),
            known: "observed, predicted",
        })
    }
}

/// Levels that override a rule's own.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Levels {
    set: BTreeMap<RuleId, Level>,
}

impl Levels {
    /// Findings of this rule get this level, however sure they are; a later call wins.
    pub fn set(&mut self, rule: RuleId, level: Level) {
        self.set.insert(rule, level);
    }

    /// The override of a rule, if there is one.
    #[must_use]
    pub fn get(&self, rule: RuleId) -> Option<Level> {
        self.set.get(&rule).copied()
    }
}

impl Options {
    /// Sets what `--cmodx` says: `on`, `off`, or `on` by a revision of arm64's list.
    ///
    /// # Errors
    /// Another word.
    pub fn set_cmodx(&mut self, word: &str) -> Result<(), UnknownName> {
        match (word, CmodxRevision::ALL.into_iter().find(|r| r.name() == word)) {
            ("on", _) => (self.cmodx, self.cmodx_list) = (true, CmodxRevision::Latest),
            ("off", _) => self.cmodx = false,
            (_, Some(revision)) => (self.cmodx, self.cmodx_list) = (true, revision),
            _ => {
                return Err(UnknownName {
                    what: "live patching",
                    name: word.to_owned(),
                    known: "on, off; on by arm64's list as of a.a, d.a, middle, latest",
                });
            }
        }
        Ok(())
    }
}

/// What the checker is asked to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// How texts about what a CPU fetched ahead are read.
    pub reading: Reading,
    /// Whether the rows that allow live patching apply.
    pub cmodx: bool,
    /// As of which revision of the manual arm64's list of such instructions is read.
    pub cmodx_list: CmodxRevision,
    /// Which order counts.
    pub mode: Mode,
    /// Levels by rule.
    pub levels: Levels,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reading: Reading::default(),
            cmodx: true,
            cmodx_list: CmodxRevision::Latest,
            mode: Mode::default(),
            levels: Levels::default(),
        }
    }
}
