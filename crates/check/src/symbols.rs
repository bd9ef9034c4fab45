//! Whose memory is whose: regions as the stream names them, for messages and fingerprints.

use textbed_event::{Flags, NameId, NameTable};

use crate::finding::Place;
use crate::span::{Span, SpanMap};

/// One region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Region {
    owner: NameId,
    name: NameId,
    span: Span,
    /// The name is an order number of this recording.
    numbered: bool,
    /// Others get their places in it.
    zone: bool,
}

/// The regions over one range, the one told last on top.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Stack(Vec<Region>);

crate::span::flat_piece!(Stack);

/// Regions kept over one address; past it the lowest goes.
const MAX_DEPTH: usize = 8;

/// The regions known now. They nest: a program lies in a pack, the pack in an area, the area in a
/// zone of the layout.
#[derive(Default, Debug)]
pub(crate) struct Symbols {
    regions: SpanMap<Stack>,
}

impl Symbols {
    pub(crate) fn add(&mut self, (virt, len): (u64, u64), owner: NameId, name: NameId, of: Flags) {
        let Some(span) = Span::of(virt, len) else { return };
        let (numbered, zone) = (of.has(Flags::NUMBERED), of.has(Flags::ZONE));
        let region = Region { owner, name, span, numbered, zone };
        self.regions.update(span, |_, stack| {
            let mut stack = stack.cloned().unwrap_or_default();
            stack.0.retain(|r| *r != region);
            stack.0.push(region);
            if stack.0.len() > MAX_DEPTH {
                stack.0.remove(0);
            }
            Some(stack)
        });
    }

    /// The range was given back: regions that lie in it are gone, those around it stay.
    pub(crate) fn forget(&mut self, virt: u64, len: u64) {
        let Some(span) = Span::of(virt, len) else { return };
        self.regions.update(span, |_, stack| {
            let mut stack = stack?.clone();
            stack.0.retain(|r| r.span.meet(span) != Some(r.span));
            (!stack.0.is_empty()).then_some(stack)
        });
    }

    /// What of the symbol another run has too.
    pub(crate) fn place(&self, virt: u64, names: &NameTable) -> Option<Place> {
        let top = self.top(virt)?;
        let region = match top.numbered {
            true => names.get(top.owner).to_owned(),
            false => Self::title(top, names),
        };
        let known = !top.zone && !top.numbered;
        let offset = known.then_some(virt - top.span.first);
        let moving = top.zone.then_some(virt - top.span.first);
        Some(Place { region, offset, moving })
    }

    fn top(&self, virt: u64) -> Option<&Region> {
        self.regions.get(virt)?.1.0.last()
    }

    /// `owner name+0x..`, if anybody owns the address.
    pub(crate) fn symbol(&self, virt: u64, names: &NameTable) -> Option<String> {
        let region = self.top(virt)?;
        let offset = virt - region.span.first;
        Some(format!("{}+{offset:#x}", Self::title(region, names)))
    }

    /// `owner name`, or `unknown`.
    pub(crate) fn owner(&self, virt: u64, names: &NameTable) -> String {
        match self.top(virt) {
            Some(region) => Self::title(region, names),
            None => "unknown".to_owned(),
        }
    }

    fn title(region: &Region, names: &NameTable) -> String {
        let (owner, name) = (names.get(region.owner), names.get(region.name));
        match (owner.is_empty(), name.is_empty()) {
            (false, false) => format!("{owner} {name}"),
            (false, true) => owner.to_owned(),
            (true, false) => name.to_owned(),
            (true, true) => "region".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use textbed_event::Batch;

    #[test]
    fn offsets_count_from_the_start_of_the_region() {
        let mut names = NameTable::default();
        let list = ["bpf".to_owned(), "prog".to_owned()].to_vec();
        names.absorb(&Batch { name_base: 1, names: list, ..Batch::default() });
        let mut symbols = Symbols::default();
        symbols.add((0x1000, 0x3000), NameId(1), NameId(2), Flags::default());
        symbols.add((0x2000, 0x1000), NameId(1), NameId::NONE, Flags::default());
        assert_eq!(symbols.symbol(0x3010, &names).as_deref(), Some("bpf prog+0x2010"));
        assert_eq!(symbols.symbol(0x2004, &names).as_deref(), Some("bpf+0x4"));
        assert_eq!(symbols.symbol(0x4000, &names), None);
        // What lies in the range goes, what reaches over it stays.
        symbols.forget(0x2000, 0x1000);
        assert_eq!(symbols.symbol(0x2004, &names).as_deref(), Some("bpf prog+0x1004"));
        symbols.forget(0x1000, 0x3000);
        assert_eq!(symbols.symbol(0x3010, &names), None);
    }

    #[test]
    fn places_say_what_another_run_has_too() {
        let mut names = NameTable::default();
        let list = ["bpf".to_owned(), "#3".to_owned(), "areas".to_owned()].to_vec();
        names.absorb(&Batch { name_base: 1, names: list, ..Batch::default() });
        let mut symbols = Symbols::default();
        let place =
            |s: &Symbols, virt| s.place(virt, &names).map(|p| (p.region, p.offset, p.moving));
        symbols.add((0x1000, 0x9000), NameId(3), NameId::NONE, Flags::ZONE);
        assert_eq!(place(&symbols, 0x2040), Some(("areas".to_owned(), None, Some(0x1040))));
        symbols.add((0x2000, 0x100), NameId(1), NameId(2), Flags::NUMBERED);
        assert_eq!(place(&symbols, 0x2040), Some(("bpf".to_owned(), None, None)));
        symbols.add((0x2000, 0x100), NameId(1), NameId(3), Flags::default());
        assert_eq!(place(&symbols, 0x2040), Some(("bpf areas".to_owned(), Some(0x40), None)));
    }
}
