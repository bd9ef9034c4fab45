//! What the loader reads, what it refuses and where, and the catalogue of recorded tests.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod catalogue;

use proptest::prelude::*;
use textbed_arch::VirtAddr;
use textbed_litmus::kinds::{self, Kind};
use textbed_litmus::{
    Atom, CODE_BASE, DATA_BASE, FaultKind, Final, Formula, Quantifier, STRIDE, Test, parse,
};

/// A test of our own: thread 0 replaces thread 1's branch, which counts the word it ran.
const OWN: &str = r#"AArch64 own-swap
(* a comment (* in another *)
   over lines *)
CacheType=IDC
Variant=self
{ ins_t 0:X4=instr:"NOP"; 0:X5=P1:there; 0:X6=flag; 0:x7=-1;
  1:X6=flag; [far]=P1:out; void *1:X8; [n]=0x10; }
 P0          | P1           | P1.F            ;
 STR W4,[X5] | LDR W2,[X6]  | ADR X9,out      ;
 DSB ISH     | CBZ W2,out   | MSR ELR_EL1,X9  ;
 STR W7,[X6] |there: B out  | ERET            ;
             | MOV W3,#"#;

fn own() -> Test {
    let text = format!(
        "{OWN}5    |                 ;\n             |out:          |                 ;\n~exists (1:X3=5 /\\ not (flag=0) \\/ fault(P1:there,UndefinedInstruction))"
    );
    parse(&text).unwrap()
}

#[test]
fn a_test_is_read_to_the_last_value() {
    let t = own();
    assert_eq!((t.name.as_str(), t.idc, t.dic, t.threads.len()), ("own-swap", true, false, 2));
    let p1 = VirtAddr(CODE_BASE + STRIDE);
    let there = p1.offset(8);
    assert_eq!(t.threads[1].labels["there"], there);
    assert_eq!(t.threads[1].labels["out"], p1.offset(16));
    assert_eq!(t.threads[1].handler_entry(), Some(p1.offset(STRIDE / 2)));
    assert_eq!(t.threads[1].code[2].word, 0x1400_0002);
    let place = |name: &str| t.places.iter().find(|p| p.name == name).unwrap();
    assert_eq!(place("far").value, p1.offset(16).0);
    assert_eq!(place("n").value, 0x10);
    let flag = place("flag").virt;
    assert!(flag.0 >= DATA_BASE && flag.is_aligned(12));
    let mut registers = t.threads[0].registers.clone();
    registers.sort_unstable();
    let expected = [(4, 0xd503_201f), (5, there.0), (6, flag.0), (7, u64::MAX)];
    assert_eq!(registers, expected);

    assert_eq!(t.condition.quantifier, Quantifier::NotExists);
    let atom = |a| Box::new(Formula::Atom(a));
    let wanted = Formula::Or(
        Box::new(Formula::And(
            atom(Atom::Register(1, 3, 5)),
            Box::new(Formula::Not(atom(Atom::Memory(flag, 8, 0)))),
        )),
        atom(Atom::Fault(1, there, FaultKind::Undefined)),
    );
    assert_eq!(t.condition.formula, wanted);
}

struct State(u64, u64, bool);

impl Final for State {
    fn register(&self, _: usize, _: u8) -> u64 {
        self.0
    }
    fn memory(&self, _: VirtAddr, _: u8) -> u64 {
        self.1
    }
    fn faulted(&self, _: usize, _: VirtAddr, _: FaultKind) -> bool {
        self.2
    }
}

#[test]
fn formulas_are_evaluated_and_quantified() {
    let f = own().condition.formula;
    assert!(f.holds(&State(5, 1, false)) && f.holds(&State(0, 0, true)));
    assert!(!f.holds(&State(5, 0, false)) && !f.holds(&State(4, 1, false)));
    assert_eq!(Kind::of(Quantifier::Exists, true, false), Kind::Allowed);
    assert_eq!(Kind::of(Quantifier::NotExists, false, false), Kind::Forbidden);
    assert_eq!(Kind::of(Quantifier::ForAll, true, true), Kind::Required);
}

#[test]
fn errors_name_the_line() {
    let cases = [
        ("X86 t\n{ }\n P0 ;\n NOP ;\n", 1, "AArch64 NAME"),
        ("", 1, "first line"),
        ("AArch64 t\n{ 0:X0=1;\n P0 ;\n", 1, "initial state"),
        ("AArch64 t\n{ }\n", 2, "its program"),
        ("AArch64 t\n{ }\n P0 | P2 ;\n NOP | NOP ;\n", 3, "thread"),
        ("AArch64 t\n{ }\n P0 | P1 ;\n NOP ;\n", 4, "1 columns"),
        ("AArch64 t\n{ }\n P0 ;\n NOP \n", 4, "row"),
        ("AArch64 t\n{ }\n P0 ;\n\n LDXR W0,[X1] ;\n", 5, "LDXR"),
        ("AArch64 t\n{ }\n P0 ;\n a: a: NOP ;\n", 4, "defined twice"),
        ("AArch64 t\n{ }\n P0 ;\n B gone ;\n", 4, "gone"),
        ("AArch64 t\n{\n 7:X0=1; }\n P0 ;\n NOP ;\n", 3, "no such thread"),
        ("AArch64 t\n{ 0:X0=P0:gone; }\n P0 ;\n NOP ;\n", 2, "P0:gone"),
        ("AArch64 t\n{ pte_x=(valid:0); }\n P0 ;\n NOP ;\n", 2, "not modelled"),
        ("AArch64 t\n{ }\n P0 ;\n NOP ;\nexists (0:X0=1", 5, "missing"),
        ("AArch64 t\n{ }\n P0 ;\n NOP ;\nexists 3:X0=1", 5, "no such thread"),
        ("AArch64 t (* open\n{ }\n", 1, "comment"),
    ];
    for (text, line, what) in cases {
        let error = parse(text).unwrap_err();
        let said = error.to_string();
        assert!(error.line == line && said.contains(what), "{text:?}: {said}");
    }
    let error = kinds::read("a Allowed\na Forbidden\n").unwrap_err();
    assert_eq!(error.line, 2);
    assert!(kinds::read("a Maybe\n").is_err() && kinds::read("# a\n\na Required\n").is_ok());
}

#[test]
fn an_alias_is_another_name_of_a_label_s_bytes() {
    let head = "AArch64 t\n{ 0:X1=x; pte_x=(oa:phy_x); pte_l=(oa:phy_x); }\n P0 ;\n NOP ;\n";
    let t = parse(&format!("{head} l: NOP ;\n")).unwrap();
    assert_eq!(t.places[0].alias_of, Some(VirtAddr(CODE_BASE + 4)));
    assert_eq!(t.places[0].virt.page_offset(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(cut in 0usize..700, junk in "\\PC{0,12}", at in 0usize..700) {
        let text = own_text();
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.min(chars.len());
        chars.splice(at..at, junk.chars());
        chars.truncate(cut);
        let _ = parse(&chars.into_iter().collect::<String>());
        let _ = parse(&junk);
        let _ = kinds::read(&junk);
    }
}

fn own_text() -> String {
    format!("{OWN}5 | ;\n |out: | ;\nexists (1:X3=5 /\\ x=1)")
}

/// Every test of the catalogue is read; those without a record are named.
#[test]
#[ignore = "reads the directory named by TEXTBED_LITMUS"]
fn the_catalogue_is_read() {
    let (files, verdicts) = catalogue::files();
    let (mut read, mut recorded) = (0, 0);
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        match parse(&text) {
            Ok(test) => {
                read += 1;
                match verdicts.contains_key(&test.name) {
                    true => recorded += 1,
                    false => println!("{}: no recorded verdict", test.name),
                }
            }
            Err(e) => println!("{}: {e}", file.display()),
        }
    }
    println!("litmus loader: {} files, {read} read, {recorded} with a verdict", files.len());
    assert!(read == files.len() && read > 0);
}
