//! Which line is chosen, and what differs.

use proptest::prelude::*;

use super::*;
use crate::syntax::parse;

fn file(lines: &str) -> File {
    parse(&format!("scenario \"s\"\n{lines}")).unwrap()
}

fn finding(rule: &str, missing: &[&str], label: Option<&str>, count: u64) -> Finding {
    Finding {
        rule: rule.to_owned(),
        possible: false,
        missing: missing.iter().map(|m| (*m).to_owned()).collect(),
        label: label.map(str::to_owned),
        count,
    }
}

fn chosen(lines: &str, arch: Arch, kernel: &str, reading: Reading) -> String {
    let source = format!("scenario \"s\"\n{lines}");
    let kernel = Version::parse(kernel).unwrap();
    let run = Run { arch, kernel: &kernel, reading, end: End::Ended, findings: &[] };
    match check(&parse(&source).unwrap(), &run) {
        Verdict::NothingExpected => "nothing".to_owned(),
        Verdict::Ambiguous(lines) => format!("{} lines", lines.len()),
        Verdict::Compared { line, .. } => line.text(&source).to_owned(),
    }
}

#[test]
fn the_most_specific_line_is_chosen() {
    use Arch::*;
    use Reading::*;
    let lines = "expect: a-rule\n\
        expect powerpc: b-rule\n\
        expect ppc64: c-rule\n\
        expect powerpc reading fresh: d-rule\n\
        expect arm64 kernel 5.18..6.12: e-rule\n\
        expect arm64 kernel 6.2: f-rule\n\
        expect kernel 5.18-rc3: g-rule\n";
    let at = |arch, kernel, reading| {
        let line = chosen(lines, arch, kernel, reading);
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(at(X86_64, "6.12", Mapped), "a-rule");
    assert_eq!(at(Ppc64le, "6.12", Mapped), "b-rule");
    assert_eq!(at(Ppc64, "6.12", Mapped), "c-rule");
    assert_eq!(at(Ppc64, "6.12", Fresh), "d-rule");
    assert_eq!(at(Arm64, "6.12", Strict), "e-rule", "a range holds its last version");
    assert_eq!(at(Arm64, "5.18", Strict), "e-rule");
    assert_eq!(at(Arm64, "5.18-rc4", Strict), "a-rule", "before the range");
    assert_eq!(at(Arm64, "6.2", Strict), "f-rule");
    assert_eq!(at(X86_64, "5.18-rc3", Strict), "g-rule");
    assert_eq!(at(Ppc64, "5.18-rc3", Mapped), "c-rule", "fewer architectures win first");
    assert_eq!(chosen("expect arm64: none", X86_64, "6.12", Mapped), "nothing");
    assert_eq!(chosen("expect arm64: none\nexpect aarch64: none", Arm64, "6.1", Fresh), "2 lines");
}

#[test]
fn collisions_are_those_of_equal_specificity_that_meet() {
    let collide = |a: &str, b: &str| {
        let of = |selectors: &str| {
            let file = file(&format!("expect {selectors}: none"));
            let Block::Expect(expect) = &file.blocks[0].value else { panic!() };
            Applies::resolve(&expect.selectors).unwrap()
        };
        let (a, b) = (of(a), of(b));
        assert_eq!(a.collides_with(&b), b.collides_with(&a));
        a.collides_with(&b)
    };
    assert!(collide("", ""));
    assert!(collide("arm64", "aarch64"));
    assert!(!collide("arm64", "x86_64"));
    assert!(!collide("arm64", "arm64 x86_64"));
    assert!(collide("arm64 x86_64", "ppc64 x86_64"));
    assert!(!collide("powerpc", "ppc64"));
    assert!(collide("kernel 5.18..6.2", "kernel 6.2..6.12"));
    assert!(!collide("kernel 5.18..6.1", "kernel 6.2..6.12"));
    assert!(!collide("kernel 5.18..6.2", "kernel 6.1"));
    assert!(collide("reading strict", "reading strict"));
    assert!(!collide("reading strict", "reading mapped"));
    assert!(!collide("reading strict", "arm64"), "fewer architectures win");
}

#[test]
fn selectors_that_cant_be_understood() {
    let errors = |selectors: &str| {
        let file = file(&format!("expect {selectors}: none"));
        let Block::Expect(expect) = &file.blocks[0].value else { panic!() };
        Applies::resolve(&expect.selectors).unwrap_err()
    };
    assert!(matches!(&errors("amr64")[..], [SelectorError::Arch(name)] if name.value == "amr64"));
    assert!(matches!(&errors("kernel 6.12..5.18")[..], [SelectorError::EmptyRange(_)]));
    assert!(matches!(
        &errors("kernel 6 sparc")[..],
        [SelectorError::Version(..), SelectorError::Arch(_)]
    ));
}

fn differs(line: &str, end: End, findings: &[Finding]) -> Difference {
    let file = file(line);
    let Block::Expect(expect) = &file.blocks[0].value else { panic!() };
    compare(&expect.expected.value, end, findings)
}

/// `missing rule found/expected; unexpected rule xN; end`
fn said(line: &str, end: End, findings: &[Finding]) -> String {
    let d = differs(line, end, findings);
    let missing = d.missing.iter().map(|m| format!("-{} {}/{}", m.item.value, m.found, m.expected));
    let unexpected =
        d.unexpected.iter().map(|u| format!("+{} x{}", u.finding.rule, u.finding.count));
    let end = d.end.map(|(e, f)| format!("{e:?}->{f:?}"));
    let all: Vec<String> = missing.chain(unexpected).chain(end).collect();
    assert_eq!(all.is_empty(), d.is_empty());
    all.join("; ")
}

#[test]
fn comparison_is_exact() {
    use End::*;
    let stale = |label, count| finding("stale", &["isb", "dc cvau"], Some(label), count);
    assert_eq!(said("expect: none", Ended, &[]), "");
    assert_eq!(said("expect: none", Ended, &[stale("a", 1)]), "+stale x1");
    assert_eq!(said("expect: none", Blocked, &[]), "Ended->Blocked");
    assert_eq!(said("expect: open", Ended, &[]), "");
    assert_eq!(said("expect: open", Blocked, &[]), "Ended->Blocked");
    assert_eq!(said("expect: blocked", Blocked, &[]), "");
    assert_eq!(said("expect: blocked", Ended, &[]), "Blocked->Ended");
    assert_eq!(said("expect: stale", Unfinished, &[stale("a", 1)]), "Ended->Unfinished");
    assert_eq!(said("expect: stale", Ended, &[stale("a", 1)]), "");
    assert_eq!(said("expect: stale", Ended, &[stale("a", 2)]), "+stale x1");
    assert_eq!(said("expect: stale x3", Ended, &[stale("a", 1), stale("b", 2)]), "");
    assert_eq!(said("expect: stale x3", Ended, &[stale("a", 1)]), "-stale x3 1/3");
    assert_eq!(said("expect: stale?", Ended, &[stale("a", 1)]), "-stale? 0/1; +stale x1");
    assert_eq!(said("expect: stale missing isb at a", Ended, &[stale("a", 1)]), "");
    assert_eq!(said("expect: stale missing dc_cvau at a", Ended, &[stale("a", 1)]), "");
    assert_eq!(
        said("expect: stale missing ic_ivau at a", Ended, &[stale("a", 1)]),
        "-stale missing ic_ivau at a 0/1; +stale x1"
    );
    assert_eq!(said("expect: stale at b", Ended, &[stale("a", 1)]), "-stale at b 0/1; +stale x1");
    let no_label = finding("stale", &[], None, 1);
    assert_eq!(said("expect: stale at b", Ended, &[no_label]), "-stale at b 0/1; +stale x1");
    assert_eq!(
        said("expect: stale, other", Ended, &[finding("third", &[], None, 1)]),
        "-stale 0/1; -other 0/1; +third x1"
    );
}

#[test]
fn findings_go_where_they_leave_least_over() {
    let found = [finding("r", &["isb"], Some("a"), 1), finding("r", &["isb"], Some("b"), 1)];
    for line in
        ["expect: r missing isb, r at a", "expect: r at a, r missing isb", "expect: r, r at a"]
    {
        assert_eq!(said(line, End::Ended, &found), "", "{line}");
    }
    let swapped = [found[1].clone(), found[0].clone()];
    assert_eq!(said("expect: r missing isb, r at a", End::Ended, &swapped), "");
    assert_eq!(said("expect: r at a, r at a", End::Ended, &found), "-r at a 0/1; +r x1");
}

/// The largest number of findings that can be assigned, by trying every way.
fn best(given: &[u64], wanted: &mut [u64], fits: &[Vec<bool>], at: usize) -> u64 {
    let Some(count) = given.get(at) else { return 0 };
    if *count == 0 {
        return best(given, wanted, fits, at + 1);
    }
    let mut given = given.to_vec();
    given[at] -= 1;
    let mut most = best(&given, wanted, fits, at);
    for item in 0..wanted.len() {
        if fits[at][item] && wanted[item] > 0 {
            wanted[item] -= 1;
            most = most.max(1 + best(&given, wanted, fits, at));
            wanted[item] += 1;
        }
    }
    most
}

proptest! {
    #[test]
    fn the_flow_is_a_maximum(
        given in prop::collection::vec(0..3u64, 1..4),
        wanted in prop::collection::vec(0..3u64, 1..4),
        bits in prop::collection::vec(prop::collection::vec(any::<bool>(), 4), 4),
    ) {
        let flow = assign(&given, &wanted, |f, i| bits[f][i]);
        for (f, row) in flow.iter().enumerate() {
            prop_assert!(row.iter().sum::<u64>() <= given[f]);
            for (i, amount) in row.iter().enumerate() {
                prop_assert!(*amount == 0 || bits[f][i]);
            }
        }
        for (i, want) in wanted.iter().enumerate() {
            prop_assert!(flow.iter().map(|row| row[i]).sum::<u64>() <= *want);
        }
        let total: u64 = flow.iter().flatten().sum();
        prop_assert_eq!(total, best(&given, &mut wanted.clone(), &bits, 0));
    }
}
