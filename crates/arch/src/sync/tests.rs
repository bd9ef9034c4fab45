//! Every row enumerated: ids, names of instructions, order of steps, and the corrections that the
//! rows embody.

use super::*;
use crate::effect::{CacheScope, Effect, Reach};
use crate::insn;
use std::collections::BTreeSet;

fn arches(family: Family) -> &'static [Arch] {
    match family {
        Family::X86 => &[Arch::X86_64],
        Family::Arm64 => &[Arch::Arm64],
        Family::Powerpc => &[Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32],
    }
}

#[test]
fn ids_are_unique_and_names_exist() {
    let mut ids = BTreeSet::new();
    for r in rules() {
        assert!(ids.insert(r.id), "{} twice", r.id);
        assert!(!r.text.is_empty() && !r.cite.source.is_empty(), "{}", r.id);
        assert_eq!(rule(r.id), Some(r));
    }
    let fetch = FETCH_ROWS.iter().map(|r| (r.rule, r.needs, r.by, r.instead_of));
    let tlb = TRANSLATION_ROWS.iter().map(|r| (r.rule, r.needs, r.by, r.instead_of));
    for (rule, needs, by, instead_of) in fetch.chain(tlb) {
        for id in needs.iter().chain(instead_of.iter()) {
            assert!(ids.contains(id), "{} names {id}", rule.id);
        }
        for arch in arches(rule.scope.family) {
            for name in by {
                assert!(insn::by_name(*arch, name).is_some(), "{}: no {name}", rule.id);
            }
        }
    }
}

#[test]
fn instructions_have_the_effect_that_their_row_needs() {
    for r in FETCH_ROWS {
        for name in r.by {
            let arch = arches(r.rule.scope.family)[0];
            let row = insn::by_name(arch, name).unwrap();
            let amd = r.rule.scope.vendor == Vendor::Amd;
            let serialises = if amd { row.serialising.amd } else { row.serialising.intel };
            let fits = match (r.action, row.effect) {
                (Action::Clean, Effect::CacheClean(_))
                | (Action::Invalidate, Effect::IcacheInvalidate(..))
                | (Action::StoreFence | Action::CompleteClean, Effect::Barrier(..))
                | (Action::CompleteInvalidate, Effect::Barrier(..))
                | (Action::Publish, Effect::Barrier(..) | Effect::StoreRelease)
                | (Action::ContextSync, Effect::ContextSync(_) | Effect::ExceptionReturn) => true,
                (Action::ContextSync, Effect::Trap) => arch != Arch::X86_64,
                (Action::ContextSync, Effect::Branch(_)) => r.rule.disputed,
                (Action::ContextSync, _) => serialises,
                _ => false,
            };
            assert!(fits, "{}: {name} is {:?}", r.rule.id, row.effect);
            if arch == Arch::X86_64 && r.action == Action::ContextSync && !r.rule.disputed {
                assert!(serialises, "{}: {name} does not serialise", r.rule.id);
            }
        }
    }
    // And every instruction that a vendor's list has is named by its row.
    for (features, id) in [
        (Features::empty(), "x86.fetch.serialise-intel"),
        (Features::X86_AMD, "x86.fetch.serialise-amd"),
    ] {
        let row = FETCH_ROWS.iter().find(|r| r.rule.id == id).unwrap();
        for op in insn::rows(Arch::X86_64).iter().filter(|op| op.serialises(features)) {
            assert!(row.by.contains(&op.name), "{id} does not name {}", op.name);
        }
    }
}

fn printed(arch: Arch, features: Features) -> Vec<(u8, &'static str)> {
    chain(arch, features).into_iter().map(|r| (r.step(), r.missing())).collect()
}

#[test]
fn chains_by_architecture_and_features() {
    let flag = "reads-from of a flag stored after the code";
    let all = |a, f: Features| printed(a, Features::default_for(a) | f);
    assert_eq!(
        printed(Arch::Arm64, Features::default_for(Arch::Arm64)),
        [(1, "dc cvau"), (1, "dsb ish"), (2, "ic ivau"), (2, "dsb ish"), (3, "stlr"), (4, "isb")]
    );
    assert_eq!(
        all(Arch::Arm64, Features::ARM_IDC),
        [(1, "dsb ishst"), (2, "ic ivau"), (2, "dsb ish"), (3, "stlr"), (4, "isb")]
    );
    assert_eq!(
        all(Arch::Arm64, Features::ARM_IDC | Features::ARM_DIC),
        [(2, "dsb ishst"), (3, "stlr"), (4, "isb")]
    );
    assert_eq!(all(Arch::X86_64, Features::empty()), [(3, flag), (4, "serialize")]);
    assert_eq!(all(Arch::X86_64, Features::X86_AMD), [(3, flag), (4, "iretq")]);
    for arch in [Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32] {
        assert_eq!(
            printed(arch, Features::PPC_COHERENT_ICACHE),
            [(1, "sync"), (2, "icbi"), (2, "sync"), (3, "lwsync"), (4, "isync")]
        );
        assert_eq!(
            printed(arch, Features::empty()),
            [(1, "dcbst"), (1, "sync"), (2, "icbi"), (2, "sync"), (3, "lwsync"), (4, "isync")]
        );
    }
}

#[test]
fn every_need_that_holds_is_met_earlier_in_the_chain() {
    for arch in Arch::ALL {
        for bits in 0..64u64 {
            let arm = Features::from_bits_truncate(bits);
            let ppc = Features::from_bits_truncate(bits << 32);
            let x86 = Features::from_bits_truncate(bits << 16);
            // DIC without IDC does not exist.
            if arm.contains(Features::ARM_DIC) && !arm.contains(Features::ARM_IDC) {
                continue;
            }
            let features = arm | ppc | x86;
            let rows = chain(arch, features);
            let steps: Vec<u8> = rows.iter().map(|r| r.step()).collect();
            assert!(steps.is_sorted() && steps.last() == Some(&4), "{arch} {features:?}");
            for (i, r) in rows.iter().enumerate() {
                let met = r.needs.is_empty()
                    || r.needs.iter().any(|id| rows[..i].iter().any(|e| e.rule.id == *id));
                assert!(met, "{arch} {features:?}: {}", r.rule.id);
            }
            let tlb = translation_chain(arch, features);
            assert!(tlb.iter().any(|r| r.action <= TlbAction::InvalidateRemote));
            for (i, r) in tlb.iter().enumerate() {
                let met = r.needs.is_empty()
                    || r.needs.iter().any(|id| tlb[..i].iter().any(|e| e.rule.id == *id));
                assert!(met, "{arch} {features:?}: {}", r.rule.id);
            }
        }
    }
}

#[test]
fn translation_chains() {
    let names = |arch, features| -> Vec<&str> {
        translation_chain(arch, features).into_iter().map(TranslationRow::missing).collect()
    };
    assert_eq!(
        names(Arch::Arm64, Features::empty()),
        ["dsb ishst", "tlbi vaae1is", "dsb ish", "isb"]
    );
    assert_eq!(names(Arch::Ppc64le, Features::PPC_TLBIE), ["ptesync", "tlbie", "ptesync", "isync"]);
    assert_eq!(names(Arch::Ppc64le, Features::empty())[1], "tlbiel");
    assert_eq!(names(Arch::X86_64, Features::empty())[0], "invlpg");
    assert_eq!(translation_chain(Arch::X86_64, Features::empty()).len(), 2);
    // Powers differ from the others in that a break is always asked for.
    let breaks = |arch, change| wants_break(arch, Features::default_for(arch), change).is_some();
    assert!(breaks(Arch::Arm64, Change::Size) && !breaks(Arch::X86_64, Change::Size));
    assert!(!breaks(Arch::Arm64, Change::GrantExec));
    let noabort = Features::ARM_BBML2_NOABORT;
    assert!(
        changes(Arch::Arm64, noabort, Change::Size)
            .all(|r| { matches!(r.action, TlbAction::Upgrade(_)) })
    );
}

#[test]
fn the_corrections_are_in_the_rows() {
    let intel = Features::empty();
    let amd = Features::X86_AMD;
    let x = |name: &str| insn::by_name(Arch::X86_64, name).unwrap();
    let holds = |id: &str, arch, f| rule(id).unwrap().scope.holds(arch, f);
    // C1, C2: own stores, by vendor, and the jump disputed.
    assert!(holds("x86.fetch.self-alias-intel", Arch::X86_64, intel));
    assert!(!holds("x86.fetch.self-alias-intel", Arch::X86_64, amd));
    assert!(holds("x86.fetch.self-amd", Arch::X86_64, amd));
    assert!(!rule("x86.fetch.self-jump-intel").unwrap().is_firm());
    // C3: AMD's asynchronous rules.
    let quad = LIVE_ROWS.iter().find(|r| r.rule.id == "x86.live.quadword-amd").unwrap();
    assert_eq!((quad.sees, quad.within_bytes), (live::Sees::QuadwordReadTwice, 8));
    assert!(holds("x86.fetch.expose-amd", Arch::X86_64, amd));
    // C4: who serialises.
    for (name, by_intel, by_amd) in [
        ("mfence", false, true),
        ("wbnoinvd", false, true),
        ("serialize", true, false),
        ("invpcid", true, false),
        ("mov cr8", false, true),
        ("invlpgb", false, false),
        ("tlbsync", false, false),
        ("vmlaunch", false, false),
        ("lfence", false, false),
        ("sysret", false, false),
        ("iretq", true, true),
        ("cpuid", true, true),
    ] {
        assert_eq!(
            (x(name).serialises(intel), x(name).serialises(amd)),
            (by_intel, by_amd),
            "{name}"
        );
    }
    for (msr, by_intel, by_amd) in
        [(0x10, true, true), (0x48, false, false), (0x122, false, true), (0x830, false, false)]
    {
        assert_eq!(insn::msr_write_serialises(false, msr), by_intel);
        assert_eq!(insn::msr_write_serialises(true, msr), by_amd);
    }
    // C5, C6, C7: what may go without invalidation.
    assert!(rule("x86.tlb.grant-user-intel").unwrap().text.contains("SMEP"));
    assert!(rule("x86.tlb.make-valid").unwrap().text.contains("serialising"));
    assert!(holds("x86.tlb.grant-write-amd", Arch::X86_64, amd));
    // C8: TCE.
    assert!(!holds("x86.tlb.local-tce-amd", Arch::X86_64, amd));
    assert!(holds("x86.tlb.local-tce-amd", Arch::X86_64, amd | Features::X86_TCE));
    // C9 to C11: sizes and break-before-make.
    assert!(rule("x86.tlb.size-intel").unwrap().text.contains("set"));
    assert!(rule("arm64.bbm.frame").unwrap().text.contains("writable"));
    for bbml2 in [Features::empty(), Features::ARM_BBML2_NOABORT] {
        let tolerant = !bbml2.is_empty();
        for change in ["size", "contiguous"] {
            let [without, with] = ["", "-bbml2"].map(|end| format!("arm64.bbm.{change}{end}"));
            assert_eq!(holds(&without, Arch::Arm64, bbml2), !tolerant, "{change}");
            assert_eq!(holds(&with, Arch::Arm64, bbml2), tolerant, "{change}");
        }
        assert!(holds("arm64.bbm.memory-type", Arch::Arm64, bbml2));
        assert!(holds("arm64.bbm.group", Arch::Arm64, bbml2));
    }
    // C12: see cache::effective_idc. C13: local maintenance may be broadcast.
    let iallu = insn::by_name(Arch::Arm64, "ic iallu").unwrap();
    assert_eq!(iallu.effect, Effect::IcacheInvalidate(CacheScope::All, Reach::Local));
    assert!(holds("arm64.fetch.invalidate-forced-broadcast", Arch::Arm64, Features::ARM_FB));
    assert!(!holds("arm64.fetch.invalidate-forced-broadcast", Arch::Arm64, Features::empty()));
    // C14: conditional branches.
    let cond = LIVE_ROWS.iter().find(|r| r.rule.id == "arm64.live.condition").unwrap();
    assert_eq!(cond.sees, live::Sees::OldOrNewByField);
    // C15: ETS2 is a feature and the rows say so.
    assert!(rule("arm64.tlb.make-valid").unwrap().text.contains("ETS2"));
    // C16: a polling idle CPU.
    for id in
        ["x86.fetch.serialise-intel", "arm64.fetch.context-sync", "powerpc.fetch.context-sync"]
    {
        let row = FETCH_ROWS.iter().find(|r| r.rule.id == id).unwrap();
        assert!(row.not_by.iter().any(|s| s.contains("polling")), "{id}");
    }
    // C17: Power's list.
    let sync = FETCH_ROWS.iter().find(|r| r.rule.id == "powerpc.fetch.context-sync").unwrap();
    assert!(sync.by.contains(&"sc") && sync.also[0].contains("machine check"));
    assert!(!rule("powerpc.fetch.context-sync-more").unwrap().is_firm());
    // C18: titles before numbers. C19: a broadcast does not synchronise.
    assert!(rule("x86.fetch.serialise-intel").unwrap().cite.source.contains("'Serializing"));
    assert!(rule("x86.tlb.broadcast-amd").unwrap().text.contains("no context"));
}

#[test]
fn live_patchable_lists() {
    use crate::insn::CmodxRevision::{Aa, Da, Latest, Middle};
    let names =
        |arch, revision| -> BTreeSet<&str> { patch_list(arch, revision).map(|r| r.name).collect() };
    let set = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<&str>>();
    let aa = set(&["b", "bl", "nop", "brk", "svc", "hvc", "smc"]);
    assert_eq!(names(Arch::Arm64, Aa), aa);
    let da = &aa | &set(&["isb"]);
    assert_eq!(names(Arch::Arm64, Da), da);
    let middle = &da | &set(&["b.cond", "cbz", "cbnz", "tbz", "tbnz"]);
    assert_eq!(names(Arch::Arm64, Middle), middle);
    let latest = &middle | &set(&["cb<cc>", "cbb<cc>", "cbh<cc>", "trcit", "udf"]);
    assert_eq!(names(Arch::Arm64, Latest), latest);
    assert_eq!(names(Arch::Ppc64le, Aa), set(&["b", "bl", "ba", "bla", "nop"]));
    assert!(names(Arch::X86_64, Latest).is_empty());
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64] {
        for features in [Features::empty(), Features::X86_AMD] {
            let last = live_rows(arch, features).filter(|r| r.sees == live::Sees::Unpredictable);
            assert!(last.count() >= 1, "{arch}");
        }
    }
}
