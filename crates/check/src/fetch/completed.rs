//! Which versions were invalidated, and when that was complete ([`super::observed`]).
//!
//! By range, and for everything: what an invalidation of everything says is one number, whatever
//! was stored by then. Of its completions those stay that are the first one of any version that is
//! kept, because a window asks for that one alone; so what is kept goes by the memory that was
//! stored to, and no answer changes.

use super::versions::Versions;
use crate::span::{Piece, Span, SpanMap};

/// Newest stamp for a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp(pub(super) u64);
crate::span::flat_piece!(Stamp);

/// Completed invalidations of a range: when, and up to which version. Youngest last.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Done(Vec<(u64, u64)>);

impl Piece for Done {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        self == next
    }
}

/// Completions kept for one range.
const MAX_DONE: usize = 8;
/// Completions of everything kept before it is looked which of them any version still asks for.
const UNTIDY: usize = 4096;

/// Invalidations by range, and of everything: those of all that was stored up to a version are one
/// number, whatever was stored.
#[derive(Default, Debug)]
pub(super) struct Stamps {
    pub(super) by_range: SpanMap<Stamp>,
    pub(super) everywhere: u64,
}

impl Stamps {
    pub(super) fn is_empty(&self) -> bool {
        self.by_range.is_empty() && self.everywhere == 0
    }

    pub(super) fn reaches(&self, span: Span, stamp: u64) -> bool {
        self.everywhere >= stamp && self.everywhere != 0 || reaches(&self.by_range, span, stamp)
    }
}

/// The same, when they were complete.
#[derive(Default, Debug)]
pub(super) struct Completed {
    by_range: SpanMap<Done>,
    /// When, and up to which version; youngest last.
    everywhere: Vec<(u64, u64)>,
    /// How many of these were left when they were last tidied.
    tidy: usize,
}

impl Done {
    fn add(&mut self, now: u64, stamp: u64) {
        if self.0.last().is_none_or(|(_, s)| *s < stamp) {
            self.0.push((now, stamp));
            if self.0.len() > MAX_DONE {
                self.0.remove(0);
            }
        }
    }

    /// When version `stamp` or a younger one was.
    fn when(&self, stamp: u64) -> Option<u64> {
        self.0.iter().find(|(_, s)| *s >= stamp).map(|(when, _)| *when)
    }
}

impl Completed {
    /// Invalidations up to the versions of `pending` were complete at event `now`.
    pub(super) fn complete(&mut self, pending: &Stamps, now: u64) {
        for (span, stamp) in pending.by_range.iter() {
            self.by_range.update(span, |_, there| {
                let mut done = there.cloned().unwrap_or(Done(Vec::new()));
                done.add(now, stamp.0);
                Some(done)
            });
        }
        if pending.everywhere > self.everywhere.last().map_or(0, |(_, stamp)| *stamp) {
            self.everywhere.push((now, pending.everywhere));
        }
    }

    /// Drops completions of everything that are the first ones of no version that is kept: nobody
    /// can ask for them. What is left goes by the versions, and the walk over these by how many
    /// came since.
    pub(super) fn tidy(&mut self, versions: &Versions) {
        if self.everywhere.len() <= UNTIDY + 2 * self.tidy + versions.entries() / 4 {
            return;
        }
        let mut wanted = vec![false; self.everywhere.len()];
        versions.stamps(|stamp| {
            let first = self.everywhere.partition_point(|(_, s)| *s < stamp);
            if let Some(wanted) = wanted.get_mut(first) {
                *wanted = true;
            }
        });
        let mut wanted = wanted.into_iter();
        self.everywhere.retain(|_| wanted.next().unwrap_or(true));
        self.tidy = self.everywhere.len();
    }

    /// How many completions of everything there are.
    #[cfg(test)]
    pub(super) fn kept_of_everything(&self) -> usize {
        self.everywhere.len()
    }

    /// The event by which all of `span` was invalidated with version `stamp` or a younger one.
    pub(super) fn by(&self, span: Span, stamp: u64) -> Option<u64> {
        let first = self.everywhere.partition_point(|(_, s)| *s < stamp);
        let everywhere = self.everywhere.get(first).map(|(when, _)| *when);
        let mut bytes = 0u64;
        let mut latest = 0;
        for (part, done) in self.by_range.parts(span) {
            let when = done.when(stamp).into_iter().chain(everywhere).min()?;
            latest = latest.max(when);
            bytes = bytes.saturating_add(part.len());
        }
        if bytes == span.len() { Some(latest) } else { Some(latest.max(everywhere?)) }
    }
}

/// Raises the stamps in `span` of `to` to `stamp`.
pub(super) fn raise(to: &mut SpanMap<Stamp>, span: Span, stamp: u64) {
    to.update(span, |_, old| Some(Stamp(old.map_or(stamp, |o| o.0.max(stamp)))));
}

/// Whether all of `span` has at least `stamp`.
pub(super) fn reaches(map: &SpanMap<Stamp>, span: Span, stamp: u64) -> bool {
    let parts = map.within(span).filter(|(_, s)| s.0 >= stamp);
    parts.fold(0u64, |sum, (part, _)| sum.saturating_add(part.len())) == span.len()
}

#[cfg(test)]
mod tests {
    use textbed_arch::effect::{Barrier, CacheScope, Domain, Reach, SyncCause};
    use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, VirtAddr};
    use textbed_event::{Header, LeafChange, MemOrder, Recorder, Sink, View};

    use super::super::Model;
    use super::*;
    use crate::finding::{Confidence, Finding};
    use crate::{Checker, Mode, Options};

    const CODE: u64 = 0xc000_0000_0010_0000;
    const FRAME: u64 = 0x20_0000;
    /// Words of code on lines of their own.
    const LINE: u64 = 128;

    /// A Power machine on which any `icbi` stands for every line.
    struct Power {
        rec: Recorder,
        checker: Checker,
    }

    impl Power {
        fn new() -> Self {
            let mut header = Header::all_seeing(Arch::Ppc64le, 3);
            header.features |= Features::PPC_COHERENT_ICACHE;
            let mut checker = Checker::new(Options { mode: Mode::Observed, ..Options::default() });
            let _ = checker.begin(&header);
            let mut power = Self { rec: Recorder::new(), checker };
            let (old, new) = (Perm::empty(), Perm::KERNEL_ROX);
            let change = LeafChange::usual(16, 12, old, new);
            power.emit(0, View::Leaf { virt: VirtAddr(CODE), phys: PhysAddr(FRAME), change });
            (0..3).for_each(|p| power.sync(p));
            power
        }

        fn emit(&mut self, cpu: u16, view: View) {
            self.rec.emit(CpuId(cpu), view);
            if self.rec.pending() >= 4096 {
                let _ = self.checker.batch(&self.rec.take());
            }
        }

        fn sync(&mut self, cpu: u16) {
            self.emit(cpu, View::ContextSync { cause: SyncCause::Instruction });
        }

        /// CPU 0 replaces a word, with all that it has to do itself.
        fn patch(&mut self, n: u64, value: u64) {
            let (virt, phys) = (VirtAddr(CODE + n * LINE), PhysAddr(FRAME + n * LINE));
            let bytes = self.rec.bytes(&(0x6000_0000 | value as u32).to_le_bytes());
            // By an alias, which the stream does not show.
            let alias = VirtAddr(CODE + (1 << 30) + n * LINE);
            self.emit(0, View::Store { virt: alias, phys, bytes, order: MemOrder::Plain });
            let (barrier, domain) = (Barrier::Sync, Domain::System);
            self.emit(0, View::Barrier { barrier, domain });
            let (scope, reach) = (CacheScope::Line, Reach::Broadcast);
            self.emit(0, View::IcacheInvalidate { scope, reach, virt, phys });
            self.emit(0, View::Barrier { barrier, domain });
        }

        fn run(&mut self, cpu: u16, n: u64) {
            let (virt, phys) = (VirtAddr(CODE + n * LINE), PhysAddr(FRAME + n * LINE));
            self.emit(cpu, View::Fetch { virt, phys, len: 4 });
        }

        fn kept(&mut self) -> usize {
            let _ = self.checker.batch(&self.rec.take());
            let live = self.checker.live.as_ref().unwrap();
            let Model::Weak { observed, .. } = &live.fetches.model else { panic!() };
            observed.completions_of_everything()
        }

        fn findings(mut self) -> Vec<Finding> {
            let _ = self.checker.batch(&self.rec.take());
            self.checker.finish().findings
        }
    }

    /// How many patches follow: around the number at which completions are tidied, and far more.
    const AFTER: [u64; 5] = [0, 4095, 4096, 4097, 20_000];

    #[test]
    fn whoever_synchronised_long_ago_runs_the_new_code_however_much_was_patched_since() {
        for after in AFTER {
            let mut power = Power::new();
            power.run(1, 0);
            power.patch(0, 1);
            power.sync(1);
            (0..after).for_each(|n| power.patch(1, n));
            power.run(1, 0);
            let findings = power.findings();
            assert!(findings.is_empty(), "{after} patches later: {findings:#?}");
        }
    }

    #[test]
    fn whoever_never_synchronised_may_run_the_old_code_however_much_was_patched_since() {
        let say = |after| {
            let mut power = Power::new();
            power.run(1, 0);
            power.patch(0, 1);
            // For whom a completion between the two is no help.
            power.sync(2);
            (0..after).for_each(|n| power.patch(1, n));
            power.run(1, 0);
            let [finding] = power.findings().try_into().unwrap();
            assert_eq!(finding.confidence, Confidence::Certain);
            assert_eq!(finding.at.cpu, CpuId(1));
            (finding.message.clone(), finding.fingerprint, finding.missing.clone())
        };
        let said = AFTER.map(say);
        assert!(said.iter().all(|other| *other == said[0]), "{said:#?}");
    }

    #[test]
    fn completions_that_no_version_asks_for_are_not_kept() {
        let mut power = Power::new();
        (0..20_000).for_each(|n| power.patch(n % 4, n));
        assert!(power.kept() <= UNTIDY + 2 * 4 * 8 + 1, "{}", power.kept());
    }
}
