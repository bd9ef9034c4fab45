//! One scenario on one machine, run without some of its synchronisation: what is found then that
//! is not found with all of it, and where nothing is, what does the same.
//!
//! A set is run under `newest`, `stalest` and a seed; what any of them finds counts. A piece is
//! redundant to others if nothing is found without it, and more is found without it and them than
//! without them. The search leaves out, by halves, whatever is not missed, until the piece asked
//! about is; what is not needed for that is put back. Then it tries single pieces whose lack is
//! found too, and then all of one kind on one CPU.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use textbed_check::{Checker, Confidence, Level, Options};
use textbed_event::{Collect, Tee, elide::Elided};
use textbed_scenario::{
    Loaded, Outcome, PolicyChoice, RunError, RunOptions, SyncSeen, SyncSite, run,
};

/// Who decides in the runs that count.
const POLICIES: [PolicyChoice; 3] =
    [PolicyChoice::Newest, PolicyChoice::Stalest, PolicyChoice::Random(1)];

/// How many of them decide while the search goes on; what it returns was run under all.
const FEW: usize = 1;

/// What is found of one rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OfRule {
    /// How sure the surest is.
    pub(crate) confidence: Confidence,
    fingerprints: BTreeSet<String>,
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
        let mut sites: Vec<SyncSite> = sites.iter().map(|s| (*s).clone()).collect();
        sites.sort();
        let key = (sites, policies);
        if let Some(known) = self.known.borrow().get(&key) {
            return known.clone();
        }
        let mut all = Without::default();
        for policy in POLICIES.into_iter().take(policies) {
            match self.run(&key.0, policy, None) {
                Ok(ran) => self.add(&mut all, ran),
                Err(error) => all.ended = Some(error.to_string()),
            }
        }
        self.known.borrow_mut().insert(key, all.clone());
        all
    }

    fn add(&self, all: &mut Without, ran: Ran) {
        all.wrong |= ran.failed && !self.usual.1;
        for (fingerprint, rule, confidence) in ran.found {
            if !self.usual.0.contains(&fingerprint) {
                let of = all
                    .found
                    .entry(rule)
                    .or_insert(OfRule { confidence, fingerprints: BTreeSet::new() });
                of.confidence = of.confidence.max(confidence);
                of.fingerprints.insert(fingerprint);
            }
        }
        let ended = match ran.outcome {
            Outcome::Ended => return,
            Outcome::NotModelled(what) => format!("not modelled: {what}"),
            Outcome::Limit(what) => what,
            Outcome::Blocked => {
                let new = ran.notes.into_iter().find(|note| !self.usual_notes.contains(note));
                new.unwrap_or_else(|| "a CPU waits for ever".to_owned())
            }
        };
        all.ended = Some(ended);
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
            candidates.into_iter().partition(|c| self.under(&[c], FEW).silent());
        let found = |set: &[&SyncSite]| {
            let mut all = set.to_vec();
            all.push(site);
            let more = |n: usize| self.under(&all, n).more_than(&self.under(set, n));
            if more(FEW).is_empty() {
                return None;
            }
            Some(more(POLICIES.len())).filter(|more| !more.is_empty())
        };
        if let Some(set) = self.gather(site, &mut Vec::new(), &quiet)
            && let Some(more) = found(&set)
        {
            return Some((set, more));
        }
        let one = missed.into_iter().filter(|c| !c.kind.incidental()).find_map(|c| {
            let more = found(&[c])?;
            Some((vec![c], more))
        });
        one.or_else(|| {
            let mut kinds: Vec<_> = self.syncs.iter().map(|s| (s.site.cpu, &s.site.kind)).collect();
            kinds.sort();
            kinds.dedup();
            kinds.into_iter().filter(|(_, kind)| !kind.incidental()).find_map(|(cpu, kind)| {
                let others = self.syncs.iter().map(|s| &s.site);
                let of = others.filter(|o| o.cpu == cpu && o.kind == *kind && *o != site);
                let of: Vec<&SyncSite> = of.collect();
                let more = found(&of).filter(|_| of.len() > 1)?;
                Some((of, more))
            })
        })
    }

    /// Leaves out of `candidates` what nobody misses, by halves; a set together with which `site`
    /// is missed, and nothing else, if there is one.
    fn gather<'s>(
        &self,
        site: &SyncSite,
        out: &mut Vec<&'s SyncSite>,
        candidates: &[&'s SyncSite],
    ) -> Option<Vec<&'s SyncSite>> {
        let silent = |set: &[&SyncSite]| self.under(set, FEW).silent();
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
        // What is left out so far is missed without `site` being left out: not this one, then.
        if !silent(&more) {
            return None;
        }
        let mut at = 0;
        while at < more.len() {
            let mut fewer = more.clone();
            fewer.remove(at);
            if silent(&with(&fewer)) || !silent(&fewer) { at += 1 } else { more = fewer }
        }
        Some(more)
    }
}
