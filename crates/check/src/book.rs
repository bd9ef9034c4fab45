//! The book of findings: drafts become findings with level, confidence and fingerprint, and equal
//! ones are counted.

use std::collections::BTreeMap;

use textbed_arch::Cite;
use textbed_event::Kind;

use crate::finding::{Blame, ChainStep, Finding, Site, Window};
use crate::fingerprint::Fingerprint;
use crate::rules::RuleId;

/// Distinct findings kept; the rest is counted only.
const MAX_FINDINGS: usize = 4096;

/// What a rule says; the book adds the rest.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) rule: RuleId,
    /// Nothing that the rule used rests on memory, a model or a calibration row.
    pub(crate) sure: bool,
    pub(crate) blame: Blame,
    pub(crate) message: String,
    pub(crate) at: Site,
    pub(crate) because: Option<Site>,
    pub(crate) missing: Vec<String>,
    pub(crate) window: Window,
    pub(crate) chain: Vec<ChainStep>,
    pub(crate) notes: Vec<String>,
    pub(crate) help: Option<String>,
    /// Cites of this finding; the row's, if empty.
    pub(crate) cites: Vec<Cite>,
}

impl Draft {
    pub(crate) fn new(rule: RuleId, message: String, at: Site) -> Self {
        Self {
            rule,
            sure: true,
            blame: Blame::Caller,
            message,
            at,
            because: None,
            missing: Vec::new(),
            window: Window::Other,
            chain: Vec::new(),
            notes: Vec::new(),
            help: None,
            cites: Vec::new(),
        }
    }

    /// Hash of what stays the same from run to run. In a recorded log that is less than in a
    /// scenario, which says itself what each CPU does: no number of a CPU, no order number.
    pub(crate) fn fingerprint(&self, arch: &str, recorded: bool) -> String {
        let mut hash = Fingerprint::new();
        hash.field(self.rule.name());
        hash.field(arch);
        for site in std::iter::once(&self.at).chain(&self.because) {
            let symbol = site.symbol.as_deref().unwrap_or("");
            // Instructions of one routine that are stale for one reason are one finding: where a
            // fetch window is wrong, the store tells the code apart, not the instruction.
            let why = self.because.is_some() || self.rule == RuleId::MissingContextSync;
            let fetched = site.kind == Kind::Fetch && why;
            hash.field(match symbol.rsplit_once('+') {
                Some((region, _)) if fetched => region,
                _ if recorded => unnumbered(symbol),
                _ => symbol,
            });
            site.calls.iter().for_each(|c| hash.field(c));
            hash.field(&format!("{:?}", site.kind));
        }
        for missing in &self.missing {
            let text = without_addresses(missing);
            hash.field(&if recorded { without_cpus(&text) } else { text });
        }
        hash.finish()
    }
}

/// `bpf` for `bpf #16+0x6e`: what is numbered in order of appearance has no name of its own, and
/// the place in it is that of another one next time.
fn unnumbered(symbol: &str) -> &str {
    match symbol.split_once(" #") {
        Some((owner, rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => owner,
        _ => symbol,
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
    findings: Vec<Finding>,
    index: BTreeMap<String, usize>,
    pub(crate) left_off: u64,
}

impl Book {
    /// Enters a finding, or counts it if an equal one is there. The surer one sets the confidence.
    pub(crate) fn enter(&mut self, finding: Finding) {
        if let Some(known) = self.index.get(&finding.fingerprint)
            && let Some(known) = self.findings.get_mut(*known)
        {
            known.count = known.count.saturating_add(finding.count);
            known.confidence = known.confidence.max(finding.confidence);
            known.level = known.level.max(finding.level);
        } else if self.findings.len() < MAX_FINDINGS {
            self.index.insert(finding.fingerprint.clone(), self.findings.len());
            self.findings.push(finding);
        } else {
            self.left_off = self.left_off.saturating_add(1);
        }
    }

    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The findings in order of their first event.
    pub(crate) fn finish(mut self) -> (Vec<Finding>, u64) {
        self.findings.sort_by(|a, b| {
            (a.at.seq, a.rule, &a.fingerprint).cmp(&(b.at.seq, b.rule, &b.fingerprint))
        });
        (self.findings, self.left_off)
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
        assert_eq!(unnumbered("bpf #16+0x6e"), "bpf");
        assert_eq!(unnumbered("module xfs+0x2000"), "module xfs+0x2000");
        assert_eq!(unnumbered("a #b+0x1"), "a #b+0x1");
    }
}
