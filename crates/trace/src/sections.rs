//! Parts of a log with a clock of their own: boots, or recordings put behind each other.

/// Sections of which a summary tells one by one.
pub const MAX_SECTIONS: usize = 64;

/// Why a section begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// The log does.
    Log,
    /// The clock goes back to before the section's first line, or on a CPU that was seen: another
    /// boot or another recording.
    ClockBack,
    /// The clock goes back within the section, and a CPU that was not seen takes over: files of
    /// single CPUs that were put behind each other.
    OtherCpu,
}

/// A part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Its first line with a time: which of the files, and the number in it.
    pub line: (u32, u64),
    /// First time stamp, in nanoseconds.
    pub first_ns: u64,
    /// Latest time stamp.
    pub last_ns: u64,
    /// Why it begins.
    pub begins: Begins,
}

impl Section {
    pub(crate) fn new(line: (u32, u64), at_ns: u64, begins: Begins) -> Self {
        Self { line, first_ns: at_ns, last_ns: at_ns, begins }
    }
}

/// The sections so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sections {
    list: Vec<Section>,
    /// The one at hand, once there are more than are kept.
    beyond: Option<Section>,
    more: u64,
    cpus: u64,
}

impl Sections {
    /// The one at hand.
    pub(crate) fn now(&self) -> Option<Section> {
        self.beyond.or(self.list.last().copied())
    }

    /// Another one.
    pub(crate) fn begin(&mut self, section: Section, cpu: u32) {
        if self.list.len() < MAX_SECTIONS {
            self.list.push(section);
        } else {
            self.beyond = Some(section);
            self.more += 1;
        }
        self.cpus = 1 << cpu.min(63);
    }

    /// Its clock is here.
    pub(crate) fn goes_on(&mut self, last_ns: u64, cpu: u32) {
        self.cpus |= 1 << cpu.min(63);
        if let Some(now) = self.beyond.as_mut().or(self.list.last_mut()) {
            now.last_ns = last_ns;
        }
    }

    /// Whether a line of that CPU was in it.
    pub(crate) fn seen(&self, cpu: u32) -> bool {
        self.cpus & 1 << cpu.min(63) != 0
    }

    /// Those that are kept.
    pub(crate) fn list(&self) -> &[Section] {
        &self.list
    }

    /// How many are not.
    pub(crate) fn more(&self) -> u64 {
        self.more
    }
}
