//! Every scenario under kernels of other page tables: told with the same numbers of pages and of
//! large leaves it has the findings that it has with pages of 4 KiB, but for those that are listed,
//! each with the reason; and those that it has with 48 bits of addresses under more and fewer.
#![allow(clippy::unwrap_used)] // tests may

mod common;

use std::fmt::Write as _;

use common::{check, files, found, machines, read, root};
use textbed_arch::Arch;
use textbed_check::Reading;
use textbed_check::rules::RULES;
use textbed_event::Collect;
use textbed_kernel::{ADDRESS_SIZES, PAGE_SIZES, Pages, Paging, Version};
use textbed_scenario::{Loaded, RunOptions, load, run};

/// Headers, which have no sizes to be scaled.
const HEADERS: [&str; 10] =
    ["scenario", "about", "kernel", "arch", "cpus", "config", "feature", "fail", "allow", "expect"];

/// What differs: part of a file's path, architecture and page where it does, and why.
const DIFFERENT: &[(&str, Arch, &str, &str)] = &[
    (
        "bugs/W17-contiguous-in-place/bad.tb",
        Arch::Arm64,
        "16K",
        "a group is of 2 MiB, and the area of 256 KiB: no entry of it has the contiguous bit until \
         the one does that is stored",
    ),
    (
        "bugs/W17-contiguous-in-place/bad.tb",
        Arch::Arm64,
        "64K",
        "a group is of 2 MiB, and the area of 1 MiB: no entry of it has the contiguous bit until \
         the one does that is stored",
    ),
    (
        "bugs/W22-hint-of-level-0/bad.tb",
        Arch::Arm64,
        "64K",
        "the operand of its TLBI names pages of 4 KiB, and a level of those",
    ),
    (
        "bugs/W22-hint-of-level-0/good.tb",
        Arch::Arm64,
        "16K",
        "the operand of its TLBI names pages of 4 KiB, and a level of those",
    ),
    (
        "bugs/W22-hint-of-level-0/good.tb",
        Arch::Arm64,
        "64K",
        "the operand of its TLBI names pages of 4 KiB, and a level of those",
    ),
    (
        "rules/walk-after-free/bad.tb",
        Arch::Ppc64le,
        "64K",
        "the first area has 65 pages, of 256 that a node keeps the addresses of, so the large leaf \
         comes elsewhere; with 4 KiB it has 1025",
    ),
    (
        "bugs/A24-table-freed/bad.tb",
        Arch::Ppc64le,
        "64K",
        "the first area has 65 pages, of 256 that a node keeps the addresses of, so the large leaf \
         comes elsewhere; with 4 KiB it has 1025",
    ),
    (
        "vmalloc-exec-2022.tb",
        Arch::Arm64,
        "64K",
        "the posted allocator takes 512 MiB at a time, the modules' area has 128 MiB: nothing is \
         got, so no result is left to be ignored",
    ),
];

/// Kernels whose large leaf is larger than this are left to files without one: 512 MiB of small
/// pages, changed and flushed one by one, take minutes.
const LARGEST: u64 = 64 << 20;

/// A scenario's text with sizes in bytes that are as many pages, or as many large leaves, as they
/// are with pages of 4 KiB: `4K` is a page and `2M` a large leaf of 512 pages.
/// Also, whether it has any of the latter.
fn scaled(text: &str, pages: Pages) -> (String, bool) {
    let (mut out, mut large) = (String::new(), false);
    let mut header = false;
    for line in text.lines() {
        let first = line.split_whitespace().next().unwrap_or("");
        let indented = line.starts_with(char::is_whitespace);
        header = if indented { header } else { HEADERS.contains(&first) };
        let line = if header { line.to_owned() } else { code(line, pages, &mut large) };
        let _ = writeln!(out, "{line}");
    }
    (out, large)
}

/// One line, up to its comment.
fn code(line: &str, pages: Pages, large: &mut bool) -> String {
    let (code, comment) = line.split_once("# ").unwrap_or((line, ""));
    let (mut out, mut word) = (String::new(), String::new());
    for c in code.chars().chain(['\n']) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        out.push_str(&number(&word, pages, large).unwrap_or_else(|| word.clone()));
        word.clear();
        if c != '\n' {
            out.push(c);
        }
    }
    if comment.is_empty() { out } else { format!("{out}# {comment}") }
}

/// A number that counts bytes or pages, in the other kernel's.
fn number(word: &str, pages: Pages, large: &mut bool) -> Option<String> {
    const LARGE: u64 = 2 << 20;
    let unit = |suffix, shift| Some(word.strip_suffix(suffix)?.parse::<u64>().ok()? << shift);
    let plain = word.parse::<u64>().ok();
    if let Some(n) = plain.filter(|n| (512..4096).contains(n) && n % 512 == 0) {
        *large = true;
        return Some((n / 512 * pages.per_table()).to_string());
    }
    let bytes = unit('K', 10).or_else(|| unit('M', 20)).or(plain).filter(|n| *n >= 4096)?;
    let scaled = if bytes.is_multiple_of(LARGE) {
        *large = true;
        bytes / LARGE * pages.pmd_bytes()
    } else {
        bytes.is_multiple_of(4096).then(|| bytes / 4096 * pages.bytes())?
    };
    Some(scaled.to_string())
}

/// How a run ended and what was found, as lines without addresses.
fn told(loaded: &Loaded, on: (Arch, Version), config: &[(&str, &str)]) -> Vec<String> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let config = config.iter().map(own).collect();
    let options = RunOptions { config, ..RunOptions::new(on.0, on.1) };
    let mut seen = Collect::default();
    let end = match run(loaded, &options, &mut seen) {
        Ok(end) => end,
        Err(error) => return vec![format!("{error:?}")],
    };
    let report = check(&seen, Reading::Mapped);
    let mut lines: Vec<String> = found(loaded, &report)
        .into_iter()
        .map(|f| {
            format!("{}{} {:?} {:?}", f.rule, if f.possible { "?" } else { "" }, f.missing, f.label)
        })
        .collect();
    lines.sort();
    lines.insert(0, format!("{:?}, {} asserts failed", end.outcome.end(), end.asserts_failed));
    lines
}

#[test]
fn findings_do_not_depend_on_the_size_of_pages() {
    let rules: Vec<&str> = RULES.iter().map(|r| r.name).collect();
    let dir = root().join("scenarios");
    let (mut compared, mut equal, mut wrong) = (0, 0, Vec::new());
    let mut used = vec![false; DIFFERENT.len()];
    for path in files(&dir) {
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = read(&path);
        let name = path.strip_prefix(&dir).unwrap().display().to_string();
        for on in machines(&loaded) {
            let others = PAGE_SIZES.iter().filter(|r| r.shift > 12 && r.archs.contains(&on.0));
            let mut base = None;
            for row in others {
                let pages = Pages::of(Paging::new(on.0, row.shift)).unwrap();
                let (text, large) = scaled(&text, pages);
                if large && pages.pmd_bytes() > LARGEST {
                    continue;
                }
                let (text, _) = load(&name, text, &rules).unwrap();
                // Room for large leaves.
                let config = [("page_size", row.word), ("memory_mib", "2048")];
                let config = if text_sets_memory(&loaded) { &config[..1] } else { &config[..] };
                let here = told(&text, on, config);
                let base = base.get_or_insert_with(|| told(&loaded, on, &[]));
                compared += 1;
                let listed = DIFFERENT.iter().position(|(part, arch, word, _)| {
                    name.starts_with(part) && *arch == on.0 && *word == row.word
                });
                match (*base == here, listed) {
                    (true, None) => equal += 1,
                    (false, Some(n)) => used[n] = true,
                    (same, _) => wrong.push(format!(
                        "{name} on {} {} {}: same {same}\n  4K {base:?}\n  {here:?}",
                        on.0, on.1, row.word
                    )),
                }
            }
        }
    }
    println!("{compared} compared, {equal} equal");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (row, used) in DIFFERENT.iter().zip(used) {
        assert!(used, "nothing differs: {row:?}");
    }
    assert!(compared > 400 && equal + DIFFERENT.len() <= compared, "{compared} {equal}");
}

fn text_sets_memory(loaded: &Loaded) -> bool {
    loaded.text().contains("config memory_mib")
}

#[test]
fn findings_do_not_depend_on_the_bits_of_addresses() {
    let dir = root().join("scenarios");
    let (mut compared, mut wrong) = (0, Vec::new());
    for path in files(&dir) {
        let loaded = read(&path);
        let name = path.strip_prefix(&dir).unwrap().display().to_string();
        // Pages or bits of their own, or addresses of a kernel with 48 bits.
        let own = ["config page_size", "config va_bits", "_PAGES", "0xffff"];
        if own.iter().any(|own| loaded.text().contains(own)) {
            continue;
        }
        for on in machines(&loaded) {
            let others = ADDRESS_SIZES.iter().filter(|row| {
                (row.arch, row.page_shift) == (on.0, 12)
                    && row.bits != 48
                    && row.since.is_none_or(|since| on.1 >= since)
            });
            let mut base = None;
            for row in others {
                let here = told(&loaded, on, &[("va_bits", row.word)]);
                let base = base.get_or_insert_with(|| told(&loaded, on, &[]));
                compared += 1;
                if *base != here {
                    let (arch, version) = (on.0, on.1);
                    let bits = row.word;
                    wrong
                        .push(format!("{name} on {arch} {version} {bits}\n  {base:?}\n  {here:?}"));
                }
            }
        }
    }
    println!("{compared} compared, {} equal", compared - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 400, "{compared}");
}
