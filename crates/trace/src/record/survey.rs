//! What a kernel lacks for a recording, by its `kallsyms` or its configuration.

use super::{Plan, Purpose};
use std::collections::{BTreeMap, BTreeSet};

/// What the file was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// `/proc/kallsyms` or `System.map`.
    Symbols,
    /// A kernel configuration.
    Config,
}

/// Why something will be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No such symbol.
    NoSymbol,
    /// Only under a name that a compiler made of it, with other arguments.
    Renamed(String),
    /// An option is not set.
    Unset(&'static str),
}

/// A thing that will be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The function, or what the option gives.
    pub what: String,
    /// What it would be recorded for.
    pub purpose: Option<Purpose>,
    /// Why.
    pub why: Why,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// What was read.
    pub evidence: Evidence,
    /// Probes or options that were looked for.
    pub wanted: usize,
    /// What of them is missing.
    pub missing: Vec<Missing>,
    /// Purposes for which nothing is left.
    pub blind: Vec<Purpose>,
    /// Whether nothing can be recorded at all.
    pub impossible: bool,
}

/// An option, what it gives, and whether nothing works without it.
struct Wanted {
    options: &'static [&'static str],
    gives: &'static str,
    needed: bool,
}

/// What a recording asks of a configuration; of several options one is enough. Source: Linux 6.12
/// kernel/trace/Kconfig, arch/Kconfig, init/Kconfig.
const OPTIONS: &[Wanted] = &[
    Wanted { options: &["CONFIG_FTRACE"], gives: "tracefs", needed: true },
    Wanted {
        options: &["CONFIG_KPROBE_EVENTS", "CONFIG_FPROBE_EVENTS"],
        gives: "probes of functions",
        needed: true,
    },
    Wanted { options: &["CONFIG_KALLSYMS"], gives: "names of functions", needed: true },
    Wanted {
        options: &["CONFIG_KRETPROBES", "CONFIG_FPROBE_EVENTS"],
        gives: "results of functions",
        needed: false,
    },
    Wanted { options: &["CONFIG_MODULES"], gives: "modules", needed: false },
    Wanted { options: &["CONFIG_BPF_JIT"], gives: "BPF programs as machine code", needed: false },
];

/// The text was neither `kallsyms` nor a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a list of symbols (ADDRESS TYPE NAME) nor a configuration (CONFIG_NAME=y)")]
pub struct NotKnown;

/// Looks at the text of `kallsyms`, `System.map` or a configuration.
///
/// # Errors
/// [`NotKnown`] if it is none of these.
pub fn survey(plan: &Plan, text: &str) -> Result<Survey, NotKnown> {
    let lines = || text.lines().map(str::trim).filter(|l| !l.is_empty());
    if lines().any(|l| l.starts_with("CONFIG_") && l.contains('=')) {
        return Ok(config(text));
    }
    let symbols: BTreeSet<&str> = lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?;
            let kind = words.next()?;
            let name = words.next()?;
            u64::from_str_radix(address, 16).ok()?;
            matches!(kind, "t" | "T" | "w" | "W").then_some(name)
        })
        .collect();
    if symbols.is_empty() {
        return Err(NotKnown);
    }
    Ok(functions(plan, &symbols))
}

fn functions(plan: &Plan, symbols: &BTreeSet<&str>) -> Survey {
    let mut missing = Vec::new();
    let mut left: BTreeMap<Purpose, usize> = BTreeMap::new();
    for planned in &plan.probes {
        let name = planned.probe.function;
        let purpose = planned.purpose();
        let count = left.entry(purpose).or_default();
        // Names that a compiler made of it sort right behind `NAME.`.
        let dotted = format!("{name}.");
        let others = symbols.range(dotted.as_str()..).take_while(|s| s.starts_with(&dotted));
        let same = symbols.contains(name)
            || others.clone().any(|s| s[dotted.len()..].starts_with("llvm."));
        if same {
            *count += 1;
            continue;
        }
        let why =
            others.into_iter().next().map_or(Why::NoSymbol, |s| Why::Renamed((*s).to_string()));
        missing.push(Missing { what: name.to_string(), purpose: Some(purpose), why });
    }
    let blind = left.iter().filter(|(_, n)| **n == 0).map(|(p, _)| *p).collect();
    Survey {
        evidence: Evidence::Symbols,
        wanted: plan.probes.len(),
        impossible: missing.len() == plan.probes.len(),
        missing,
        blind,
    }
}

fn config(text: &str) -> Survey {
    let set = |option: &str| {
        text.lines().any(|line| {
            line.trim()
                .strip_prefix(option)
                .and_then(|rest| rest.strip_prefix('='))
                .is_some_and(|value| value != "n")
        })
    };
    let mut missing = Vec::new();
    let mut impossible = false;
    for wanted in OPTIONS {
        if !wanted.options.iter().any(|o| set(o)) {
            impossible |= wanted.needed;
            missing.push(Missing {
                what: wanted.gives.to_string(),
                purpose: None,
                why: Why::Unset(wanted.options[0]),
            });
        }
    }
    Survey {
        evidence: Evidence::Config,
        wanted: OPTIONS.len(),
        missing,
        blind: Vec::new(),
        impossible,
    }
}
