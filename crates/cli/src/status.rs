//! The exit status, and how those of several inputs join.

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    /// Nothing at deny level.
    Clean,
    /// Findings at deny level, a difference in `test`, or in `run` a CPU that waits for ever and is
    /// not expected to.
    Findings,
    /// Input or arguments that cannot be used.
    Unusable,
    /// Something needed is not modelled or not recorded, or a limit was reached.
    NotModelled,
}

impl Status {
    /// The number for the shell.
    pub(crate) fn code(self) -> u8 {
        match self {
            Status::Clean => 0,
            Status::Findings => 1,
            Status::Unusable => 2,
            Status::NotModelled => 3,
        }
    }

    /// Of two inputs: unusable wins over findings, these over not modelled, that over clean.
    pub(crate) fn and(self, other: Status) -> Status {
        let weight = |s| match s {
            Status::Clean => 0,
            Status::NotModelled => 1,
            Status::Findings => 2,
            Status::Unusable => 3,
        };
        if weight(other) > weight(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::Status::*;

    #[test]
    fn two_wins_over_one_over_three_over_nought() {
        let all = [Clean, NotModelled, Findings, Unusable];
        for (i, weak) in all.into_iter().enumerate() {
            for strong in all.into_iter().skip(i) {
                assert_eq!(weak.and(strong), strong);
                assert_eq!(strong.and(weak), strong);
            }
        }
        assert_eq!(all.map(|s| s.code()), [0, 3, 1, 2]);
    }
}
