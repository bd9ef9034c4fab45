//! Which findings are one: what a person would mend in one place.
//!
//! - What is found again at one place for one reason is counted: the same rule, the same sites (by
//!   symbol, calls and kind of event), the same missing operations.
//! - A routine of which *fetches* are wrong is one finding, not one for each instruction. Fetches
//!   join if they meet the same cause (one store, one change of a mapping), or if what they fetch
//!   touches or overlaps, as in code that was written word by word. Rule, calls and missing
//!   operations are the same there too: a routine that lacks something else is another finding, and
//!   so is one elsewhere that another store made.
//!
//! Joining does not depend on the order of the pieces. The surest pieces speak: message, count and
//! range are theirs, told by the earliest of them; pieces that are less sure are counted in a note.

use std::cmp::Ordering;

use crate::finding::Finding;
use crate::span::Span;
use crate::words;

/// What a fetch took, and why that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// The addresses.
    pub(crate) span: Span,
    /// Number of the event that is the cause.
    pub(crate) cause: u64,
    /// The first address as the message has it.
    pub(crate) text: String,
}

/// Pieces of one confidence.
#[derive(Clone, Debug)]
struct Class {
    /// The earliest of them.
    finding: Finding,
    count: u64,
    /// The address in the message of `finding`, the lowest one in the same form, and the range.
    range: Option<(String, String, Span)>,
}

impl Class {
    fn absorb(&mut self, other: Class) {
        self.count = self.count.saturating_add(other.count);
        let earlier = (other.finding.at.seq, other.finding.at.virt)
            < (self.finding.at.seq, self.finding.at.virt);
        let told = other.range.as_ref().filter(|_| earlier).map(|(own, ..)| own.clone());
        if let (Some((own, low, span)), Some((_, their_low, their))) =
            (&mut self.range, other.range)
        {
            *own = told.unwrap_or_else(|| std::mem::take(own));
            if their.first < span.first {
                *low = their_low;
            }
            *span = Span { first: span.first.min(their.first), last: span.last.max(their.last) };
        }
        if earlier {
            self.finding = other.finding;
        }
    }

    fn into_finding(self) -> Finding {
        let mut finding = self.finding;
        finding.count = self.count;
        if let Some((own, low, span)) = &self.range
            && self.count > 1
        {
            let bytes = words::size(span.len());
            let range = match low.strip_suffix(')') {
                Some(symbol) => format!("{symbol}, {bytes})"),
                None => format!("{low} ({bytes})"),
            };
            finding.message = finding.message.replacen(own, &range, 1);
        }
        finding
    }
}

/// Causes kept by group; past it what touches joins, and nothing else.
const MAX_CAUSES: usize = 64;
/// Ranges kept by group: a routine has few that do not touch.
const MAX_SPANS: usize = 256;

/// Pieces that are one finding.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The surest pieces.
    best: Class,
    /// The others.
    less: Option<Class>,
    /// What was fetched, in order, no two touching; empty where fetches are not what is wrong.
    spans: Vec<Span>,
    causes: Vec<u64>,
}

impl Group {
    pub(crate) fn new(finding: Finding, target: Option<Target>) -> Self {
        let (spans, causes) = target.iter().map(|t| (t.span, t.cause)).unzip();
        let range = target.map(|t| (t.text.clone(), t.text, t.span));
        Self { best: Class { count: finding.count, finding, range }, less: None, spans, causes }
    }

    /// Whether the pieces of both are one finding, where all else that makes them one is the same.
    pub(crate) fn meets(&self, other: &Group) -> bool {
        let touches = |a: &Span, b: &Span| {
            a.first <= b.last.saturating_add(1) && b.first <= a.last.saturating_add(1)
        };
        self.spans.is_empty() && other.spans.is_empty()
            || self.causes.iter().any(|c| other.causes.contains(c))
            || self.spans.iter().any(|a| other.spans.iter().any(|b| touches(a, b)))
    }

    /// Takes in what is the same finding.
    pub(crate) fn absorb(&mut self, other: Group) {
        self.put(other.best);
        other.less.into_iter().for_each(|less| self.put(less));
        for cause in other.causes {
            if self.causes.len() < MAX_CAUSES && !self.causes.contains(&cause) {
                self.causes.push(cause);
            }
        }
        self.spans.extend(other.spans);
        self.spans.sort_unstable();
        let mut joined: Vec<Span> = Vec::with_capacity(self.spans.len());
        for span in self.spans.drain(..) {
            match joined.last_mut() {
                Some(last) if span.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(span.last);
                }
                _ => joined.push(span),
            }
        }
        joined.truncate(MAX_SPANS);
        self.spans = joined;
    }

    fn put(&mut self, mut class: Class) {
        match class.finding.confidence.cmp(&self.best.finding.confidence) {
            Ordering::Equal => return self.best.absorb(class),
            Ordering::Greater => std::mem::swap(&mut self.best, &mut class),
            Ordering::Less => {}
        }
        match &mut self.less {
            Some(less) => less.absorb(class),
            None => self.less = Some(class),
        }
    }

    /// The finding as its surest pieces tell it.
    pub(crate) fn into_finding(self) -> Finding {
        let mut finding = self.best.into_finding();
        finding.less_sure = self.less.map_or(0, |less| less.count);
        match finding.less_sure {
            0 => {}
            1 => finding.notes.push("1 more of the kind is possible, not certain".to_owned()),
            n => finding.notes.push(format!("{n} more of the kind are possible, not certain")),
        }
        finding
    }
}

#[cfg(test)]
mod tests {
    use textbed_arch::{Arch, CpuId, VirtAddr};
    use textbed_event::Kind;

    use super::*;
    use crate::book::Book;
    use crate::finding::{Blame, Confidence, Level, Site, Window};
    use crate::operation::Operation;
    use crate::rules::RuleId;

    /// A piece: address and number of the event, cause, whether it is certain.
    type Piece = (u64, u64, u64, bool);

    fn finding((virt, seq, _, certain): Piece) -> Finding {
        let at = Site {
            seq,
            at_ns: None,
            kind: Kind::Fetch,
            cpu: CpuId(1),
            virt: Some(VirtAddr(virt)),
            symbol: None,
            place: None,
            origin: None,
            calls: Vec::new(),
            label: String::new(),
        };
        Finding {
            rule: RuleId::MissingContextSync,
            operation: Operation::ContextSync,
            level: if certain { Level::Deny } else { Level::Warn },
            confidence: if certain { Confidence::Certain } else { Confidence::Possible },
            blame: Blame::Caller,
            arch: Arch::Arm64,
            kernel: None,
            message: format!("executes {} (f) late", VirtAddr(virt)),
            at,
            because: None,
            missing: Vec::new(),
            window: Window::Other,
            chain: Vec::new(),
            notes: Vec::new(),
            help: None,
            cites: Vec::new(),
            count: 1,
            less_sure: 0,
            fingerprint: "0".repeat(16),
        }
    }

    fn entered(pieces: &[Piece]) -> Vec<Finding> {
        let mut book = Book::default();
        for piece in pieces {
            let span = Span { first: piece.0, last: piece.0 + 3 };
            let text = format!("{} (f)", VirtAddr(piece.0));
            book.enter(finding(*piece), Some(Target { span, cause: piece.2, text }), Vec::new());
        }
        book.findings()
    }

    /// All orders of the pieces.
    fn orders(pieces: &[Piece]) -> Vec<Vec<Piece>> {
        if pieces.len() < 2 {
            return vec![pieces.to_vec()];
        }
        let mut all = Vec::new();
        for n in 0..pieces.len() {
            let mut rest = pieces.to_vec();
            let one = rest.remove(n);
            all.extend(orders(&rest).into_iter().map(|mut order| {
                order.push(one);
                order
            }));
        }
        all
    }

    #[test]
    fn code_written_word_by_word_is_one_finding_in_any_order() {
        let words =
            [(0x40, 9, 1, true), (0x44, 5, 2, true), (0x48, 6, 3, true), (0x4c, 7, 4, true)];
        for order in orders(&words) {
            let found = entered(&order);
            let [one] = found.as_slice() else { panic!("{order:?}: {found:?}") };
            assert_eq!((one.count, one.at.seq), (4, 5));
            assert_eq!(one.message, "executes 0x40 (f, 16 bytes) late");
        }
    }

    #[test]
    fn one_store_joins_what_lies_apart_and_two_stores_do_not() {
        let apart = [(0x40, 1, 1, true), (0x80, 2, 1, true)];
        assert!(orders(&apart).iter().all(|o| entered(o).len() == 1));
        let two = [(0x40, 1, 1, true), (0x80, 2, 2, true)];
        for order in orders(&two) {
            let found = entered(&order);
            assert_eq!(found.len(), 2);
            assert_ne!(found[0].fingerprint, found[1].fingerprint);
        }
    }

    #[test]
    fn the_surest_pieces_speak_whatever_the_order() {
        let mixed =
            [(0x40, 1, 1, false), (0x44, 2, 1, true), (0x48, 3, 1, false), (0x4c, 4, 1, true)];
        for order in orders(&mixed) {
            let found = entered(&order);
            let [one] = found.as_slice() else { panic!("{order:?}: {found:?}") };
            assert_eq!((one.confidence, one.level), (Confidence::Certain, Level::Deny));
            // What is only possible is neither in the count nor in the range.
            assert_eq!((one.count, one.less_sure, one.at.seq), (2, 2, 2));
            assert_eq!(one.message, "executes 0x44 (f, 12 bytes) late");
            assert_eq!(one.notes, ["2 more of the kind are possible, not certain"]);
        }
    }
}
