//! Which function an event is of, where its name or place alone does not say: `trace-cmd report`
//! and `perf script` print addresses, and a probe may be called anything.
//!
//! By `kallsyms` beside the log (addresses of the functions of the table) and by `kprobe_events`
//! (names of probes).

use super::{ENTRY_BYTES, Function, by_name};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// What is known of one machine's symbols.
#[derive(Debug, Clone, Default)]
pub struct Symbols {
    by_address: BTreeMap<u64, &'static Function>,
    by_event: FxHashMap<Vec<u8>, &'static Function>,
}

impl Symbols {
    /// A line of `kallsyms`: `ADDRESS TYPE NAME`. Addresses that are hidden (0) are not taken.
    pub fn add_symbol(&mut self, line: &str) {
        // Most lines of a `kallsyms` are data, or of functions that no table knows.
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next())
        else {
            return;
        };
        if let Ok(address) = u64::from_str_radix(address, 16)
            && address != 0
            && matches!(kind, "t" | "T" | "w" | "W")
            && let Some(function) = by_name(name.split(".llvm.").next().unwrap_or(name).as_bytes())
        {
            self.by_address.insert(address, function);
        }
    }

    /// A probe: the name of its events and the function that it is on.
    pub fn add_probe(&mut self, event: &str, function: &str) {
        if let Some(function) = by_name(function.as_bytes()) {
            self.by_event.insert(event.as_bytes().to_vec(), function);
        }
    }

    /// The function that begins at that address, or up to [`ENTRY_BYTES`] before it, and how far.
    pub(super) fn at(&self, place: &[u8]) -> Option<(&'static Function, u64)> {
        let digits = place.strip_prefix(b"0x").unwrap_or(place);
        let address = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        let (first, function) = self.by_address.range(..=address).next_back()?;
        let offset = address - first;
        (offset <= ENTRY_BYTES).then_some((*function, offset))
    }

    /// The function whose probe has events of that name.
    pub(super) fn event(&self, name: &[u8]) -> Option<&'static Function> {
        self.by_event.get(name).copied()
    }
}

/// The function that an event's name tells, under the names that tools make: `NAME__ret` (ours),
/// `NAME__return` (perf probe), `NAME__entry` and `NAME__exit` (fprobe events), `p_NAME_0` and
/// `r_NAME_0` (kprobe events without a name), `NAME_1` (perf probe, the second of a function).
/// Source: Linux 6.12 kernel/trace/trace_kprobe.c, trace_fprobe.c, tools/perf/util/probe-event.c.
pub(super) fn by_event_name(name: &[u8]) -> Option<&'static Function> {
    if let Some(function) = by_name(name) {
        return Some(function);
    }
    let name = name.strip_prefix(b"p_").or(name.strip_prefix(b"r_")).unwrap_or(name);
    let name = match memchr::memrchr(b'_', name) {
        Some(at) if at + 1 < name.len() && name[at + 1..].iter().all(u8::is_ascii_digit) => {
            &name[..at]
        }
        _ => name,
    };
    [&b"__ret"[..], b"__return", b"__entry", b"__exit"]
        .iter()
        .find_map(|end| name.strip_suffix(*end))
        .map_or_else(|| by_name(name), by_name)
}
