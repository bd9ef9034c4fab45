//! Which kernel a log is of: architecture, version, page size, address layout.
//!
//! Found from the files beside the log, from names of functions that one architecture alone has,
//! and from the addresses that occur. What the user says wins; what is found twice must agree; what
//! is not found is an error that names the option to give.
//!
//! Not modelled: addresses under KASLR are taken from page tables or not at all.

mod paging;

use crate::foreign::{Decoder, Foreign};
use crate::ftrace::{self, Parsed};
use crate::functions::{self, Function, Hit, On, Recent, Symbols};
use crate::side::SideFiles;
use rustc_hash::FxHashSet;
use std::collections::BTreeSet;
use textbed_arch::Arch;
use textbed_arch::paging::Format;
use textbed_kernel::{Caps, Fact, Layout, MapRow, Paging, Version, VersionError};

/// What the user said.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Architecture (`--arch`).
    pub arch: Option<Arch>,
    /// Kernel version (`--kernel`).
    pub kernel: Option<String>,
    /// `log2` of the base page (`--page-size`).
    pub page_shift: Option<u8>,
    /// Bits of an address that the page tables translate (`--va-bits`).
    pub va_bits: Option<u32>,
    /// Do not look at files beside the log.
    pub no_side_files: bool,
    /// Stop before the first marker with this text.
    pub stop_at_marker: Option<String>,
}

/// Why it cannot be said which kernel a log is of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// Nothing says the architecture.
    #[error("cannot tell the architecture of this log: give --arch (x86_64, arm64, ppc64le)")]
    UnknownArch,
    /// Two things say different architectures.
    #[error("{first} says {first_arch}, {second} says {second_arch}: give --arch")]
    ContradictoryArch {
        /// What says the first.
        first: String,
        /// The first.
        first_arch: Arch,
        /// What says the second.
        second: String,
        /// The second.
        second_arch: Arch,
    },
    /// Nothing says the kernel's version.
    #[error(
        "cannot tell the kernel version of this log (no file `version` beside it): give --kernel"
    )]
    UnknownKernel,
    /// What should be a version is none.
    #[error("{what}: {why}: give --kernel")]
    BadVersion {
        /// Where it is from.
        what: &'static str,
        /// What is wrong with its text.
        why: VersionError,
    },
    /// Two things say different versions.
    #[error("{first} says kernel {first_version}, {second} says {second_version}: give --kernel")]
    ContradictoryKernel {
        /// What says the first.
        first: &'static str,
        /// The first.
        first_version: String,
        /// What says the second.
        second: &'static str,
        /// The second.
        second_version: String,
    },
    /// Page tables of that kind are not modelled.
    #[error("{arch} with {} is not modelled", paging::text(*page_shift, *va_bits))]
    NotModelled {
        /// The architecture.
        arch: Arch,
        /// `log2` of the base page.
        page_shift: u8,
        /// The bits of an address; 0 where no choice has such pages.
        va_bits: u32,
    },
}

/// What the first lines of a log (or all of them) say.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Lines looked at.
    pub lines: u64,
    /// Events among them.
    pub events: u64,
    /// Functions and tracepoints that occur.
    pub entries: BTreeSet<&'static str>,
    /// Functions whose return occurs.
    pub returns: BTreeSet<&'static str>,
    /// Number of CPUs by the header.
    pub cpus: Option<u32>,
    /// Highest CPU seen.
    pub highest_cpu: u32,
    /// CPUs seen, one bit each; from 63 on they share a bit.
    pub seen_cpus: u64,
    /// A function that one architecture alone has: its name and architecture.
    pub by_function: Vec<(&'static str, Arch)>,
    /// An address that one architecture alone has.
    pub by_address: Option<(u64, Arch)>,
    /// Ends of mapped ranges seen, and of these not a multiple of 64 KiB.
    pub ranges: (u64, u64),
    /// The lowest address of the kernel's half that occurs in the first events, and the lowest
    /// that was mapped.
    pub lowest: (Option<u64>, Option<u64>),
    symbols: Symbols,
    decoder: Decoder,
    recent: Recent,
    /// Functions that were looked at, and whether at their return.
    known: FxHashSet<(*const Function, bool)>,
}

impl Evidence {
    /// Nothing yet, on a machine with these symbols.
    pub fn with(symbols: &Symbols) -> Self {
        Self { symbols: symbols.clone(), ..Self::default() }
    }

    /// Looks at a line.
    pub fn add(&mut self, line: &[u8]) {
        self.lines += 1;
        match ftrace::parse(line) {
            Parsed::Event(event) => self.event(&event),
            Parsed::Comment(ftrace::Comment::Entries { cpus, .. }) => self.cpus = cpus,
            Parsed::Unknown => {
                let mut decoder = std::mem::take(&mut self.decoder);
                match decoder.line(line) {
                    Foreign::Lines => {
                        for text in decoder.lines() {
                            if let Parsed::Event(event) = ftrace::parse(text) {
                                self.event(&event);
                            }
                        }
                    }
                    Foreign::Cpus(cpus) => self.cpus = Some(cpus),
                    _ => {}
                }
                self.decoder = decoder;
            }
            _ => {}
        }
    }

    fn event(&mut self, event: &ftrace::Event<'_>) {
        self.events += 1;
        self.highest_cpu = self.highest_cpu.max(event.cpu);
        self.seen_cpus |= 1 << event.cpu.min(63);
        let (function, returns) = match self.recent.classify(event, &self.symbols) {
            Hit::Entry(f) => (f, false),
            Hit::Return(f) => (f, true),
            Hit::Inside(_) | Hit::Unknown => return,
        };
        if self.known.insert((std::ptr::from_ref(function), returns)) {
            self.function(function, returns);
        }
        if function.meaning == functions::Meaning::MapPages {
            for key in [&b"start"[..], b"end"] {
                if let Some(value) = event.number(key) {
                    self.ranges.0 += 1;
                    self.ranges.1 += u64::from(value & 0xffff != 0);
                    lower(&mut self.lowest.1, value);
                }
            }
        }
        if self.events > ADDRESS_EVENTS && self.by_address.is_some() {
            return;
        }
        for address in event.args().filter_map(|a| ftrace::number(a.value)) {
            lower(&mut self.lowest.0, address);
            if self.by_address.is_none() {
                self.by_address = arch_of_address(address).map(|arch| (address, arch));
            }
        }
    }

    /// A function that occurs for the first time.
    fn function(&mut self, function: &'static Function, returns: bool) {
        if returns { &mut self.returns } else { &mut self.entries }.insert(function.name);
        let arch = match function.on {
            On::X86 => Some(Arch::X86_64),
            On::Arm64 => Some(Arch::Arm64),
            On::Power => Some(Arch::Ppc64le),
            On::All | On::X86Arm64 => None,
        };
        if let Some(arch) = arch
            && self.by_function.iter().all(|(_, a)| *a != arch)
        {
            self.by_function.push((function.name, arch));
        }
    }
}

/// So many events are looked at for their addresses: enough for an allocation and a change.
const ADDRESS_EVENTS: u64 = 1 << 16;

/// Notes an address if it is of the upper 64 PiB, where kernels of x86-64 and arm64 are, and lower
/// than what was noted.
fn lower(lowest: &mut Option<u64>, address: u64) {
    if address >> 56 == 0xff {
        *lowest = Some(lowest.map_or(address, |known| known.min(address)));
    }
}

/// The architecture whose kernel has this address, where one alone has. Sources: x86
/// `Documentation/arch/x86/x86_64/mm.rst`, arm64 `Documentation/arch/arm64/memory.rst`, powerpc
/// `book3s/64/radix.h`; linux-semantics as read at 6.12.
fn arch_of_address(address: u64) -> Option<Arch> {
    match address >> 48 {
        0xc000 | 0xc008 | 0xc00a | 0xc00c => Some(Arch::Ppc64le),
        // Direct map and vmalloc of x86 with 5 levels; the linear map of arm64 with 52 bits.
        0xff11..=0xffd1 => Some(Arch::X86_64),
        0xfff0..=0xfffe => Some(Arch::Arm64),
        // The lower half of the arm64 kernel's 48 bits: its linear map.
        0xffff if address & (1 << 47) == 0 => Some(Arch::Arm64),
        // x86 text and modules. (Its direct map and vmalloc lie where an arm64 kernel's image may
        // be under KASLR.)
        0xffff if (0xffff_ffff_8000_0000..0xffff_ffff_ff00_0000).contains(&address) => {
            Some(Arch::X86_64)
        }
        _ => None,
    }
}

/// The architecture that a name (`version`, file name of the configuration) has in it.
fn arch_of_text(text: &str) -> Option<Arch> {
    const WORDS: &[(&str, Arch)] = &[
        ("x86_64", Arch::X86_64),
        ("amd64", Arch::X86_64),
        ("aarch64", Arch::Arm64),
        ("arm64", Arch::Arm64),
        ("powerpc64le", Arch::Ppc64le),
        ("ppc64le", Arch::Ppc64le),
        ("ppc64el", Arch::Ppc64le),
        ("powerpc64", Arch::Ppc64),
        ("ppc64", Arch::Ppc64),
    ];
    WORDS.iter().find(|(w, _)| text.contains(w)).map(|(_, a)| *a)
}

/// The kernel that a log is of.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its architecture.
    pub arch: Arch,
    /// Its version.
    pub version: Version,
    /// The same as written: `6.12.117+deb12-amd64`.
    pub release: String,
    /// Its page-table format.
    pub format: &'static Format,
    /// Whether addresses are where the documentation has them (`nokaslr`).
    pub nokaslr: bool,
    /// Whether the command line takes protection of aliases away (`rodata=on`, `off`, `noalias`:
    /// arm64 then leaves its linear map alone).
    pub rodata_less: bool,
    /// How each was found, for the report.
    pub because: Vec<String>,
}

impl Kernel {
    /// Its page tables.
    #[must_use]
    pub fn paging(&self) -> Paging {
        let va_bits = self.format.va_bits;
        Paging { va_bits, ..Paging::new(self.arch, self.format.page_shift) }
    }

    /// Where things lie in it without KASLR, if that is known.
    pub(crate) fn map(&self) -> Option<&'static MapRow> {
        Layout::row(self.version, self.paging())
    }
}

/// Finds the kernel.
///
/// # Errors
/// [`DetectError`].
pub fn kernel(
    options: &Options,
    side: &SideFiles,
    evidence: &Evidence,
) -> Result<Kernel, DetectError> {
    let mut because = Vec::new();
    let arch = arch(options, side, evidence, &mut because)?;
    let (version, release) = version(options, side, &mut because)?;
    let page_shift = paging::page_shift(options, side, evidence, arch, &mut because);
    let va_bits = paging::va_bits(options, side, evidence, (arch, page_shift.into()), &mut because);
    let format = Paging { va_bits, ..Paging::new(arch, page_shift.into()) }
        .tree()
        .ok_or(DetectError::NotModelled { arch, page_shift, va_bits })?;
    let nokaslr =
        side.cmdline.as_deref().is_some_and(|c| c.split_whitespace().any(|word| word == "nokaslr"));
    if nokaslr {
        because.push("addresses: nokaslr (cmdline)".to_string());
    }
    let rodata = side.cmdline.as_deref().and_then(|c| {
        c.split_whitespace().filter_map(|word| word.strip_prefix("rodata=")).next_back()
    });
    let rodata_less = rodata.is_some_and(|value| match value {
        "full" => false,
        "on" => !Caps::new(version, arch).yes(Fact::RodataOnFull),
        _ => true,
    });
    if let Some(value) = rodata {
        because.push(format!("rodata={value} (cmdline)"));
    }
    Ok(Kernel { arch, version, release, format, nokaslr, rodata_less, because })
}

fn arch(
    options: &Options,
    side: &SideFiles,
    evidence: &Evidence,
    because: &mut Vec<String>,
) -> Result<Arch, DetectError> {
    let mut said: Vec<(String, Arch)> = Vec::new();
    if let Some(arch) = side.version.as_deref().and_then(arch_of_text) {
        said.push(("the file version".to_string(), arch));
    }
    if let Some(arch) = side.config_name.as_deref().and_then(arch_of_text) {
        said.push(("the name of the configuration".to_string(), arch));
    }
    for (name, arch) in &evidence.by_function {
        said.push((format!("the function {name}"), *arch));
    }
    if let Some((address, arch)) = evidence.by_address {
        said.push((format!("the address {address:#x}"), arch));
    }
    if let Some(arch) = options.arch {
        because.push(format!("architecture {arch}: as given"));
        for (what, other) in said.iter().filter(|(_, a)| !same_family(*a, arch)) {
            because.push(format!("but {what} says {other}"));
        }
        return Ok(arch);
    }
    let Some((first, first_arch)) = said.first().cloned() else {
        return Err(DetectError::UnknownArch);
    };
    if let Some((second, second_arch)) = said.iter().find(|(_, a)| !same_family(*a, first_arch)) {
        return Err(DetectError::ContradictoryArch {
            first,
            first_arch,
            second: second.clone(),
            second_arch: *second_arch,
        });
    }
    let all: Vec<&str> = said.iter().map(|(what, _)| what.as_str()).collect();
    because.push(format!("architecture {first_arch}: {}", all.join(", ")));
    Ok(first_arch)
}

/// Functions and addresses do not tell one Power from another.
fn same_family(a: Arch, b: Arch) -> bool {
    a == b || (a.is_powerpc() && b.is_powerpc())
}

/// The version and its text.
fn version(
    options: &Options,
    side: &SideFiles,
    because: &mut Vec<String>,
) -> Result<(Version, String), DetectError> {
    if let Some(text) = &options.kernel {
        because.push(format!("kernel {text}: as given"));
        return read_version("--kernel", text);
    }
    let mut found: Vec<(&'static str, (Version, String))> = Vec::new();
    if let Some(text) = &side.version {
        let word = text.strip_prefix("Linux version ").unwrap_or(text);
        let word = word.split_whitespace().next().unwrap_or_default();
        found.push(("the file version", read_version("the file version", word)?));
    }
    // A configuration may be called anything.
    if let Some(name) = side.config_name.as_deref().and_then(|n| n.strip_prefix("config-"))
        && let Ok(version) = read_version("the name of the configuration", name)
    {
        found.push(("the name of the configuration", version));
    }
    if let [(first, a), (second, b)] = found.as_slice()
        && series(a.0) != series(b.0)
    {
        return Err(DetectError::ContradictoryKernel {
            first,
            first_version: a.1.clone(),
            second,
            second_version: b.1.clone(),
        });
    }
    let (what, (version, text)) = found.into_iter().next().ok_or(DetectError::UnknownKernel)?;
    because.push(format!("kernel {text}: {what}"));
    Ok((version, text))
}

/// `6.12` of 6.12.117: what two files have to agree on.
fn series(version: Version) -> String {
    version.to_string().split(['.', '-']).take(2).collect::<Vec<_>>().join(".")
}

fn read_version(what: &'static str, text: &str) -> Result<(Version, String), DetectError> {
    let text = text.trim();
    let version = Version::parse(text).map_err(|why| DetectError::BadVersion { what, why })?;
    Ok((version, text.trim_start_matches('v').to_string()))
}

#[cfg(test)]
mod tests;
