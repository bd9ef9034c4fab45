//! The machine's fetches against the windows of arm64 protocols, for the three cache
//! configurations: `newest` returns the high end, `stalest` the low end, and seeds nothing outside.
//!
//! Examples 1 to 9 are those of the fetch-window algorithm's description (its tests agree with
//! recorded litmus verdicts); versions are 0 (old), 1, 2.

// Functions beside the tests may fail a test, too.
#![allow(clippy::unwrap_used)]

mod common;

use common::{P0, P1, P2, Rig, runs};
use textbed_arch::Features;

const C00: Features = Features::empty();
const IDC: Features = Features::ARM_IDC;
const DIC: Features = Features::ARM_IDC.union(Features::ARM_DIC);
const ALL: [Features; 3] = [C00, IDC, DIC];

/// The window of the last fetch of a program, as the machine shows it.
#[track_caller]
fn window(features: Features, low: u32, high: u32, program: impl Fn(&mut Rig) -> u32) {
    let seen = runs(|policy| Rig::arm(features, policy), program);
    let all: Vec<u32> = seen.all.iter().copied().collect();
    let expected: Vec<u32> = (low..=high).collect();
    assert_eq!(all, expected, "{features:?}");
    assert_eq!((seen.stalest, seen.newest), (low, high), "{features:?}");
}

const SYNC: [&str; 4] = ["dc cvau", "dsb ish", "ic ivau", "dsb ish"];

#[test]
fn example_1_store_then_fetch() {
    for features in ALL {
        window(features, 0, 1, |r| {
            r.str(P0, 0, 1);
            r.fetch(P0, 0)
        });
    }
}

#[test]
fn example_2_cachesync_isb_and_each_part_left_out() {
    let parts = ["dc cvau", "dsb ish", "ic ivau", "dsb ish", "isb"];
    // What may be left out, by configuration: part number -> low end.
    let rows: &[(Features, [u32; 5])] =
        &[(C00, [0, 0, 0, 0, 0]), (IDC, [1, 0, 0, 0, 0]), (DIC, [1, 1, 1, 1, 0])];
    for (features, lows) in rows {
        window(*features, 1, 1, |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &parts, 0);
            r.fetch(P0, 0)
        });
        for (left_out, low) in lows.iter().enumerate() {
            window(*features, *low, 1, |r| {
                r.str(P0, 0, 1);
                for (n, part) in parts.iter().enumerate() {
                    if n != left_out {
                        r.op(P0, part, 0);
                    }
                }
                r.fetch(P0, 0)
            });
        }
    }
}

#[test]
fn dic_needs_a_barrier_and_isb() {
    window(DIC, 1, 1, |r| {
        r.str(P0, 0, 1);
        r.ops(P0, &["dsb ish", "isb"], 0);
        r.fetch(P0, 0)
    });
    for missing in ["dsb ish", "isb", "dmb ish", "dmb ishst"] {
        window(DIC, 0, 1, |r| {
            r.str(P0, 0, 1);
            r.op(P0, missing, 0);
            if missing.starts_with("dmb") {
                r.op(P0, "isb", 0);
            }
            r.fetch(P0, 0)
        });
    }
    window(DIC, 1, 1, |r| {
        r.str(P0, 0, 1);
        r.ops(P0, &["dsb ishst", "isb"], 0);
        r.fetch(P0, 0)
    });
}

#[test]
fn neither_dmb_nor_isb_completes_an_ic() {
    for (features, end) in
        [(C00, "dmb ish"), (IDC, "dmb ish"), (C00, "dsb ishst"), (C00, "dsb ishld")]
    {
        window(features, 0, 1, |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &["dc cvau", "dsb ish", "ic ivau", end, "isb"], 0);
            r.fetch(P0, 0)
        });
    }
}

#[test]
fn what_stands_between_clean_and_invalidation() {
    let rows = [
        (C00, "dsb ish", 1),
        (C00, "dsb ishst", 0),
        (C00, "dsb ishld", 0),
        (C00, "dmb ish", 0),
        (C00, "isb", 0),
        (IDC, "dsb ish", 1),
        (IDC, "dsb ishst", 1),
        (IDC, "dmb ish", 0),
    ];
    for (features, between, low) in rows {
        window(features, low, 1, |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &["dc cvau", between, "ic ivau", "dsb ish", "isb"], 0);
            r.fetch(P0, 0)
        });
    }
}

#[test]
fn another_cpu_cleans_what_it_knows_of() {
    for (knows, low) in [(true, 1), (false, 0)] {
        window(C00, low, 1, |r| {
            r.str(P0, 0, 1);
            r.m.publish(P0, "stored", 1);
            if knows {
                r.m.observe(P1, "stored");
            }
            r.ops(P1, &SYNC, 0);
            r.op(P1, "isb", 0);
            r.fetch(P1, 0)
        });
    }
}

#[test]
fn a_synchronisation_in_between_proves_nothing_about_an_early_invalidation() {
    // No barrier between clean and invalidation; the reader's first ISB comes before the DSB.
    window(C00, 0, 1, |r| {
        r.str(P0, 0, 1);
        r.ops(P0, &["dc cvau", "ic ivau"], 0);
        r.op(P1, "isb", 0);
        r.op(P0, "dsb ish", 0);
        r.m.publish(P0, "flag", 1);
        r.m.observe(P1, "flag");
        r.op(P1, "isb", 0);
        r.fetch(P1, 0)
    });
}

#[test]
fn example_3_message_passing() {
    for features in ALL {
        // The reader sees the flag and synchronises.
        window(features, 1, 1, |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &SYNC, 0);
            r.m.publish(P0, "flag", 1);
            assert_eq!(r.m.observe(P1, "flag"), Some(1));
            r.op(P1, "isb", 0);
            r.fetch(P1, 0)
        });
        // Without ISB.
        window(features, 0, 1, |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &SYNC, 0);
            r.m.publish(P0, "flag", 1);
            assert_eq!(r.m.observe(P1, "flag"), Some(1));
            r.fetch(P1, 0)
        });
        // The reader looked too early.
        window(features, 0, 1, |r| {
            assert_eq!(r.m.observe(P1, "flag"), None);
            r.op(P1, "isb", 0);
            r.str(P0, 0, 1);
            r.ops(P0, &SYNC, 0);
            r.m.publish(P0, "flag", 1);
            r.fetch(P1, 0)
        });
    }
    // Another CPU's store needs no barrier of this one.
    window(DIC, 1, 1, |r| {
        r.str(P0, 0, 1);
        r.m.publish(P0, "flag", 1);
        r.m.observe(P1, "flag");
        r.op(P1, "isb", 0);
        r.fetch(P1, 0)
    });
    // A flag by DMB alone, without maintenance: enough only where nothing is cached.
    for (features, low) in [(C00, 0), (IDC, 0), (DIC, 1)] {
        window(features, low, 1, |r| {
            r.str(P0, 0, 1);
            r.op(P0, "dmb ish", 0);
            r.m.publish(P0, "flag", 1);
            assert_eq!(r.m.observe(P1, "flag"), Some(1));
            r.op(P1, "isb", 0);
            r.fetch(P1, 0)
        });
    }
}

/// Two functions on different lines; the reader calls f2, then f1, without ISB.
#[test]
fn example_4_the_fetch_anchor() {
    let f2 = 0x200;
    for features in ALL {
        let seen = runs(
            |policy| Rig::arm(features, policy),
            |r| {
                r.str(P0, 0, 1);
                r.ops(P0, &SYNC, 0);
                r.str(P0, f2, 1);
                (r.fetch(P1, f2), r.fetch(P1, 0))
            },
        );
        let all: Vec<_> = seen.all.into_iter().collect();
        assert_eq!(all, [(0, 0), (0, 1), (1, 1)], "{features:?}");
    }
    for (features, anchored) in [(C00, false), (IDC, false), (DIC, true)] {
        let seen = runs(
            |policy| Rig::arm(features, policy),
            |r| {
                r.str(P0, 0, 1);
                r.op(P0, "dmb ish", 0);
                r.str(P0, f2, 1);
                (r.fetch(P1, f2), r.fetch(P1, 0))
            },
        );
        assert_eq!(seen.all.contains(&(1, 0)), !anchored, "{features:?}");
        assert!(seen.all.contains(&(0, 0)) && seen.all.contains(&(1, 1)));
    }
}

#[test]
fn example_5_fetched_new_never_loads_old() {
    for features in ALL {
        for order in 0..3 {
            let seen = runs(
                |policy| Rig::arm(features, policy),
                |r| {
                    let (mut fetched, mut loaded) = (0, 0);
                    for step in 0..3 {
                        if step == order {
                            r.str(P0, 0, 1);
                        }
                        match step {
                            0 => fetched = r.fetch(P1, 0),
                            1 => loaded = r.load(P1, 0),
                            _ => {}
                        }
                    }
                    (fetched, loaded)
                },
            );
            assert!(!seen.all.contains(&(1, 0)), "{features:?} {order}");
            assert_eq!(seen.all.contains(&(0, 1)), order < 2, "{features:?} {order}");
        }
    }
}

#[test]
fn example_6_the_sequence_may_be_split_over_cpus() {
    for features in [C00, IDC] {
        window(features, 1, 1, |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &["dc cvau", "dmb ish"], 0);
            r.m.publish(P0, "x", 1);
            assert_eq!(r.m.observe(P1, "x"), Some(1));
            r.ops(P1, &["ic ivau", "dsb ish"], 0);
            r.m.publish(P1, "y", 1);
            assert_eq!(r.m.observe(P2, "y"), Some(1));
            r.op(P2, "isb", 0);
            r.fetch(P2, 0)
        });
    }
    // The IC before the clean is known: nothing.
    window(C00, 0, 1, |r| {
        r.str(P0, 0, 1);
        r.ops(P1, &["ic ivau", "dsb ish"], 0);
        r.ops(P0, &["dc cvau", "dmb ish"], 0);
        r.m.publish(P1, "y", 1);
        assert_eq!(r.m.observe(P2, "y"), Some(1));
        r.op(P2, "isb", 0);
        r.fetch(P2, 0)
    });
}

#[test]
fn example_7_having_been_fetched_elsewhere_is_no_clean() {
    for (features, low) in [(C00, 0), (IDC, 1)] {
        let seen = runs(
            |policy| Rig::arm(features, policy),
            |r| {
                r.str(P0, 0, 1);
                let first = r.fetch(P1, 0);
                r.ops(P1, &["ic ivau", "dsb ish"], 0);
                r.m.publish(P1, "flag", 1);
                assert_eq!(r.m.observe(P0, "flag"), Some(1));
                r.op(P0, "isb", 0);
                (first, r.fetch(P0, 0))
            },
        );
        // Where CPU 1 fetched the new version.
        let after: Vec<u32> = seen.all.iter().filter(|(f, _)| *f == 1).map(|(_, a)| *a).collect();
        assert_eq!(after, (low..=1).collect::<Vec<_>>(), "{features:?}");
    }
}

#[test]
fn a_load_counts_as_known_to_what_follows() {
    // As if a branch hung on it; without one the architecture allows version 0 here.
    window(C00, 1, 1, |r| {
        r.str(P0, 0, 1);
        r.ops(P0, &["dc cvau", "dmb ish"], 0);
        r.str(P0, 0x3000, 1);
        assert_eq!(r.load(P1, 0x3000), 1);
        r.ops(P1, &["ic ivau", "dsb ish", "isb"], 0);
        r.fetch(P1, 0)
    });
}

#[test]
fn a_fetch_knows_of_its_own_bytes_only() {
    // CPU 1 fetches a word that nobody stored to, from a line in which another one was stored.
    window(IDC, 0, 1, |r| {
        r.str(P0, 0x44, 1);
        r.fetch(P1, 0x40);
        r.ops(P1, &["ic ivau", "dsb ish"], 0x40);
        r.m.publish(P1, "flag", 1);
        r.m.observe(P0, "flag");
        r.op(P0, "isb", 0);
        r.fetch(P0, 0x44)
    });
}

#[test]
fn an_invalidation_comes_after_the_fetches_that_got_what_it_drops() {
    let seen = runs(
        |policy| Rig::arm(C00, policy),
        |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &["dc cvau", "dsb ish"], 0);
            r.str(P0, 0, 2);
            r.ops(P0, &["dc cvau", "ic ivau"], 0);
            r.op(P1, "isb", 0);
            let before = r.fetch(P1, 0);
            r.op(P0, "dsb ish", 0);
            r.m.publish(P0, "flag", 1);
            r.m.observe(P1, "flag");
            r.op(P1, "isb", 0);
            (before, r.fetch(P1, 0))
        },
    );
    // It dropped version 0 after CPU 1 got that, hence after the second clean was issued.
    let all: Vec<_> = seen.all.into_iter().collect();
    assert_eq!(all, [(0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]);
}

#[test]
fn example_8_two_stores_without_a_clean() {
    for (features, low) in [(C00, 0), (IDC, 2), (DIC, 2)] {
        let seen = runs(
            |policy| Rig::arm(features, policy),
            |r| {
                r.str(P0, 0, 1);
                r.str(P0, 0, 2);
                r.ops(P0, &["dsb ish", "ic ivau", "dsb ish"], 0);
                r.m.publish(P0, "flag", 1);
                let mut got = [0, 0];
                for (n, cpu) in [P1, P2].into_iter().enumerate() {
                    assert_eq!(r.m.observe(cpu, "flag"), Some(1));
                    r.op(cpu, "isb", 0);
                    got[n] = r.fetch(cpu, 0);
                }
                got
            },
        );
        // Independently of each other.
        let expected: Vec<[u32; 2]> =
            (low..=2).flat_map(|a| (low..=2).map(move |b| [a, b])).collect();
        assert_eq!(seen.all.into_iter().collect::<Vec<_>>(), expected, "{features:?}");
    }
}

#[test]
fn example_9_two_fetches_of_one_word() {
    for (features, new_then_old) in [(C00, true), (IDC, true), (DIC, false)] {
        let seen = runs(
            |policy| Rig::arm(features, policy),
            |r| {
                r.str(P0, 0, 1);
                (r.fetch(P1, 0), r.fetch(P1, 0))
            },
        );
        assert_eq!(seen.all.contains(&(1, 0)), new_then_old, "{features:?}");
        assert!(seen.all.contains(&(0, 0)) && seen.all.contains(&(0, 1)));
    }
}

#[test]
fn many_values_in_an_icache_without_ic() {
    // Cleaned but never invalidated: new, middle and old in turn.
    let seen = runs(
        |policy| Rig::arm(C00, policy),
        |r| {
            r.str(P0, 0, 1);
            r.ops(P0, &["dc cvau", "dsb ish"], 0);
            r.str(P0, 0, 2);
            r.ops(P0, &["dc cvau", "dsb ish"], 0);
            [0; 3].map(|_| {
                r.op(P1, "isb", 0);
                r.fetch(P1, 0)
            })
        },
    );
    assert!(seen.all.contains(&[2, 1, 0]));
}

#[test]
fn a_local_invalidation_leaves_other_cpus_stale_unless_it_is_forced() {
    let program = |r: &mut Rig| {
        r.str(P0, 0, 1);
        r.ops(P0, &["dc cvau", "dsb ish", "ic iallu", "dsb ish"], 0);
        r.m.publish(P0, "flag", 1);
        r.m.observe(P1, "flag");
        r.ops(P1, &["isb"], 0);
        r.op(P0, "isb", 0);
        assert_eq!(r.fetch(P0, 0), 1);
        r.fetch(P1, 0)
    };
    window(C00, 0, 1, program);
    window(C00.union(Features::ARM_FB), 1, 1, program);
}

#[test]
fn neighbours_on_a_line_are_cleaned_and_invalidated_together() {
    window(C00, 1, 1, |r| {
        r.str(P0, 0x40, 1);
        r.str(P0, 0x44, 1);
        r.ops(P0, &SYNC, 0x7c);
        r.op(P0, "isb", 0);
        r.fetch(P0, 0x40).min(r.fetch(P0, 0x44))
    });
    // Another line is not.
    window(C00, 0, 1, |r| {
        r.str(P0, 0x40, 1);
        r.ops(P0, &SYNC, 0x80);
        r.op(P0, "isb", 0);
        r.fetch(P0, 0x40)
    });
}

#[test]
fn equal_bytes_make_no_version() {
    window(C00, 0, 0, |r| {
        r.str(P0, 0, 0);
        r.fetch(P0, 0)
    });
}

#[test]
fn an_interrupt_synchronises_where_eis_says_so() {
    for (drop, low) in [(Features::empty(), 1), (Features::ARM_EIS | Features::ARM_EOS, 0)] {
        let seen = runs(
            |policy| {
                let all = DIC | Features::ARM_EIS | Features::ARM_EOS;
                Rig::new(textbed_arch::Arch::Arm64, all.difference(drop), policy)
            },
            |r| {
                r.str(P0, 0, 1);
                r.op(P0, "dsb ish", 0);
                let all = textbed_machine::CpuMask::first(3);
                r.m.ipi(P0, all, "nothing", true, &mut |_, _| Ok(())).unwrap();
                r.fetch(P1, 0)
            },
        );
        assert_eq!((seen.stalest, seen.newest), (low, 1));
    }
}
