//! wrong-range and wrong-alias: maintenance was done, but beside what needed it.
//!
//! *Caches*: a fetch finds its line not maintained, while after the store the same CPU maintained
//! another part of the same stored run, or lines next to it (wrong range), or a line at the same
//! offset in a page through an address that leads to other frames (wrong alias).
//! *Translations*: a call took rights away at some addresses and flushed by address, but the flush
//! left a part of them (wrong range), or met only other addresses of the same frames (wrong alias).
//!
//! Kept: the last operations of the stream, [`KEPT`] of each kind. Not modelled: operations that
//! reach everything (they are never beside).

use std::collections::VecDeque;

use textbed_arch::{Perm, SpaceId, effect::CacheScope};
use textbed_event::CallRef;

use crate::book::Draft;
use crate::fetch::verdict::Broken;
use crate::finding::Blame;
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;
use crate::tables::UNKNOWN_PHYS;

/// Operations kept.
const KEPT: usize = 512;
/// How far beside a store maintenance is taken to be meant for it, in bytes.
const BESIDE: u64 = 256;

/// One maintained line, or one range whose translations were flushed.
#[derive(Clone, Copy, Debug)]
struct Done {
    frames: Option<Span>,
    virt: Span,
    outer: CallRef,
    mark: Mark,
}

/// Rights that a call took away.
#[derive(Clone, Copy, Debug)]
struct Taken {
    space: SpaceId,
    virt: Span,
    frames: Span,
    outer: CallRef,
    mark: Mark,
}

/// What was maintained lately.
#[derive(Default, Debug)]
pub(crate) struct Log {
    lines: VecDeque<Done>,
    flushes: VecDeque<Done>,
    taken: VecDeque<Taken>,
}

fn keep<T>(list: &mut VecDeque<T>, one: T) {
    if list.len() >= KEPT {
        list.pop_front();
    }
    list.push_back(one);
}

impl Live {
    /// A line was cleaned or invalidated.
    pub(crate) fn line_maintained(
        &mut self,
        now: Now<'_>,
        scope: CacheScope,
        virt: u64,
        phys: Option<u64>,
        line: u64,
    ) {
        if scope == CacheScope::Line && !self.fetches.is_off() {
            let mark = self.mark(now).about(virt);
            let one = |at| Span { first: at, last: at }.rounded(line);
            let done = Done {
                frames: phys.map(one),
                virt: one(virt),
                outer: self.calls.outermost(mark.cause),
                mark,
            };
            keep(&mut self.patching.maintained.lines, done);
        }
    }

    /// Translations of some addresses were flushed.
    pub(crate) fn range_flushed(&mut self, now: Now<'_>, virt: Span) {
        let outer = self.calls.outermost(now.event.cause);
        if outer != CallRef::NONE {
            let mark = self.mark(now).about(virt.first);
            keep(&mut self.patching.maintained.flushes, Done { frames: None, virt, outer, mark });
        }
    }

    /// A mapping lost rights inside a call.
    pub(crate) fn rights_taken(&mut self, space: SpaceId, virt: Span, phys: u64, mark: &Mark) {
        let outer = self.calls.outermost(mark.cause);
        if let Some(frames) = Span::of(phys, virt.len()).filter(|_| phys < UNKNOWN_PHYS)
            && outer != CallRef::NONE
        {
            keep(
                &mut self.patching.maintained.taken,
                Taken { space, virt, frames, outer, mark: *mark },
            );
        }
    }

    /// A fetch needs maintenance that was not done: was it done beside?
    pub(crate) fn maintained_beside(
        &mut self,
        mark: &Mark,
        virt: u64,
        frames: Span,
        broken: &Broken,
    ) {
        for rule in [RuleId::WrongRange, RuleId::WrongAlias] {
            self.occasions.looked(rule);
        }
        let version = &broken.version;
        let of = |d: &&Done| d.mark.cpu == version.cpu && d.mark.seq > version.stamp;
        let covers = |d: &Done| d.frames.is_some_and(|f| f.meet(frames).is_some());
        let log = &self.patching.maintained.lines;
        // Done for these bytes, and incomplete in another way: not a matter of where.
        let reached = log.iter().filter(of).any(covers);
        if reached {
            return;
        }
        let same_run = |d: &Done| {
            d.frames.is_some_and(|f| {
                let run = self.fetches.versions.within(f);
                run.into_iter().any(|(_, h)| h.newest().is_some_and(|v| v.stamp == version.stamp))
            })
        };
        // What was stored and maintained for itself says nothing about this store.
        let own = |d: &Done| {
            d.frames.is_some_and(|f| {
                self.fetches.versions.within(f).any(|(_, h)| {
                    h.newest().is_some_and(|v| {
                        (version.stamp + 1..d.mark.seq).contains(&v.stamp) && v.cpu == version.cpu
                    })
                })
            })
        };
        let beside = |d: &Done| {
            d.frames.is_some_and(|f| f.first.abs_diff(frames.first) <= BESIDE) && !own(d)
        };
        let range = log.iter().rev().filter(of).find(|d| same_run(d) || beside(d)).copied();
        let alias = || {
            let aliased = |d: &&Done| {
                d.virt.first & 0xfff <= virt & 0xfff && virt & 0xfff <= d.virt.last & 0xfff
            };
            log.iter().rev().filter(of).find(aliased).copied()
        };
        let (rule, done) = match range.map(|d| (RuleId::WrongRange, d)) {
            Some(found) => found,
            None => match alias() {
                Some(d) => (RuleId::WrongAlias, d),
                None => return,
            },
        };
        let at = self.address(virt);
        let what = match rule {
            RuleId::WrongRange => "the maintenance done for it covers other lines of it",
            _ => "the maintenance was done through an address that leads elsewhere",
        };
        let message = format!("{} stored code at {at}, but {what}", version.cpu);
        let because = "maintained here instead";
        self.beside(rule, Operation::Maintenance, mark, message, &done.mark, because, broken.sure);
    }

    /// The outermost call `call` returned: did its flushes reach what it changed?
    pub(crate) fn judge_flushes(&mut self, call: CallRef) {
        let log = &mut self.patching.maintained;
        if log.taken.is_empty() {
            return;
        }
        let mine: Vec<Taken> = log.taken.iter().filter(|t| t.outer == call).copied().collect();
        log.taken.retain(|t| t.outer != call);
        let flushes: Vec<Done> = log.flushes.iter().filter(|d| d.outer == call).copied().collect();
        log.flushes.retain(|d| d.outer != call);
        if mine.is_empty() || flushes.is_empty() {
            return;
        }
        for rule in [RuleId::WrongRange, RuleId::WrongAlias] {
            self.occasions.looked(rule);
        }
        for taken in mine {
            let left = self.stale.within(taken.space, taken.virt).find_map(|(at, olds)| {
                let old = olds.0.iter().find(|o| {
                    o.since.seq == taken.mark.seq
                        && o.perm.contains(Perm::PRESENT)
                        && (o.perm.writable() || o.perm.executable())
                })?;
                Some((at, *old))
            });
            let Some((at, old)) = left else { continue };
            let after: Vec<&Done> =
                flushes.iter().filter(|d| d.mark.seq > taken.mark.seq).collect();
            if after.iter().any(|d| d.virt.meet(at).is_some()) {
                continue;
            }
            let part = after.iter().find(|d| d.virt.meet(taken.virt).is_some());
            let same_frames = |d: &&&Done| {
                self.tables.within(SpaceId::KERNEL, d.virt).any(|(here, m)| {
                    Span::of(m.phys, here.len()).is_some_and(|f| f.meet(taken.frames).is_some())
                })
            };
            let code = self.tables.aliases(taken.frames).any(|(span, set)| {
                set.iter().any(|a| {
                    span.moved(a.delta).is_some_and(|v| {
                        self.tables.within(a.space, v).any(|(_, m)| m.perm.executable())
                    })
                })
            });
            let (rule, done) = match part {
                Some(d) => (RuleId::WrongRange, **d),
                None => match after.iter().find(same_frames).filter(|_| code) {
                    Some(d) => (RuleId::WrongAlias, **d),
                    None => continue,
                },
            };
            let who = self.cpus_text(old.cpus);
            let message = format!(
                "{} lost rights at {}, but the flush was for {}: {who} may still use {}",
                crate::words::size(at.len()),
                self.address(at.first),
                self.address(done.virt.first),
                old.perm.letters()
            );
            let mark = taken.mark.about(at.first);
            self.beside(
                rule,
                Operation::Flush,
                &mark,
                message,
                &done.mark,
                "flushed here instead",
                true,
            );
        }
    }

    #[allow(clippy::too_many_arguments)] // what a finding is made of
    fn beside(
        &mut self,
        rule: RuleId,
        lack: Operation,
        mark: &Mark,
        message: String,
        done: &Mark,
        label: &str,
        sure: bool,
    ) {
        if !self.checkable(rule) {
            return;
        }
        let site = self.site(mark, "needed here");
        let mut draft = Draft::new(rule, lack, message, site);
        draft.because = Some(self.site(done, label));
        draft.sure = sure && mark.sure && done.sure;
        draft.blame = Blame::Callee;
        draft.missing.push("the operation over every byte that changed".to_owned());
        draft.help = Some(match rule {
            RuleId::WrongAlias => {
                "do it by the addresses that are used: the ones executed for caches, every one \
                 that changed for translations"
                    .to_owned()
            }
            _ => "go from the first changed byte to the last, by the smallest line of all CPUs; \
                  mind arguments that mean an end where a length is taken"
                .to_owned(),
        });
        self.report(draft);
    }
}
