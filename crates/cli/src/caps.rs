//! `textbed caps`: what an architecture and kernel version are modelled to do, with sources.
//!
//! Six tables for each architecture (page-table formats, sizes of pages with what follows from
//! them, facts, options, promises and needs of calls) and one list of the sources that they name
//! by number.

use anyhow::Result;
use textbed_arch::hashed::HASH_FORMATS;
use textbed_arch::paging::FORMATS;
use textbed_arch::{Arch, Cite};
use textbed_kernel::{
    BEHIND_MEMORY, CALLS, Caps, Fact, Layout, OPTIONS, PAGE_SIZES, Pages, Paging, Version,
    booted_formats, find_call, needs_of, promises_of, simulated,
};
use textbed_report::text::{Table, wrap};

use crate::args::CapsArgs;
use crate::options;
use crate::output::Out;
use crate::status::Status;

/// Sources by number, in the order in which they are named.
#[derive(Default)]
struct Sources {
    cites: Vec<Cite>,
}

impl Sources {
    /// The number of a source, in brackets, with how far it was checked.
    fn number(&mut self, cite: Cite) -> String {
        let known = self.cites.iter().position(|c| *c == cite);
        let index = known.unwrap_or_else(|| {
            self.cites.push(cite);
            self.cites.len() - 1
        });
        format!("{} [{}]", cite.evidence, index + 1)
    }

    fn list(&self, width: usize) -> String {
        let line = |(n, cite): (usize, &Cite)| {
            let head = format!("[{}] ", n + 1);
            let text = wrap(&format!("{head}{}", cite.source), width, head.len());
            format!("{text}\n")
        };
        self.cites.iter().enumerate().map(line).collect()
    }
}

/// `textbed caps`.
pub(crate) fn caps(args: &CapsArgs, out: &mut Out) -> Result<Status> {
    let kernel = options::kernel(&args.kernel)?;
    let archs = options::archs(&args.arch)?.unwrap_or_else(|| options::SIMULATED.to_vec());
    for (n, arch) in archs.into_iter().enumerate() {
        if n > 0 {
            out.text("\n")?;
        }
        let can_run = simulated().any(|v| v == kernel) && !booted_formats(arch).is_empty();
        let how = if can_run { "scenarios and logs" } else { "logs; scenarios are not modelled" };
        let mut sources = Sources::default();
        let tables = [
            formats_table(arch, &mut sources, out),
            pages_table(arch, kernel, &mut sources, out),
            facts_table(arch, kernel, &mut sources, out),
            options_table(arch, &mut sources, out),
            promises_table(arch, kernel, &mut sources, out),
            needs_table(arch, kernel, &mut sources, out),
        ];
        out.text(&format!("{arch}, kernel {kernel} ({how})\n\n{}", tables.join("\n")))?;
        out.text(&format!("\nsources\n{}", sources.list(out.style().width)))?;
    }
    Ok(Status::Clean)
}

/// Formats of page tables, and whether a kernel can be simulated on them.
fn formats_table(arch: Arch, sources: &mut Sources, out: &Out) -> String {
    let mut table = Table::new(["page tables", "leaves", "simulated kernels", "source"]);
    let booted = booted_formats(arch);
    let used = |name| (if booted.contains(&name) { "yes" } else { "no" }).to_owned();
    // Every 64-bit Power shares the formats of one.
    let shared = if arch == Arch::Ppc64 { Arch::Ppc64le } else { arch };
    for format in FORMATS.into_iter().filter(|f| f.arch == shared) {
        let leaves: Vec<String> = format.leaf_shifts().map(size).collect();
        table.row([
            format.name.to_owned(),
            leaves.join(", "),
            used(format.name),
            sources.number(format.cite),
        ]);
    }
    for format in HASH_FORMATS.into_iter().filter(|_| arch.is_powerpc()) {
        if (format.word_bytes == 4) != (arch == Arch::Ppc32) {
            continue;
        }
        let mut shifts: Vec<u32> = format.sizes.iter().map(|s| s.shift).collect();
        shifts.sort_unstable_by(|a, b| b.cmp(a));
        shifts.dedup();
        let leaves: Vec<String> = shifts.into_iter().map(size).collect();
        table.row([
            format.name.to_owned(),
            leaves.join(", "),
            used(format.name),
            sources.number(format.cite),
        ]);
    }
    out.laid_out(&table)
}

/// The bytes of a leaf, by their `log2`.
fn size(shift: u32) -> String {
    match shift {
        ..20 => format!("{}k", 1u64 << (shift.max(10) - 10)),
        20..30 => format!("{}m", 1u64 << (shift - 20)),
        30..40 => format!("{}g", 1u64 << (shift - 30)),
        _ => format!("{}t", 1u64 << (shift - 40)),
    }
}

/// What the size of the kernel's pages decides: one row for each that the architecture has, and one
/// for where things lie then.
fn pages_table(arch: Arch, kernel: Version, sources: &mut Sources, out: &Out) -> String {
    let caps = Caps::new(kernel, arch);
    let mut table = Table::new([
        "pages",
        "page tables",
        "vmalloc's leaf",
        "its group",
        "pages flushed singly",
        "bpf pack",
        "source",
    ]);
    let mut places =
        Table::new(["pages", "page tables", "vmalloc area", "patcher's alias", "source"]);
    let none = || "-".to_owned();
    for paging in Paging::all(arch) {
        let shift = paging.page_shift;
        let cite = PAGE_SIZES.iter().find(|r| r.archs.contains(&arch) && r.shift == shift);
        let (Some((pages, tree)), Some(map), Some(row)) =
            (Pages::of(paging).zip(paging.tree()), Layout::row(kernel, paging), cite)
        else {
            continue;
        };
        let large = size(pages.pmd_shift());
        let packs = find_call("bpf_prog_pack_alloc", kernel, arch).is_ok();
        let pack = match caps.word(Fact::PackSize) {
            _ if !packs => none(),
            "2m-by-node" => "2m".to_owned(),
            "probe" if paging.hashed || !caps.yes(Fact::HugeVmalloc) => size(shift),
            _ => large.clone(),
        };
        let group = pages.cont_shift().filter(|_| caps.yes(Fact::ContPte));
        let huge = caps.yes(Fact::HugeVmalloc) && !paging.hashed;
        let singly = (arch == Arch::Arm64).then(|| pages.per_table().to_string());
        let alias = (map.patch != 0).then(|| format!("{:#x}", map.patch));
        table.row([
            size(shift),
            tree.name.to_owned(),
            if huge { large } else { none() },
            group.map_or_else(none, size),
            singly.unwrap_or_else(none),
            pack,
            sources.number(row.cite),
        ]);
        places.row([
            size(shift),
            tree.name.to_owned(),
            match map.vmalloc {
                (BEHIND_MEMORY, end) => format!("behind memory to {end:#x}"),
                (start, end) => format!("{start:#x} to {end:#x}"),
            },
            alias.unwrap_or_else(none),
            sources.number(map.cite),
        ]);
    }
    format!("{}\n{}", out.laid_out(&table), out.laid_out(&places))
}

/// What differs by version or architecture, with its value here.
fn facts_table(arch: Arch, kernel: Version, sources: &mut Sources, out: &Out) -> String {
    let caps = Caps::new(kernel, arch);
    let mut table = Table::new(["fact", "value", "since", "until", "source"]);
    let mut texts = String::new();
    for fact in Fact::ALL {
        texts.push_str(&wrap(&format!("{}: {}", fact.name(), fact.doc()), out.style().width, 4));
        texts.push('\n');
        let version = |v: Option<Version>| v.map_or(String::new(), |v| v.to_string());
        match caps.get(*fact) {
            Some(row) => table.row([
                fact.name().to_owned(),
                row.value.to_string(),
                version(row.since),
                version(row.until),
                sources.number(row.cite),
            ]),
            // The trees on both sides differ, and which version changed it was not found out.
            None => table.row([fact.name(), "not known"]),
        }
    }
    format!("{}\n{texts}", out.laid_out(&table))
}

/// The options of an architecture, with their defaults.
fn options_table(arch: Arch, sources: &mut Sources, out: &Out) -> String {
    let mut table = Table::new(["option", "default", "source"]);
    let mut texts = String::new();
    for option in OPTIONS.iter().filter(|o| o.archs.contains(&arch)) {
        table.row([
            option.name.to_owned(),
            option.default_for(arch).to_owned(),
            sources.number(option.cite),
        ]);
        let head = format!("{}: ", option.name);
        texts.push_str(&wrap(&format!("{head}{}", option.doc), out.style().width, 4));
        texts.push('\n');
    }
    format!("{}\n{texts}", out.laid_out(&table))
}

/// What calls promise when they succeed.
fn promises_table(arch: Arch, kernel: Version, sources: &mut Sources, out: &Out) -> String {
    let mut table = Table::new(["call", "promises", "source"]);
    for call in CALLS {
        if !find_call(call.name, kernel, arch).is_ok_and(|here| std::ptr::eq(here, call)) {
            continue;
        }
        for row in promises_of(call.name, arch, kernel) {
            let source = sources.number(row.cite);
            table.row([call.name.to_owned(), row.promise.text().to_owned(), source]);
        }
    }
    out.laid_out(&table)
}

/// What calls ask of the context that they are called in.
fn needs_table(arch: Arch, kernel: Version, sources: &mut Sources, out: &Out) -> String {
    use textbed_kernel::CallNeed;

    let mut table = Table::new(["call", "needs", "source"]);
    for call in CALLS {
        let Ok(here) = find_call(call.name, kernel, arch) else { continue };
        if !std::ptr::eq(here, call) {
            continue;
        }
        for need in call.needs {
            let what = match need {
                CallNeed::Lock(name) => format!("{name} held"),
                CallNeed::Context(what) => what.text().to_owned(),
            };
            table.row([call.name.to_owned(), what, sources.number(call.cite)]);
        }
        for row in needs_of(call.name, arch, kernel) {
            let source = sources.number(row.cite);
            table.row([call.name.to_owned(), row.need.text().to_owned(), source]);
        }
    }
    out.laid_out(&table)
}
