//! A partial order that stays transitively closed while edges come to it.

/// For each of at most 128 effects the set of effects after it.
#[derive(Clone, Debug)]
pub(super) struct Graph {
    after: Vec<u128>,
    /// An effect came to be before itself.
    cyclic: bool,
}

/// The places of the bits that are set.
pub(super) fn bits(mut set: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(at)
    })
}

impl Graph {
    /// From rows that are closed already.
    pub(super) fn of(after: Vec<u128>) -> Self {
        Self { after, cyclic: false }
    }

    pub(super) fn has(&self, a: usize, b: usize) -> bool {
        self.after[a] >> b & 1 != 0
    }

    pub(super) fn after(&self, a: usize) -> u128 {
        self.after[a]
    }

    /// Puts `a` before `b`; whether that was new.
    pub(super) fn add(&mut self, a: usize, b: usize) -> bool {
        if self.has(a, b) {
            return false;
        }
        self.cyclic |= a == b || self.has(b, a);
        let more = self.after[b] | 1 << b;
        for (x, row) in self.after.iter_mut().enumerate() {
            if x == a || *row >> a & 1 != 0 {
                *row |= more;
            }
        }
        true
    }

    pub(super) fn is_cyclic(&self) -> bool {
        self.cyclic
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[allow(clippy::needless_range_loop)] // a matrix
    fn close(plain: &mut [[bool; 12]; 12]) {
        for via in 0..12 {
            for x in 0..12 {
                for y in 0..12 {
                    plain[x][y] |= plain[x][via] && plain[via][y];
                }
            }
        }
    }

    proptest! {
        #[test]
        fn stays_closed(edges in prop::collection::vec((0usize..12, 0usize..12), 0..30)) {
            let mut graph = Graph::of(vec![0; 12]);
            let mut plain = [[false; 12]; 12];
            for (a, b) in edges {
                let new = !plain[a][b];
                prop_assert_eq!(graph.add(a, b), new);
                plain[a][b] = true;
                close(&mut plain);
                for (x, row) in plain.iter().enumerate() {
                    let row: Vec<usize> = (0..12).filter(|y| row[*y]).collect();
                    prop_assert_eq!(bits(graph.after(x)).collect::<Vec<_>>(), row);
                }
                prop_assert_eq!(graph.is_cyclic(), (0..12).any(|x| plain[x][x]));
            }
        }
    }
}
