//! Maps of spans against arrays.

use super::*;
use proptest::prelude::*;

flat_piece!(u8);

/// A value that moves with its address, as a physical address does.
#[derive(Clone, PartialEq, Debug)]
struct Moving(u64);
impl Piece for Moving {
    fn skip(&mut self, bytes: u64) {
        self.0 += bytes;
    }
    fn goes_on_as(&self, len: u64, next: &Self) -> bool {
        self.0 + len == next.0
    }
}

#[test]
fn the_last_byte_of_the_space_can_be_mapped() {
    let mut map = SpanMap::<u8>::default();
    map.insert(Span::of(u64::MAX - 4095, 1 << 60).unwrap(), 7);
    assert_eq!(map.get(u64::MAX).map(|(s, v)| (s.len(), *v)), Some((4096, 7)));
    map.remove(Span { first: u64::MAX, last: u64::MAX });
    assert!(map.get(u64::MAX).is_none() && map.get(u64::MAX - 1).is_some());
}

#[test]
fn moving_values_merge_only_where_they_go_on() {
    let mut map = SpanMap::<Moving>::default();
    map.insert(Span::of(0x1000, 0x1000).unwrap(), Moving(0x9000));
    map.insert(Span::of(0x2000, 0x1000).unwrap(), Moving(0xa000));
    assert_eq!(map.entries(), 1);
    map.insert(Span::of(0x3000, 0x1000).unwrap(), Moving(0x5000));
    assert_eq!(map.entries(), 2);
    let clipped: Vec<_> = map.within(Span::of(0x1800, 8).unwrap()).collect();
    assert_eq!(clipped, [(Span { first: 0x1800, last: 0x1807 }, Moving(0x9800))]);
}

type Ops = Vec<(u64, u64, u8, u8)>;

fn ops() -> impl Strategy<Value = Ops> {
    prop::collection::vec((0u64..64, 1u64..20, 0u8..4, 0u8..4), 1..60)
}

/// A map against an array of 64 values for `unit` bytes each.
fn agrees<const SHIFT: u32>(ops: Ops, unit: u64) -> Result<(), TestCaseError> {
    let mut map = Granular::<u8, SHIFT>::default();
    let mut cells = [None::<u8>; 64];
    for (first, len, value, what) in ops {
        let len = len.min(64 - first);
        let span = Span::of(first * unit, len * unit).unwrap();
        let range = first as usize..(first + len) as usize;
        match what {
            0 => {
                map.insert(span, value);
                cells[range.clone()].fill(Some(value));
            }
            1 => {
                map.remove(span);
                cells[range.clone()].fill(None);
            }
            2 => {
                map.change(span, |_, v| {
                    *v = v.wrapping_sub(value) & 3;
                    *v != 0
                });
                for cell in &mut cells[range.clone()] {
                    let next = cell.map(|v| v.wrapping_sub(value) & 3);
                    *cell = next.filter(|v| *v != 0);
                }
            }
            _ => {
                let next = |v: Option<u8>| match v {
                    None => Some(value),
                    Some(3) => None,
                    Some(v) => Some(v + 1),
                };
                map.update(span, |_, v| next(v.copied()));
                for cell in &mut cells[range.clone()] {
                    *cell = next(*cell);
                }
            }
        }
        for (at, cell) in cells.iter().enumerate() {
            prop_assert_eq!(map.get(at as u64 * unit).map(|(_, v)| *v), *cell);
        }
        // Whatever is asked for, there is the part of it that each cell has.
        prop_assert_eq!(map.meets(span), cells[range.clone()].iter().any(Option::is_some));
        let parts: Vec<_> = map.parts(span).collect();
        prop_assert!(parts.is_sorted_by(|(a, _), (b, _)| a.last < b.first));
        for at in range {
            let (first, last) = (at as u64 * unit, (at as u64 + 1) * unit - 1);
            let part = parts.iter().find(|(part, _)| part.first <= first && last <= part.last);
            prop_assert_eq!(part.map(|(_, v)| **v), cells[at]);
        }
        // Equal neighbours are one entry.
        let runs = cells.chunk_by(|a, b| a == b).filter(|run| run[0].is_some()).count();
        prop_assert_eq!(map.entries(), runs);
    }
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_an_array(ops in ops()) {
        // Cells of four bytes, so that entries of both sorts meet.
        agrees::<2>(ops, 1)?;
    }

    /// What is no cell lies in blocks of its own, and in more than are noted one by one.
    #[test]
    fn agrees_with_an_array_over_many_blocks(ops in ops()) {
        agrees::<14>(ops.clone(), 4096)?;
        agrees::<20>(ops, 1 << 17)?;
    }
}
