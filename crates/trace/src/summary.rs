//! What was read out of a log, and what could not be seen in it.

use crate::accounting::Accounting;
use crate::areas::AreaCounts;
use crate::bounds::Dropped;
use crate::calls::CallCount;
use crate::conflicts::Conflicts;
use crate::merge::MergeCounts;
use crate::sections::Section;
use crate::tables::TablesSummary;
use std::collections::BTreeMap;
use textbed_arch::Arch;
use textbed_event::{Kind, KindSet};

/// Markers that are kept with their text; more are counted.
pub const MARKERS: usize = 1000;

/// Counts of what the log showed, beside lines, calls and areas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Leaf changes of which the physical address is known.
    pub leaves_with_phys: u64,
    /// Leaf changes without.
    pub leaves_without_phys: u64,
    /// Leaf changes of mappings made before the log began, taken to have been PAGE_KERNEL.
    pub leaves_assumed: u64,
    /// Pages that tables taken before the log have, and whose frames turned up in a new area: they
    /// were removed before the probe of removals was armed.
    pub gone_unseen: u64,
    /// Walks over entries whose masks no call around them shows: not applied.
    pub masks_unknown: u64,
    /// Permission changes that failed.
    pub changes_failed: u64,
    /// Changes of a direct map page whose address cannot be derived.
    pub direct_map_unplaced: u64,
    /// Derived addresses of direct map pages that contradict each other.
    pub direct_map_conflicts: u64,
    /// Windows of patchers.
    pub windows: u64,
    /// Modules from before the log of whose memory neither the list of areas nor page tables tell.
    pub modules_unplaced: u64,
    /// Freed areas of which it is not said when their pages went back: something became executable
    /// before that was over.
    pub frees_unsaid: u64,
    /// Patches of which it was looked at whether every CPU has the new code when they are over.
    pub patches_judged: u64,
    /// Cache maintenance through a patcher's alias, resolved to the code behind it.
    pub icache_by_alias: u64,
    /// Cross-calls sent.
    pub ipis_sent: u64,
    /// Of these, taken by another CPU (each once).
    pub ipis_taken: u64,
    /// Receivers that ran a cross-called function unseen: the sender waited for them.
    pub waited_unseen: u64,
    /// Cross-called functions run on a CPU that no recorded call reached.
    pub remote_without_call: u64,
    /// Lines whose time stamp is before that of the line above.
    pub time_backwards: u64,
    /// Events by provenance: recorded, inferred, modelled.
    pub by_provenance: [u64; 3],
}

/// What came out of a log.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The log as named by the user.
    pub input: String,
    /// The files that were read as one, as named by the user.
    pub inputs: Vec<String>,
    /// What the merging of several files met.
    pub merged: Option<MergeCounts>,
    /// Architecture.
    pub arch: Arch,
    /// Kernel version.
    pub kernel: String,
    /// `log2` of the base page.
    pub page_shift: u8,
    /// How these were found.
    pub because: Vec<String>,
    /// Files beside the log that were used.
    pub side_files: Vec<String>,
    /// Account of all lines.
    pub accounting: Accounting,
    /// Parts of the log with a clock of their own: more than one where the log has several boots.
    /// The first [`crate::sections::MAX_SECTIONS`].
    pub sections: Vec<Section>,
    /// How many parts there were besides.
    pub sections_more: u64,
    /// Events by kind.
    pub events: BTreeMap<Kind, u64>,
    /// Steps of the workload: line and text; the first [`MARKERS`].
    pub markers: Vec<(u64, String)>,
    /// How many there were.
    pub marker_count: u64,
    /// Areas.
    pub areas: AreaCounts,
    /// Calls by function.
    pub calls: BTreeMap<&'static str, CallCount>,
    /// Pieces of executable memory handed out, by kind of owner and name.
    pub owners: BTreeMap<(String, String), u64>,
    /// Where the log and the model contradict each other.
    pub conflicts: Conflicts,
    /// Other counts.
    pub counts: Counts,
    /// What was too much for a table.
    pub dropped: Dropped,
    /// Page tables read before the log.
    pub tables: Option<TablesSummary>,
    /// Kinds of event that the log records.
    pub records: KindSet,
    /// What could not be seen, in sentences.
    pub not_seen: Vec<String>,
    /// The marker at which reading stopped, if it was asked to and did.
    pub stopped_at: Option<u64>,
}

impl Summary {
    /// Time that the log covers, in nanoseconds; parts with a clock of their own are added up.
    pub fn covered_ns(&self) -> Option<u64> {
        let of = |s: &Section| s.last_ns.saturating_sub(s.first_ns);
        (!self.sections.is_empty()).then(|| self.sections.iter().map(of).sum())
    }

    /// All events.
    pub fn event_count(&self) -> u64 {
        self.events.values().sum()
    }
}
