//! One scenario on one machine, run without some of its synchronisation: what is found then that
//! is not found with all of it, and where nothing is, what does the same.
//!
//! A set is run under `newest`, `stalest` and a seed; what any of them finds counts. A piece is
//! redundant to others if nothing is found without it, and more is found without it and them than
//! without them. Where something is found without them, too, the seed does not count for that: with
//! one piece more left out it decides otherwise, and finds other things by chance.
//!
//! The search leaves out, by halves, whatever is not missed, until the piece asked about is; what
//! is not needed for that is put back. Then it tries single pieces whose lack is found too, and
//! then all of one kind on one CPU, without those that are not needed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use textbed_check::{Checker, Confidence, Level, Options};
use textbed_event::{Collect, Tee, elide::Elided};
use textbed_scenario::{
    Loaded, Outcome, PolicyChoice, RunError, RunOptions, SyncSeen, SyncSite, run,
};

/// Who decides in the runs that count. One is not enough for the search either: under `newest`
/// nothing shows of two barriers of which each covers for the other.
const POLICIES: [PolicyChoice; 3] =
    [PolicyChoice::Newest, PolicyChoice::Stalest, PolicyChoice::Random(1)];

/// How many of them leave nothing to chance, so that two runs can be compared.
const STEADY: usize = 2;

/// What is found of one rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OfRule {
    /// How sure the surest is.
    pub(crate) confidence: Confidence,
    fingerprints: BTreeSet<String>,
}

impl OfRule {
    fn add(&mut self, other: &OfRule) {
        self.confidence = self.confidence.max(other.confidence);
        self.fingerprints.extend(other.fingerprints.iter().cloned());
    }
}

/// What became of leaving something out.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Without {
    /// What is found, beyond what is found anyway.
    pub(crate) found: BTreeMap<&'static str, OfRule>,
    /// Whether an assertion of the scenario failed.
    pub(crate) wrong: bool,
    /// How a run ended, if not as it does with everything.
    pub(crate) ended: Option<String>,
}

impl Without {
    /// Whether nothing tells that something is missing.
    pub(crate) fn silent(&self) -> bool {
        self.found.is_empty() && !self.wrong && self.ended.is_none()
    }

    fn add(&mut self, other: Without) {
        for (rule, of) in other.found {
            self.found.entry(rule).and_modify(|all| all.add(&of)).or_insert(of);
        }
        self.wrong |= other.wrong;
        self.ended = other.ended.or(self.ended.take());
    }

    /// Rules of which more is found than in `less`.
    pub(crate) fn more_than(&self, less: &Without) -> Vec<&'static str> {
        let count = |w: &Without, rule: &str| w.found.get(rule).map_or(0, |f| f.fingerprints.len());
        self.found.keys().copied().filter(|rule| count(self, rule) > count(less, rule)).collect()
    }
}

/// A scenario on a machine.
pub(crate) struct Story<'a> {
    pub(crate) loaded: &'a Loaded,
    /// How it is run; policy and pieces left out are put in for each run.
    pub(crate) how: RunOptions,
    options: Options,
    /// Findings of the whole scenario, by fingerprint, and whether an assertion fails in it.
    usual: (BTreeSet<String>, bool),
    /// What is noted in its runs anyway.
    usual_notes: BTreeSet<String>,
    /// What synchronises.
    pub(crate) syncs: Vec<SyncSeen>,
    /// The events of the run with everything, under `newest`.
    pub(crate) events: Collect,
    known: RefCell<BTreeMap<(Vec<SyncSite>, usize), Without>>,
}

/// One run.
struct Ran {
    found: Vec<(String, &'static str, Confidence)>,
    failed: bool,
    outcome: Outcome,
    notes: Vec<String>,
    syncs: Vec<SyncSeen>,
}

/// What is looked at one by one: what repeats itself at one place is one piece.
fn pieces(seen: Vec<SyncSeen>) -> Vec<SyncSeen> {
    let every = |s: &SyncSeen| SyncSite { nth: SyncSite::ALL, ..s.site.clone() };
    let repeats = seen.iter().filter(|s| s.site.nth == SyncSite::REST);
    let repeats: BTreeSet<SyncSite> = repeats.map(every).collect();
    let one = |s: SyncSeen| match repeats.contains(&every(&s)) {
        true if s.site.nth == 1 => Some(SyncSeen { site: every(&s), ..s }),
        true => None,
        false => Some(s),
    };
    seen.into_iter().filter_map(one).collect()
}

impl<'a> Story<'a> {
    /// Runs the scenario as it is.
    ///
    /// # Errors
    /// It cannot be run so.
    pub(crate) fn new(
        loaded: &'a Loaded,
        how: RunOptions,
        options: Options,
    ) -> Result<Self, RunError> {
        let mut story = Self {
            loaded,
            how,
            options,
            usual: (BTreeSet::new(), false),
            usual_notes: BTreeSet::new(),
            syncs: Vec::new(),
            events: Collect::default(),
            known: RefCell::default(),
        };
        for policy in POLICIES {
            let mut events = Collect::default();
            let ran = story.run(&[], policy, Some(&mut events))?;
            story.usual.0.extend(ran.found.into_iter().map(|(fingerprint, ..)| fingerprint));
            story.usual.1 |= ran.failed;
            story.usual_notes.extend(ran.notes);
            if policy == PolicyChoice::Newest {
                (story.syncs, story.events) = (pieces(ran.syncs), events);
            }
        }
        Ok(story)
    }

    fn run(
        &self,
        without: &[SyncSite],
        policy: PolicyChoice,
        events: Option<&mut Collect>,
    ) -> Result<Ran, RunError> {
        let options = RunOptions { policy, left_out: Some(without.to_vec()), ..self.how.clone() };
        let mut checker = Checker::new(self.options.clone());
        // Findings are all that is compared, and no event withheld changes one.
        let mut watch = Elided::new(&mut checker);
        let end = match events {
            Some(events) => run(self.loaded, &options, &mut Tee(&mut watch, events)),
            None => run(self.loaded, &options, &mut watch),
        };
        watch.finish();
        let (end, report) = (end?, checker.finish());
        let shown = report.findings.into_iter().filter(|f| f.level != Level::Allow);
        Ok(Ran {
            found: shown.map(|f| (f.fingerprint, f.rule.name(), f.confidence)).collect(),
            failed: end.asserts_failed > 0,
            outcome: end.outcome,
            notes: end.notes.into_iter().map(|note| note.text).collect(),
            syncs: end.syncs,
        })
    }

    /// What is found without these.
    pub(crate) fn without(&self, sites: &[&SyncSite]) -> Without {
        self.under(sites, POLICIES.len())
    }

    /// As [`Self::without`], under so many policies.
    fn under(&self, sites: &[&SyncSite], policies: usize) -> Without {
        let mut all = Without::default();
        (0..policies).for_each(|policy| all.add(self.alone(sites, policy)));
        all
    }

    /// Whether nothing is found without these: the first policy that finds something is enough.
    fn silent(&self, sites: &[&SyncSite]) -> bool {
        (0..POLICIES.len()).all(|policy| self.alone(sites, policy).silent())
    }

    /// What is found without these under one policy.
    fn alone(&self, sites: &[&SyncSite], policy: usize) -> Without {
        let mut sites: Vec<SyncSite> = sites.iter().map(|s| (*s).clone()).collect();
        sites.sort();
        let key = (sites, policy);
        if let Some(known) = self.known.borrow().get(&key) {
            return known.clone();
        }
        let without = match self.run(&key.0, POLICIES[policy], None) {
            Ok(ran) => self.unusual(ran),
            Err(error) => Without { ended: Some(error.to_string()), ..Without::default() },
        };
        self.known.borrow_mut().insert(key, without.clone());
        without
    }

    /// What of a run is not so with everything.
    fn unusual(&self, ran: Ran) -> Without {
        let mut found: BTreeMap<&'static str, OfRule> = BTreeMap::new();
        for (fingerprint, rule, confidence) in ran.found {
            if !self.usual.0.contains(&fingerprint) {
                let new = OfRule { confidence, fingerprints: BTreeSet::from([fingerprint]) };
                found.entry(rule).and_modify(|of| of.add(&new)).or_insert(new);
            }
        }
        let ended = match ran.outcome {
            Outcome::Ended => None,
            Outcome::NotModelled(what) => Some(format!("not modelled: {what}")),
            Outcome::Limit(what) => Some(what),
            Outcome::Blocked => {
                let new = ran.notes.into_iter().find(|note| !self.usual_notes.contains(note));
                Some(new.unwrap_or_else(|| "a CPU waits for ever".to_owned()))
            }
        };
        Without { found, wrong: ran.failed && !self.usual.1, ended }
    }

    /// What else has to be left out for the piece at `at` to be missed, and of which rules more is
    /// found then; none if nothing of the rest does it.
    pub(crate) fn stand_ins(&self, at: usize) -> Option<(Vec<&SyncSite>, Vec<&'static str>)> {
        let site = &self.syncs[at].site;
        let (before, after) = self.syncs.split_at(at);
        let after = after.get(1..).unwrap_or(&[]);
        let mut candidates: Vec<&SyncSite> = Vec::new();
        for incidental in [false, true] {
            let of = |seen: &&SyncSeen| seen.site.kind.incidental() == incidental;
            candidates.extend(after.iter().filter(of).map(|s| &s.site));
            candidates.extend(before.iter().rev().filter(of).map(|s| &s.site));
        }
        let (quiet, missed): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|c| self.silent(&[c]));
        let found = |set: Vec<_>| self.more(site, &set).map(|more| (set, more));
        let gathered = self.gather(site, &mut Vec::new(), &quiet).and_then(found);
        let one = || {
            let mut one = missed.iter().filter(|c| !c.kind.incidental());
            one.find_map(|c| found(vec![c]))
        };
        gathered.or_else(one).or_else(|| {
            let mut kinds: Vec<_> = self.syncs.iter().map(|s| (s.site.cpu, &s.site.kind)).collect();
            kinds.sort();
            kinds.dedup();
            kinds.into_iter().filter(|(_, kind)| !kind.incidental()).find_map(|(cpu, kind)| {
                let others = self.syncs.iter().map(|s| &s.site);
                let of = others.filter(|o| o.cpu == cpu && o.kind == *kind && *o != site);
                let mut of: Vec<&SyncSite> = of.collect();
                self.more(site, &of).filter(|_| of.len() > 1)?;
                put_back(&mut of, |fewer| self.more(site, fewer).is_some());
                found(of)
            })
        })
    }

    /// Of which rules more is found without `site` and `set` than without `set`; none if of none.
    fn more(&self, site: &SyncSite, set: &[&SyncSite]) -> Option<Vec<&'static str>> {
        let mut all = set.to_vec();
        all.push(site);
        let compared = if self.silent(set) { POLICIES.len() } else { STEADY };
        let more = self.under(&all, compared).more_than(&self.under(set, compared));
        Some(more).filter(|more| !more.is_empty())
    }

    /// Leaves out of `candidates` what nobody misses, by halves; a set together with which `site`
    /// is missed, and nothing else, if there is one.
    fn gather<'s>(
        &self,
        site: &SyncSite,
        out: &mut Vec<&'s SyncSite>,
        candidates: &[&'s SyncSite],
    ) -> Option<Vec<&'s SyncSite>> {
        let silent = |set: &[&SyncSite]| self.silent(set);
        let with = |set: &[&'s SyncSite]| {
            let mut all: Vec<&SyncSite> = set.to_vec();
            all.push(site);
            all
        };
        if candidates.is_empty() {
            return None;
        }
        let mut more = out.clone();
        more.extend_from_slice(candidates);
        if silent(&with(&more)) {
            *out = more;
            return None;
        }
        if candidates.len() > 1 {
            let (left, right) = candidates.split_at(candidates.len() / 2);
            return self.gather(site, out, left).or_else(|| self.gather(site, out, right));
        }
        // What is left out so far is missed without `site` being left out: not this one, then, but
        // perhaps without the others.
        if !silent(&more) {
            let alone = candidates.to_vec();
            return Some(alone).filter(|alone| !silent(&with(alone)));
        }
        put_back(&mut more, |fewer| !silent(&with(fewer)) && silent(fewer));
        Some(more)
    }
}

/// Takes out of a set, one after the other, what is not needed for it to do.
fn put_back<'s>(set: &mut Vec<&'s SyncSite>, does: impl Fn(&[&'s SyncSite]) -> bool) {
    let mut at = 0;
    while at < set.len() {
        let mut fewer = set.clone();
        fewer.remove(at);
        if does(&fewer) { *set = fewer } else { at += 1 }
    }
}
