//! The book of findings: drafts become findings with level, confidence and fingerprint, and those
//! that are one are joined.

use std::collections::BTreeMap;

use textbed_arch::Cite;
use textbed_event::Kind;

use crate::finding::{Blame, ChainStep, Finding, Site, Window};
use crate::fingerprint::Fingerprint;
use crate::joining::{Group, Target};
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;

/// Distinct findings kept; the rest is counted only.
const MAX_FINDINGS: usize = 4096;

/// What a rule says; the book adds the rest.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) rule: RuleId,
    /// What kind of operation is missing.
    pub(crate) operation: Operation,
    /// Nothing that the rule used rests on memory, a model or a calibration row.
    pub(crate) sure: bool,
    pub(crate) blame: Blame,
    pub(crate) message: String,
    pub(crate) at: Site,
    pub(crate) because: Option<Site>,
    /// The event that is the cause, where it is none that `because` shows.
    pub(crate) cause: Option<u64>,
    /// How many bytes were fetched, where fetches are what is wrong.
    pub(crate) fetched: u64,
    pub(crate) missing: Vec<String>,
    pub(crate) window: Window,
    pub(crate) chain: Vec<ChainStep>,
    pub(crate) notes: Vec<String>,
    pub(crate) help: Option<String>,
    /// Cites of this finding; the row's, if empty.
    pub(crate) cites: Vec<Cite>,
}

impl Draft {
    pub(crate) fn new(rule: RuleId, operation: Operation, message: String, at: Site) -> Self {
        Self {
            rule,
            operation,
            sure: true,
            blame: Blame::Caller,
            message,
            at,
            because: None,
            cause: None,
            fetched: 1,
            missing: Vec::new(),
            window: Window::Other,
            chain: Vec::new(),
            notes: Vec::new(),
            help: None,
            cites: Vec::new(),
        }
    }

    /// What was fetched, if a fetch is what is wrong and its cause is known. `text` writes an
    /// address as messages have it.
    pub(crate) fn target(&self, text: impl Fn(u64) -> String) -> Option<Target> {
        let (span, cause) = self.fetch()?;
        Some(Target { span, cause, text: text(span.first) })
    }

    fn fetch(&self) -> Option<(Span, u64)> {
        let cause = self.cause.or(self.because.as_ref().map(|b| b.seq))?;
        let virt = self.at.virt.filter(|_| self.at.kind == Kind::Fetch)?;
        Some((Span::of(virt.0, self.fetched.max(1))?, cause))
    }

    /// Hash of what stays the same from run to run: rule, architecture, and of each site the place,
    /// the calls around it and the kind of event; and the missing operations. No address, no time,
    /// nothing of the input's text. In a recorded log that is less than in a scenario, which says
    /// itself what each CPU does: no number of a CPU.
    pub(crate) fn fingerprint(&self, arch: &str, recorded: bool) -> String {
        let fetches = self.fetch().is_some();
        let mut hash = Fingerprint::new();
        hash.field(self.rule.name());
        hash.field(arch);
        for site in std::iter::once(&self.at).chain(&self.because) {
            let (region, offset) = match &site.place {
                Some(place) => (place.region.as_str(), place.offset),
                None => ("", None),
            };
            hash.field(region);
            // Of a routine that is one finding nobody can say which instruction it is.
            match offset.filter(|_| !fetches) {
                Some(offset) => hash.field(&format!("+{offset:#x}")),
                None => hash.field(""),
            }
            site.calls.iter().for_each(|c| hash.field(c));
            hash.field(&format!("{:?}", site.kind));
        }
        for missing in &self.missing {
            let text = without_addresses(missing);
            hash.field(&if recorded { without_cpus(&text) } else { text });
        }
        hash.finish()
    }

    /// What tells findings of one fingerprint apart within a run: where sites lie in regions of
    /// which another run may have another part there.
    pub(crate) fn apart(&self) -> Vec<u64> {
        if self.fetch().is_some() {
            return Vec::new();
        }
        let sites = std::iter::once(&self.at).chain(&self.because);
        sites.map(|s| s.place.as_ref().and_then(|p| p.moving).unwrap_or(u64::MAX)).collect()
    }
}

/// The text with each set of CPUs replaced by `cpus`.
fn without_cpus(text: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        let every = word == "every" && words.peek() == Some(&"cpu");
        if every {
            words.next();
        }
        if !every && !["cpu", "cpus"].contains(&word) {
            out.push(word);
            continue;
        }
        out.push("cpus");
        let counts = |w: &&str| w.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        while words.next_if(counts).is_some() {}
    }
    out.join(" ")
}

/// The text with each hexadecimal number replaced: missing operations may name an address.
fn without_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("0x") {
        out.push_str(&rest[..at]);
        out.push('@');
        rest = rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    out.push_str(rest);
    out
}

/// The findings so far.
#[derive(Default, Debug)]
pub(crate) struct Book {
    groups: Vec<Option<Group>>,
    /// By fingerprint and what tells apart.
    index: BTreeMap<(String, Vec<u64>), Vec<usize>>,
    pub(crate) left_off: u64,
}

impl Book {
    /// Enters a finding, or joins it with those that it is one with.
    pub(crate) fn enter(&mut self, finding: Finding, target: Option<Target>, apart: Vec<u64>) {
        let key = (finding.fingerprint.clone(), apart);
        let mut group = Group::new(finding, target);
        let places = self.index.entry(key).or_default();
        let mut first = None;
        places.retain(|at| {
            let Some(known) = self.groups.get_mut(*at) else { return false };
            let Some(met) = known.take_if(|known| known.meets(&group)) else { return true };
            group.absorb(met);
            let keep = first.is_none();
            first.get_or_insert(*at);
            keep
        });
        match first {
            Some(at) => {
                if let Some(slot) = self.groups.get_mut(at) {
                    *slot = Some(group);
                }
            }
            None if self.groups.len() < MAX_FINDINGS => {
                places.push(self.groups.len());
                self.groups.push(Some(group));
            }
            None => self.left_off = self.left_off.saturating_add(1),
        }
    }

    /// The findings as they are now, in order of their first event.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let groups = self.groups.iter().flatten().cloned();
        let mut findings: Vec<Finding> = groups.map(Group::into_finding).collect();
        findings.sort_by(|a, b| {
            (a.at.seq, a.rule, &a.fingerprint).cmp(&(b.at.seq, b.rule, &b.fingerprint))
        });
        number(&mut findings);
        findings
    }
}

/// Findings that nothing tells apart but addresses get fingerprints of their own by their order in
/// the input's text: that stays when lines or addresses move, and when a policy lets things happen
/// in another order.
fn number(findings: &mut [Finding]) {
    let mut alike: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (n, finding) in findings.iter().enumerate() {
        alike.entry(finding.fingerprint.clone()).or_default().push(n);
    }
    for (fingerprint, mut of) in alike.into_iter().filter(|(_, of)| of.len() > 1) {
        let text = |site: &Site| site.origin.map(|o| (o.file, o.offset));
        of.sort_by_key(|n| {
            findings.get(*n).map(|f| (text(&f.at), f.because.as_ref().map(text), f.at.seq))
        });
        for (nth, at) in of.into_iter().enumerate().skip(1) {
            let mut hash = Fingerprint::new();
            hash.field(&fingerprint);
            hash.field(&nth.to_string());
            if let Some(finding) = findings.get_mut(at) {
                finding.fingerprint = hash.finish();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_do_not_reach_the_fingerprint() {
        assert_eq!(without_addresses("invlpg 0xffff8880 on cpu 1"), "invlpg @ on cpu 1");
        assert_eq!(without_addresses("isb on cpu 1"), "isb on cpu 1");
    }

    #[test]
    fn numbers_of_a_recording_do_not_reach_it_either() {
        assert_eq!(without_cpus("isb on cpu 1"), "isb on cpus");
        assert_eq!(without_cpus("invlpg for cpus 0, 2, ... at once"), "invlpg for cpus at once");
        assert_eq!(without_cpus("invlpg for every cpu"), "invlpg for cpus");
        assert_eq!(without_cpus("every byte of cpuset 4"), "every byte of cpuset 4");
    }
}
