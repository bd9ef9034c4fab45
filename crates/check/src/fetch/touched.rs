//! What each CPU knew when it last touched a range: what a later access to it inherits by
//! coherence, by the order of one line, and by reading what was there before.

use textbed_arch::CpuId;

use super::views::View;
use crate::mistakes::{Mistake, made};
use crate::span::{Piece, Span, WordMap};

/// What one CPU knew when it last touched a range, by what it did.
#[derive(Clone, Debug)]
pub(super) struct Touch {
    pub(super) cpu: CpuId,
    /// Loads and stores.
    pub(super) accesses: View,
    /// Loads, and cleans: most ranges are stored to and nothing else.
    rest: Option<Box<(View, View)>>,
}

impl Touch {
    fn new(cpu: CpuId) -> Self {
        Self { cpu, accesses: View::default(), rest: None }
    }

    pub(super) fn loads(&self) -> &View {
        self.rest.as_ref().map_or(&View::NOTHING, |rest| &rest.0)
    }

    pub(super) fn cleans(&self) -> &View {
        self.rest.as_ref().map_or(&View::NOTHING, |rest| &rest.1)
    }

    /// It loaded, knowing this.
    pub(super) fn loaded(&mut self, known: &View) {
        self.rest.get_or_insert_default().0.join(known);
        self.accesses.join(known);
    }

    /// It cleaned, knowing this.
    pub(super) fn cleaned(&mut self, known: &View) {
        self.rest.get_or_insert_default().1.join(known);
    }
}

/// The CPUs that touched a range: one, and others.
#[derive(Clone, Debug)]
struct Touches(Touch, Vec<Touch>);

impl Touches {
    fn iter(&self) -> impl Iterator<Item = &Touch> {
        std::iter::once(&self.0).chain(&self.1)
    }

    fn of(&mut self, cpu: CpuId) -> &mut Touch {
        if self.0.cpu == cpu {
            return &mut self.0;
        }
        let place = self.1.iter().position(|touch| touch.cpu == cpu);
        let place = place.unwrap_or_else(|| {
            self.1.push(Touch::new(cpu));
            self.1.len() - 1
        });
        &mut self.1[place]
    }
}

impl Piece for Touches {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        self.1.len() == next.1.len()
            && self.iter().zip(next.iter()).all(|(a, b)| {
                a.cpu == b.cpu
                    && a.accesses.same(&b.accesses)
                    && a.loads().same(b.loads())
                    && a.cleans().same(b.cleans())
            })
    }
}

/// All memory that was touched.
#[derive(Default, Debug)]
pub(crate) struct Touched(WordMap<Touches>);

impl Touched {
    /// Prefetches where it is noted who touched the word at `at`.
    #[inline]
    pub(crate) fn prefetch(&self, at: u64) {
        self.0.prefetch(at);
    }

    /// And what that leads to.
    #[inline]
    pub(crate) fn near(&self, at: u64) {
        self.0.near(at);
    }

    /// A store of `cpu` to `span`: `knows` is given what it comes after, its own accesses there and
    /// loads of others where these order it, and says what the store knows, which is given back.
    #[inline]
    pub(super) fn store(
        &mut self,
        cpu: CpuId,
        span: Span,
        from_reads: bool,
        knows: impl FnOnce(&View) -> View,
    ) -> View {
        // Mostly it is a word that nobody else touched: one look-up is enough.
        let mut knows = Some(knows);
        let mut known = None;
        self.0.put_cell(span, |there| match there {
            None => {
                let view = knows.take().map(|knows| knows(&View::NOTHING)).unwrap_or_default();
                known = Some(view.clone());
                Some(Touches(Touch { cpu, accesses: view, rest: None }, Vec::new()))
            }
            Some(Touches(one, others)) => {
                if one.cpu == cpu
                    && one.rest.is_none()
                    && others.is_empty()
                    && let Some(knows) = knows.take()
                {
                    one.accesses = knows(&one.accesses);
                    known = Some(one.accesses.clone());
                }
                None
            }
        });
        let Some(knows) = knows else { return known.unwrap_or_default() };
        let known = knows(&self.before_store(cpu, span, from_reads));
        self.note(cpu, span, |touch| touch.accesses.clone_from(&known));
        known
    }

    fn before_store(&self, cpu: CpuId, span: Span, from_reads: bool) -> View {
        let mut all = View::default();
        for (_, touch) in self.of(span) {
            if touch.cpu == cpu {
                all.join(&touch.accesses);
                if !made(Mistake::NoOrderOfLine) {
                    all.join(touch.cleans());
                }
            } else if from_reads && !made(Mistake::NoFromReads) {
                all.join(touch.loads());
            }
        }
        all.forget_store();
        all
    }

    /// Who touched `span`, part by part.
    pub(super) fn of(&self, span: Span) -> impl Iterator<Item = (Span, &Touch)> + '_ {
        let parts = self.0.parts(span);
        parts.flat_map(|(part, touches)| touches.iter().map(move |touch| (part, touch)))
    }

    /// What `cpu` knew when it touched `span`, for each part that anybody touched.
    pub(super) fn by(
        &self,
        cpu: CpuId,
        span: Span,
    ) -> impl Iterator<Item = (Span, Option<&Touch>)> + '_ {
        let parts = self.0.parts(span);
        parts.map(move |(part, touches)| (part, touches.iter().find(|touch| touch.cpu == cpu)))
    }

    /// `cpu` touches `span`.
    pub(super) fn note(&mut self, cpu: CpuId, span: Span, f: impl Fn(&mut Touch)) {
        let first = || {
            let mut touch = Touch::new(cpu);
            f(&mut touch);
            Touches(touch, Vec::new())
        };
        // A word that stands for itself: what its neighbours have is seldom the same.
        let by_itself = self.0.put_cell(span, |there| match there {
            Some(touches) => {
                f(touches.of(cpu));
                None
            }
            None => Some(first()),
        });
        if by_itself {
            return;
        }
        self.0.update(span, |_, there| {
            let Some(mut touches) = there.cloned() else { return Some(first()) };
            f(touches.of(cpu));
            Some(touches)
        });
    }

    /// The same for what of `span` somebody touched already.
    pub(super) fn note_again(&mut self, cpu: CpuId, span: Span, f: impl Fn(&mut Touch)) {
        let parts: Vec<Span> = self.0.parts(span).map(|(part, _)| part).collect();
        parts.into_iter().for_each(|part| self.note(cpu, part, &f));
    }
}
