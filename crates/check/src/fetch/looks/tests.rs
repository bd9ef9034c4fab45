//! What is known of blocks, and through which changes it stays known.

use textbed_arch::{PhysAddr, VirtAddr};
use textbed_event::View;

use super::*;

#[test]
fn a_change_of_many_pages_concerns_what_lies_there() {
    let at = (0xffff_8000_0040_3000, 0x60_3000);
    let pages = |first, pages: u64| Span::of(first, pages << 12).unwrap();
    type Change = fn(&mut Looks, Span);
    let changes: [(Change, u64); 2] = [(Looks::remapped, at.0), (Looks::stored, at.1)];
    for (change, first) in changes {
        for (span, stays) in [
            (pages(first, 16), false),
            (pages(first, 17), false),
            (pages(first - (16 << 12), 17), false),
            (pages(first - (600 << 12), 1200), false),
            (Span { first: 0, last: u64::MAX }, false),
            (pages(first - (40 << 12), 40), true),
            (pages(first + 4096, 2000), true),
            (pages(first + 4096, 3), true),
        ] {
            let mut looks = Looks::default();
            // Another block in another region.
            let before = (at.0 - (550 << 12), at.1 - (550 << 12));
            for cpu in [CpuId(0), CpuId(70)] {
                looks.judged(cpu, before, 8, 0, Verdict::Plain, 1);
                looks.judged(cpu, at, 8, 0, Verdict::Plain, 1);
                assert!(looks.plain(cpu, at, 8, || 0, 2));
            }
            change(&mut looks, span);
            for cpu in [CpuId(0), CpuId(70)] {
                assert_eq!(looks.plain(cpu, at, 8, || 0, 3), stays, "{span:x?}");
                assert_eq!(looks.known(cpu, at.1, 8, || 0, 4).is_some(), stays, "{span:x?}");
            }
        }
    }
}

/// Two CPUs: what they did stands with the block, by the CPU, or the one so and the other so.
const PAIRS: [(CpuId, CpuId); 4] =
    [(CpuId(0), CpuId(1)), (CpuId(7), CpuId(8)), (CpuId(9), CpuId(70)), (CpuId(70), CpuId(3))];

/// A CPU that found a block plain runs it when another one did so again, and then a part of it.
#[test]
fn what_ran_again_since_it_is_plain_was_judged_then() {
    let at = (0xffff_8000_0040_3000, 0x60_3000);
    for (p, q) in PAIRS {
        let mut looks = Looks::default();
        looks.judged(p, at, 16, 0, Verdict::Plain, 1);
        looks.remapped(Span::of(at.0, 4096).unwrap());
        looks.judged(q, at, 16, 0, Verdict::Plain, 2);
        assert!(looks.plain(p, at, 16, || 0, 3) && looks.plain(p, at, 8, || 0, 4));
        let tail = Span::of(at.1 + 8, 8).unwrap();
        assert_eq!(looks.last_executed(p, tail), Some(4), "nothing changed since");
    }
}

/// What a CPU ran is said of the block as it was then, through whichever page it is plain.
#[test]
fn what_ran_through_one_page_is_known_when_it_is_plain_through_another() {
    let phys = 0x60_3000;
    let [one, other] = [0xffff_8000_0040_3000, 0xffff_9000_0000_0000].map(|virt| (virt, phys));
    for (p, q) in PAIRS {
        let mut looks = Looks::default();
        looks.judged(p, one, 16, 0, Verdict::Plain, 1);
        assert!(looks.plain(q, one, 16, || 0, 2));
        looks.judged(p, other, 16, 0, Verdict::Plain, 3);
        assert!(looks.plain(q, other, 8, || 0, 4));
        let tail = Span::of(phys + 8, 8).unwrap();
        assert_eq!(looks.last_executed(q, tail), Some(4), "nothing changed where it ran");
        looks.remapped(Span::of(one.0, 4096).unwrap());
        assert!(looks.plain(q, other, 4, || 0, 5), "it is plain through the other");
        assert_eq!(looks.last_executed(q, tail), None, "judged anew, with fewer bytes");
    }
}

/// What was found ahead says only where to look: of a fetch with other bytes, through another
/// address, of another CPU or of a block that changed it says nothing.
#[test]
fn a_block_runs_again_only_as_it_ran_before() {
    let fetch = |cpu: CpuId, (virt, phys): (u64, u64), len| {
        let (virt, phys) = (VirtAddr(virt), PhysAddr(phys));
        Event { seq: 9, ..Event::new(cpu, View::Fetch { virt, phys, len }) }
    };
    let at = |n: u64| (0xffff_8000_0040_3000 + n * 32, 0x60_3000 + n * 32);
    for (p, q) in PAIRS {
        let mut looks = Looks::default();
        // More than the index has room for at first.
        for n in 0..80 {
            looks.judged(p, at(n), 16, 0, Verdict::Plain, n + 1);
        }
        for n in 0..80 {
            let found = looks.near(p, at(n).1);
            let mut again = |event: Event| looks.runs_again(&event, found);
            assert!(!again(fetch(p, at(n), 12)) && !again(fetch(p, at(n), 20)));
            assert!(!again(fetch(p, (at(n).0 + 4096, at(n).1), 16)));
            assert!(!again(fetch(p, (at(n).0, at(n).1 + 16), 16)));
            assert!(again(fetch(p, at(n), 16)) || found == NONE, "{n}");
            let found = looks.near(q, at(n).1);
            assert!(!looks.runs_again(&fetch(q, at(n), 16), found), "never by this one");
        }
        let ran = (0..80).filter(|n| looks.near(p, at(*n).1) != NONE).count();
        assert!(ran > 60, "most are where they are looked for first: {ran}");
        let found = looks.near(p, at(5).1);
        assert_eq!(looks.last_executed(p, Span::of(at(5).1, 16).unwrap()), Some(9));
        looks.stored(Span::of(at(5).1, 8).unwrap());
        assert!(!looks.runs_again(&fetch(p, at(5), 16), found), "its bytes changed");
        looks.judged(p, at(6), 16, 0, Verdict::Plain, 85);
        assert!(looks.plain(p, at(6), 16, || 0, 86));
        let before = looks.near(p, at(6).1);
        looks.forget();
        looks.judged(q, at(6), 16, 0, Verdict::Plain, 90);
        for found in [before, looks.near(p, at(6).1)] {
            assert!(!looks.runs_again(&fetch(p, at(6), 16), found), "forgotten");
        }
    }
}

/// With a block an execution is four bytes, which cannot tell the events of the longest streams
/// apart: nothing is known less there, and nothing is taken for what it is not.
#[test]
fn executions_are_known_in_streams_of_any_length() {
    let at = (0xffff_8000_0040_3000, 0x60_3000);
    let block = Span::of(at.1, 16).unwrap();
    for (p, q) in PAIRS {
        let mut looks = Looks::default();
        looks.judged(q, at, 16, 0, Verdict::Plain, 1);
        let mut before = 2;
        for now in [u64::from(u32::MAX) - 2, 1 << 32, (1 << 32) + 1, 1 << 40, (1 << 48) - 2] {
            for now in now..now + 2 {
                assert!(looks.plain(p, at, 16, || 0, now), "{now:x}");
                assert_eq!(looks.last_executed(p, block), Some(now));
                assert!(!looks.executed(p, block, before, now), "{now:x}");
                let tail = Span::of(at.1 + 12, 4).unwrap();
                assert!(looks.plain(p, at, 12, || 0, now), "a part of it");
                assert_eq!(looks.last_executed(p, tail), Some(now));
                before = now + 1;
            }
        }
        assert_eq!(looks.last_executed(q, block), Some(1));
        looks.remapped(Span::of(at.0, 4096).unwrap());
        assert!(!looks.plain(p, at, 16, || 0, before));
        assert_eq!(looks.last_executed(p, block), Some(before - 1), "what ran stays known");
        looks.judged(q, at, 24, 0, Verdict::Plain, before);
        let tail = Span::of(at.1 + 16, 8).unwrap();
        assert_eq!(looks.last_executed(p, tail), None, "plain with more bytes than ran");
        assert!(looks.plain(p, at, 12, || 0, before + 1) && !looks.plain(p, at, 32, || 0, 0));
        assert_eq!(looks.last_executed(p, Span::of(at.1 + 12, 4).unwrap()), None, "anew");
    }
}
