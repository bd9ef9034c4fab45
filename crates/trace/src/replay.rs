//! A log from its file to a sink: what a caller uses.
//!
//! The first lines (or, for a file without a list of probes beside it, all of them) are looked at
//! before anything is emitted, to find the kernel and what was probed: the header comes first in a
//! stream. The log itself is then read once, line by line; memory does not grow with its length.

use crate::coverage::Probed;
use crate::detect::{self, DetectError, Evidence, Kernel, Options};
use crate::functions;
use crate::limits;
use crate::lower::Lower;
use crate::mappings::Mappings;
use crate::merge::Lines;
use crate::reader::{Line, ReadError};
use crate::side::{SideFiles, below};
use crate::summary::Summary;
use crate::tables::{self, TablesError};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use textbed_arch::{Arch, Features};
use textbed_event::{Facts, Header, Sink, Source};

/// Lines looked at before the first event is emitted.
const AHEAD_LINES: usize = 8192;
/// The same in bytes.
const AHEAD_BYTES: usize = 4 << 20;

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It, or a file beside it, cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It cannot be said of which kernel it is.
    #[error("{input}: {why}")]
    Detect {
        /// The log as named by the user.
        input: String,
        /// Why not.
        why: DetectError,
    },
    /// Page tables beside it cannot be used.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// Not one line of it is an event.
    #[error("{input}: no ftrace log: none of its first {lines} lines is an event")]
    NoEvents {
        /// The log as named by the user.
        input: String,
        /// Lines looked at.
        lines: u64,
    },
}

/// What a replay leaves behind.
#[derive(Debug)]
pub struct Replayed {
    /// What was read.
    pub summary: Summary,
    /// What is mapped at the end.
    pub mappings: Mappings,
    /// Areas alive at the end: first address and bytes without guard page.
    pub areas: Vec<(u64, u64)>,
}

struct Kept {
    file: u32,
    number: u64,
    offset: u64,
    bytes: Vec<u8>,
    taken: u64,
    terminated: bool,
}

/// Replays the log at `path` (`-` for standard input) into `sink`.
///
/// # Errors
/// [`ReplayError`]. Events already sent before an error in the middle of a log stay sent.
pub fn replay(
    path: &Path,
    options: &Options,
    sink: &mut dyn Sink,
) -> Result<Replayed, ReplayError> {
    replay_files(&[path.to_owned()], options, sink)
}

/// Replays the files of one recording, merged by time: those of its CPUs. What lies beside the
/// first is taken to be of all.
///
/// # Errors
/// As [`replay`].
pub fn replay_files(
    paths: &[PathBuf],
    options: &Options,
    sink: &mut dyn Sink,
) -> Result<Replayed, ReplayError> {
    let stdin = paths.iter().any(|p| p.as_os_str() == "-");
    let side = match paths.first() {
        Some(first) if !stdin && !options.no_side_files => SideFiles::of(first, paths)?,
        _ => SideFiles::default(),
    };
    let mut evidence = None;
    if !stdin && !side.has_probes {
        evidence = Some(scan(Lines::open(paths)?, &side)?);
    }
    replay_reader(Lines::open(paths)?, options, side, evidence, sink)
}

/// Replays what a reader yields, with what is known beside it. Without `evidence` the first lines
/// tell.
///
/// # Errors
/// [`ReplayError`].
pub fn replay_reader(
    reader: impl Into<Lines>,
    options: &Options,
    side: SideFiles,
    evidence: Option<Evidence>,
    sink: &mut dyn Sink,
) -> Result<Replayed, ReplayError> {
    let mut reader = reader.into();
    let inputs = reader.inputs();
    let input = inputs.join(" + ");
    let mut ahead = VecDeque::new();
    let evidence = match evidence {
        Some(e) => e,
        None => look_ahead(&mut reader, &side, &mut ahead)?,
    };
    if evidence.events == 0 {
        return Err(ReplayError::NoEvents { input, lines: evidence.lines });
    }
    let kernel = detect::kernel(options, &side, &evidence)
        .map_err(|why| ReplayError::Detect { input: input.clone(), why })?;
    let probed = probed(&side, &evidence);
    let cpus = cpus(&side, &evidence);
    let (highest, gaps, who) = cpus;
    let header = header(&kernel, &probed, highest);
    let records = header.records;
    let mut not_seen = probed.not_seen(kernel.arch);
    not_seen.extend(limits::of_side_files(&side));
    let arch = kernel.arch;
    let version = kernel.release.clone();
    let mut because = kernel.because.clone();
    let number = highest - (gaps & below(highest.min(63))).count_ones();
    because.push(format!("{number} CPUs: {who}"));
    let mut lower = Lower::new(&inputs, kernel, header, probed, sink);
    lower.symbols = side.symbols.clone();
    lower.stop_at(options.stop_at_marker.clone());
    lower.without_cpus(gaps);
    let tables = lower.begin(&side)?;
    while let Some(kept) = ahead.pop_front() {
        if lower.stopped {
            break;
        }
        let Kept { file, number, offset, bytes, taken, terminated } = kept;
        lower.line(Line { file, number, offset, bytes: &bytes, taken, terminated });
    }
    while !lower.stopped {
        let Some(line) = reader.next_line()? else { break };
        lower.line(line);
    }
    let calls = lower.finish();
    if let Some(after) = side.tables_after.as_ref().filter(|_| lower.whole()) {
        lower.compare_tables(after)?;
    }
    if lower.direct_map().is_none() {
        not_seen.push("where the direct map is: aliases in it have no physical address".into());
    }
    if tables.is_none() {
        not_seen.push("what was mapped before the log began: no page tables beside it".into());
    }
    let merged = reader.counts();
    let place = |(file, line): (u32, u64)| match inputs.as_slice() {
        [_] => format!("line {line}"),
        many => format!("{}:{line}", many.get(file as usize).map_or("", String::as_str)),
    };
    let (sections, more) = (lower.sections.list(), lower.sections.more());
    let backwards = lower.counts.time_backwards;
    not_seen.extend(limits::of_order(sections, more, merged, backwards, place));
    let areas = lower.areas.counts();
    not_seen.extend(limits::of_log(&lower.accounting, areas, &calls, lower.counts));
    let dropped = lower.dropped();
    not_seen.extend(limits::of_size(&dropped, lower.without_arguments()));
    let summary = Summary {
        input,
        inputs,
        merged,
        arch,
        kernel: version,
        page_shift: lower.mappings.page_shift(),
        because,
        side_files: side.used,
        accounting: std::mem::take(&mut lower.accounting),
        sections: lower.sections.list().to_vec(),
        sections_more: lower.sections.more(),
        events: lower.event_counts(),
        markers: std::mem::take(&mut lower.markers),
        marker_count: lower.marker_count,
        areas,
        calls,
        owners: lower.take_owners(),
        conflicts: std::mem::take(&mut lower.conflicts),
        counts: lower.counts,
        dropped,
        tables,
        records,
        not_seen,
        stopped_at: lower.stopped_at,
    };
    let areas = lower.areas.iter().map(|(v, a)| (v, a.len)).collect();
    Ok(Replayed { summary, mappings: lower.mappings, areas })
}

/// Reads a whole log for its evidence.
fn scan(mut reader: Lines, side: &SideFiles) -> Result<Evidence, ReadError> {
    let mut evidence = Evidence::with(&side.symbols);
    while let Some(line) = reader.next_line()? {
        evidence.add(line.bytes);
    }
    Ok(evidence)
}

fn look_ahead(
    reader: &mut Lines,
    side: &SideFiles,
    ahead: &mut VecDeque<Kept>,
) -> Result<Evidence, ReadError> {
    let mut evidence = Evidence::with(&side.symbols);
    let mut bytes = 0;
    while ahead.len() < AHEAD_LINES && bytes < AHEAD_BYTES {
        let Some(line) = reader.next_line()? else { break };
        evidence.add(line.bytes);
        bytes += line.bytes.len();
        ahead.push_back(Kept {
            file: line.file,
            number: line.number,
            offset: line.offset,
            bytes: line.bytes.to_vec(),
            taken: line.taken,
            terminated: line.terminated,
        });
    }
    Ok(evidence)
}

fn probed(side: &SideFiles, evidence: &Evidence) -> Probed {
    let mut probed =
        Probed { entries: evidence.entries.clone(), returns: evidence.returns.clone() };
    let known = |name: &String| functions::by_name(name.as_bytes()).map(|f| f.name);
    probed.entries.extend(side.entry_probes.iter().filter_map(known));
    probed.returns.extend(side.return_probes.iter().filter_map(known));
    for name in &side.events {
        match name.strip_suffix("__ret").and_then(|n| functions::by_name(n.as_bytes())) {
            Some(f) => probed.returns.insert(f.name),
            None => match functions::by_name(name.as_bytes()) {
                Some(f) => probed.entries.insert(f.name),
                None => false,
            },
        };
    }
    probed
}

/// The highest number of a CPU and one more, the CPUs below that which there are not, and who says
/// so. A CPU that neither says nor shows is not taken to exist: a finding about it would rest on
/// nothing. The header counts CPUs; where a higher number occurs they are not those below it.
fn cpus(side: &SideFiles, evidence: &Evidence) -> (u32, u64, &'static str) {
    let named = |n: &u32| *n > evidence.highest_cpu;
    if let Some(n) = side.cpus.filter(named).filter(|_| side.cpu_gaps != 0) {
        return (n, side.cpu_gaps, "the file cpus");
    }
    if let Some(n) = evidence.cpus.filter(named) {
        return (n, 0, "the log's header");
    }
    if let Some(n) = side.cpus.filter(named) {
        return (n, side.cpu_gaps, "the file cpus");
    }
    let n = evidence.highest_cpu + 1;
    (n, below(n) & !evidence.seen_cpus, "the first lines show no other")
}

fn header(kernel: &Kernel, probed: &Probed, cpus: u32) -> Header {
    let mut features = Features::default_for(kernel.arch);
    if kernel.arch.is_powerpc() && probed.entries.contains("radix__flush_tlb_kernel_range") {
        features |= Features::PPC_RADIX;
    }
    let line = if kernel.arch.is_powerpc() { 128 } else { 64 };
    Header {
        arch: kernel.arch,
        kernel: Some(kernel.release.clone()),
        source: Source::Log,
        cpus: u16::try_from(cpus).unwrap_or(u16::MAX),
        page_shift: kernel.format.page_shift as u8,
        features,
        dline_bytes: line,
        iline_bytes: line,
        records: probed.kinds(kernel.arch),
        facts: Facts::TOTAL_ORDER,
    }
}

/// Where the direct map is, without page tables: only where addresses are as documented.
pub(crate) fn documented_direct_map(kernel: &Kernel, first_ram: Option<u64>) -> Option<u64> {
    match kernel.arch {
        Arch::X86_64 => Some(kernel.map()?.direct_map).filter(|_| kernel.nokaslr),
        // PAGE_OFFSET is where memory starts, rounded down to 1 GiB (ARM64_MEMSTART_ALIGN).
        Arch::Arm64 => {
            let start = first_ram? & !((1 << 30) - 1);
            Some(kernel.map()?.direct_map.wrapping_sub(start)).filter(|_| kernel.nokaslr)
        }
        Arch::Ppc64le | Arch::Ppc64 => Some(0xc000_0000_0000_0000),
        Arch::Ppc32 => None,
    }
}

impl Lower<'_> {
    /// Emits what was there before the first line.
    fn begin(&mut self, side: &SideFiles) -> Result<Option<tables::TablesSummary>, ReplayError> {
        let mut found = None;
        if let Some(path) = &side.tables {
            found = Some(tables::read(path, self.kernel.arch, &mut self.mappings)?);
        }
        let documented = documented_direct_map(&self.kernel, side.first_ram);
        self.documented = documented;
        self.set_direct_map(found.and_then(|t| t.direct_map).or(documented));
        // What the platform allows is said before the mappings that it allows.
        self.platform_windows();
        if found.is_some() {
            self.emit_mapped();
        }
        self.counts.modules_unplaced = self.areas_before(side) as u64;
        if found.is_some() {
            self.may_have_gone(&side.areas);
        }
        Ok(found)
    }
}
