//! What the checker reports: findings, windows, coverage. Plain data; `textbed-report` renders it.

use textbed_arch::{Arch, Cite, CpuId, Pfn, VirtAddr};
use textbed_event::{Kind, Origin};

use crate::operation::Operation;
use crate::rules::RuleId;

/// What a finding costs: whether it fails a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Not shown.
    Allow,
    /// Shown.
    Warn,
    /// Shown, and the run fails.
    Deny,
}

/// How sure the checker is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Confidence {
    /// Something that was needed rests on memory, was not recorded, or a calibration row applies.
    Possible,
    /// In this execution, by texts that were read.
    Certain,
}

/// Whose fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Blame {
    /// The code that called.
    Caller,
    /// The code that was called: it broke its promise.
    Callee,
}

/// Where an address lies, as far as another run of the same has the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// `owner name` of the innermost region; the owner alone, if the name is an order number.
    pub region: String,
    /// Offset in the region, where that means the same in another run.
    pub offset: Option<u64>,
    /// Offset in a region in which others get their places: it tells places of one run apart, and
    /// another run may have something else there.
    pub moving: Option<u64>,
}

/// One event of a finding, with what a person needs to find it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// Number of the event in its stream.
    pub seq: u64,
    /// Time in nanoseconds, if known.
    pub at_ns: Option<u64>,
    /// What kind of event.
    pub kind: Kind,
    /// On which CPU.
    pub cpu: CpuId,
    /// The address it was about.
    pub virt: Option<VirtAddr>,
    /// `owner name+0x..`, as far as regions tell.
    pub symbol: Option<String>,
    /// What of the address another run has too.
    pub place: Option<Place>,
    /// Where in the scenario or log.
    pub origin: Option<Origin>,
    /// Calls around it, outermost first.
    pub calls: Vec<String>,
    /// What happened there, in a few words.
    pub label: String,
}

/// One step of the chain that closes a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainStep {
    /// What has to happen ("clean to the point of unification").
    pub what: &'static str,
    /// The operation that does it on this architecture ("dc cvau; dsb ish").
    pub operation: String,
    /// Whether it did.
    pub state: StepState,
    /// The event that did it; of a step that is missing, the last one that came too early.
    pub site: Option<Site>,
    /// Which rule asks for it.
    pub cite: Cite,
}

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StepState {
    /// It happened.
    Done,
    /// It did not.
    Missing,
    /// The source does not record it.
    Unknown,
    /// This architecture or CPU does not need it.
    NotNeeded,
}

/// The window that held what it must not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Window {
    /// Fetch: versions that a fetch may return, as (oldest, newest) in coherence order.
    Fetch {
        /// The CPU that fetches.
        cpu: CpuId,
        /// The code.
        virt: VirtAddr,
        /// Oldest version that it may return.
        low: u32,
        /// Newest.
        high: u32,
    },
    /// Translation: what a CPU may still be granted.
    Translation {
        /// The CPU.
        cpu: CpuId,
        /// The page.
        virt: VirtAddr,
        /// What it may still be granted, as `rwx` letters.
        granted: &'static str,
        /// What the tables say, as `rwx` letters.
        tables: &'static str,
    },
    /// Writable and executable at once.
    WriteExec {
        /// The writable mapping.
        write_at: VirtAddr,
        /// The executable mapping.
        exec_at: VirtAddr,
        /// First frame.
        pfn: Pfn,
        /// How many 4 KiB frames.
        frames: u64,
    },
    /// Something else; the message says it.
    Other,
}

/// Something that is wrong, or may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Which rule.
    pub rule: RuleId,
    /// What kind of operation is missing, or was done in a way that does not count.
    pub operation: Operation,
    /// What it costs, after options were applied.
    pub level: Level,
    /// How sure.
    pub confidence: Confidence,
    /// Whose fault.
    pub blame: Blame,
    /// On which architecture.
    pub arch: Arch,
    /// In which kernel version, if known.
    pub kernel: Option<String>,
    /// One line.
    pub message: String,
    /// The event where it shows.
    pub at: Site,
    /// The event that it conflicts with.
    pub because: Option<Site>,
    /// The operations that are missing, in order, as instructions or generic steps.
    pub missing: Vec<String>,
    /// The window.
    pub window: Window,
    /// The chain, step by step.
    pub chain: Vec<ChainStep>,
    /// More to say, a paragraph each.
    pub notes: Vec<String>,
    /// What would mend it.
    pub help: Option<String>,
    /// Which texts say so.
    pub cites: Vec<Cite>,
    /// How many times it was seen with this confidence: that is how many pieces were joined.
    pub count: u64,
    /// How many pieces more there are that are less sure; a note says so too.
    pub less_sure: u64,
    /// Hash of rule, architecture, places and calls of the sites, and missing operations, as 16 hex
    /// digits.
    pub fingerprint: String,
}

/// Why a W+X window is tolerated, or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WindowStatus {
    /// The platform never protects this mapping.
    Platform,
    /// An authorised temporary alias of a patcher.
    Protocol,
    /// The call that closes it had not returned.
    InCall,
    /// None of these: a finding.
    Violation,
}

/// One W+X window, whatever its status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WxWindow {
    /// Its status.
    pub status: WindowStatus,
    /// First frame, if frames are known.
    pub pfn: Option<Pfn>,
    /// How many 4 KiB frames, summed over the windows merged here (`count`): a frame that was open
    /// twice counts twice.
    pub frames: u64,
    /// The writable address.
    pub write_at: VirtAddr,
    /// The executable address.
    pub exec_at: VirtAddr,
    /// Who owns the executable range.
    pub owner: String,
    /// Event and time of its beginning.
    pub opened: Site,
    /// Event and time of its end; none = still open.
    pub closed: Option<Site>,
    /// The rule that it falls under when it is a violation.
    pub rule: RuleId,
    /// How many windows of this kind there were: those that are no violation are merged by status,
    /// rule, owner and calls, and the first one is shown.
    pub count: u64,
    /// The longest of them in nanoseconds, where times are known.
    pub longest_ns: Option<u64>,
}

/// What a rule could see of a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Coverage {
    /// The rule looked at this many occasions.
    Checked(u64),
    /// The source does not record what it needs.
    NotCheckable(&'static str),
    /// It could have, but nothing of the kind happened.
    NotExercised,
}

/// The verdict over one stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The findings, in order of first event, equal fingerprints merged.
    pub findings: Vec<Finding>,
    /// The W+X windows, in order of beginning.
    pub windows: Vec<WxWindow>,
    /// For each rule in table order.
    pub coverage: Vec<(RuleId, Coverage)>,
    /// Number of events read.
    pub events: u64,
    /// The architecture of the stream; none if there was no header.
    pub arch: Option<Arch>,
    /// The kernel's version, if known.
    pub kernel: Option<String>,
    /// Distinct findings beyond the limit that were counted only.
    pub left_off: u64,
    /// What has to be known to read this report: what was taken as given, what was not looked at.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether the source records too little for any rule: nothing that is wrong would show.
    #[must_use]
    pub fn nothing_checkable(&self) -> bool {
        self.coverage.iter().all(|(_, c)| matches!(c, Coverage::NotCheckable(_)))
    }
}

impl Level {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Allow => "allow",
            Level::Warn => "warn",
            Level::Deny => "deny",
        }
    }
}

impl Confidence {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Confidence::Possible => "possible",
            Confidence::Certain => "certain",
        }
    }
}

impl Blame {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Blame::Caller => "caller",
            Blame::Callee => "callee",
        }
    }
}

impl StepState {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StepState::Done => "done",
            StepState::Missing => "missing",
            StepState::Unknown => "unknown",
            StepState::NotNeeded => "not-needed",
        }
    }
}

impl WindowStatus {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            WindowStatus::Platform => "platform",
            WindowStatus::Protocol => "protocol",
            WindowStatus::InCall => "in-call",
            WindowStatus::Violation => "violation",
        }
    }
}

impl Coverage {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Coverage::Checked(_) => "checked",
            Coverage::NotCheckable(_) => "not-checkable",
            Coverage::NotExercised => "not-exercised",
        }
    }
}
