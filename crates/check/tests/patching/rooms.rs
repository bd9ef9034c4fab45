//! Code that is copied past the end of its room: what is another's, and what is not.

use super::*;
use textbed_check::Report;

/// Two rooms of 64 bytes in a page of code, each handed out by a call of its own, or both by one.
fn rooms(arch: Arch, one_maker: bool) -> Story {
    let mut s = running(arch);
    s.emit(0, View::AreaMade { virt: VirtAddr(AREA), len: 4096, shift: 12 });
    let room = |s: &mut Story, at: u64| {
        s.emit(0, View::AreaMade { virt: VirtAddr(AREA + at), len: 64, shift: 6 });
    };
    if one_maker {
        s.call(0, "load", |s, _| [0, 64].into_iter().for_each(|at| room(s, at)));
    } else {
        for at in [0, 64] {
            s.call(0, "ask", |s, _| room(s, at));
        }
    }
    s
}

/// One call stores `pieces` (where, how many bytes) through the alias.
fn copied(mut s: Story, pieces: &[(u64, u64)], byte: u8) -> Report {
    s.call(0, "copy", |s, _| {
        for (at, len) in pieces {
            s.fill(0, DM + FRAME + at, FRAME + at, *len, &[byte]);
        }
    });
    s.run()
}

fn past(report: &Report) -> usize {
    report.findings.iter().filter(|f| f.rule == RuleId::WrongRange).count()
}

#[test]
fn a_copy_goes_on_where_the_next_room_begins() {
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        for pieces in [&[(0, 80)][..], &[(0, 64), (64, 4)], &[(32, 16), (48, 16), (64, 64)]] {
            let report = copied(rooms(arch, false), pieces, 0x11);
            let found = only(&report, RuleId::WrongRange);
            assert!(certain(found) && found.message.contains("past the end of the 64 bytes"));
            assert_eq!(found.at.virt, Some(VirtAddr(AREA + 64)), "{arch} {pieces:?}");
        }
    }
}

#[test]
fn what_stays_in_its_room_or_begins_in_the_next_is_nobodys_business() {
    for pieces in [&[(0, 64)][..], &[(64, 64)], &[(0, 32), (64, 32)], &[(64, 64), (0, 64)]] {
        assert_eq!(past(&copied(rooms(Arch::Arm64, false), pieces, 0x11)), 0, "{pieces:?}");
    }
    // By two calls: the second is about the second room.
    let mut s = rooms(Arch::Arm64, false);
    for at in [0, 64] {
        s.call(0, "copy", |s, _| s.fill(0, DM + FRAME + at, FRAME + at, 64, &[0x11]));
    }
    assert_eq!(past(&s.run()), 0);
}

#[test]
fn whoever_has_both_rooms_may_fill_both() {
    assert_eq!(past(&copied(rooms(Arch::Arm64, true), &[(0, 128)], 0x11)), 0);
    // The second room's owner writes over the end of the first from before its own.
    let mut s = rooms(Arch::Arm64, false);
    s.call(0, "ask and fill", |s, _| {
        s.emit(0, View::AreaMade { virt: VirtAddr(AREA + 128), len: 64, shift: 6 });
        s.fill(0, DM + FRAME + 64, FRAME + 64, 128, &[0x11]);
    });
    assert_eq!(past(&s.run()), 0);
}

#[test]
fn a_room_that_was_given_back_is_nobodys() {
    let mut s = rooms(Arch::Arm64, false);
    s.emit(0, View::AreaRemoved { virt: VirtAddr(AREA + 64), len: 64 });
    assert_eq!(past(&copied(s, &[(0, 80)], 0x11)), 0);
    // Handed out once more it has an owner, and areas that lie in none are no rooms of it.
    let mut s = rooms(Arch::Arm64, false);
    s.emit(0, View::AreaRemoved { virt: VirtAddr(AREA + 64), len: 64 });
    s.call(0, "ask", |s, _| {
        s.emit(0, View::AreaMade { virt: VirtAddr(AREA + 64), len: 128, shift: 6 });
    });
    assert_eq!(past(&copied(s, &[(0, 80)], 0x11)), 1);
    let mut s = rooms(Arch::Arm64, false);
    s.emit(0, View::AreaRemoved { virt: VirtAddr(AREA), len: 4096 });
    for at in [0, 64] {
        s.emit(0, View::AreaMade { virt: VirtAddr(AREA + at), len: 64, shift: 6 });
    }
    assert_eq!(past(&copied(s, &[(0, 80)], 0x11)), 0);
    // An area that is told once more is the area, and not a room in it.
    let mut s = rooms(Arch::Arm64, false);
    s.call(0, "ask", |s, _| {
        s.emit(0, View::AreaMade { virt: VirtAddr(AREA), len: 4096, shift: 12 });
    });
    s.call(0, "ask", |s, _| {
        s.emit(0, View::AreaMade { virt: VirtAddr(AREA + 64), len: 64, shift: 6 });
    });
    assert_eq!(past(&copied(s, &[(0, 80)], 0x11)), 0);
}

#[test]
fn bytes_that_stay_as_they_are_are_no_loss() {
    let mut s = rooms(Arch::Arm64, false);
    s.flags = Flags::EQUAL_BYTES;
    assert_eq!(past(&copied(s, &[(0, 80)], 0x90)), 0);
}
