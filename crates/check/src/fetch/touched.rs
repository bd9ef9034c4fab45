//! What each CPU knew when it last touched a range: what a later access to it inherits by
//! coherence, by the order of one line, and by reading what was there before.

use textbed_arch::CpuId;

use super::views::View;
use crate::span::{Piece, Span, WordMap};

/// What one CPU knew when it last touched a range, by what it did.
#[derive(Clone, Debug)]
pub(super) struct Touch {
    pub(super) cpu: CpuId,
    pub(super) loads: View,
    /// Loads and stores.
    pub(super) accesses: View,
    pub(super) cleans: View,
}

/// The CPUs that touched a range.
#[derive(Clone, Default, Debug)]
struct Touches(Vec<Touch>);

impl Piece for Touches {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        self.0.len() == next.0.len()
            && self.0.iter().zip(&next.0).all(|(a, b)| {
                a.cpu == b.cpu
                    && a.loads.same(&b.loads)
                    && a.accesses.same(&b.accesses)
                    && a.cleans.same(&b.cleans)
            })
    }
}

/// All memory that was touched.
#[derive(Default, Debug)]
pub(super) struct Touched(WordMap<Touches>);

impl Touched {
    /// Has the processor read what a look-up of `at` will read; what that is says nothing.
    #[inline]
    pub(super) fn touch(&self, at: u64) -> u64 {
        self.0.touch(at)
    }

    /// Who touched `span`, part by part.
    pub(super) fn of(&self, span: Span) -> impl Iterator<Item = (Span, &[Touch])> + '_ {
        self.0.parts(span).map(|(part, touches)| (part, touches.0.as_slice()))
    }

    /// `cpu` touches `span`.
    pub(super) fn note(&mut self, cpu: CpuId, span: Span, f: impl Fn(&mut Touch)) {
        let touch = |touches: &mut Touches| match touches.0.iter_mut().find(|t| t.cpu == cpu) {
            Some(touch) => f(touch),
            None => {
                let (loads, accesses, cleans) = Default::default();
                let mut touch = Touch { cpu, loads, accesses, cleans };
                f(&mut touch);
                touches.0.push(touch);
            }
        };
        let first = || {
            let mut touches = Touches(Vec::with_capacity(1));
            touch(&mut touches);
            touches
        };
        // A word that stands for itself: what its neighbours have is seldom the same.
        if self.0.put_cell(span, first, touch) {
            return;
        }
        self.0.update(span, |_, there| {
            let Some(mut touches) = there.cloned() else { return Some(first()) };
            touch(&mut touches);
            Some(touches)
        });
    }

    /// The same for what of `span` somebody touched already.
    pub(super) fn note_again(&mut self, cpu: CpuId, span: Span, f: impl Fn(&mut Touch)) {
        let parts: Vec<Span> = self.of(span).map(|(part, _)| part).collect();
        parts.into_iter().for_each(|part| self.note(cpu, part, &f));
    }
}
