//! The simulator's choices against recorded verdicts, and against what is known of each shape.
//!
//! Shapes are those of Simner et al., 'ARMv8-A system semantics: instruction fetch in relaxed
//! architectures' (ESOP 2020), written anew; their verdicts by configuration follow from the
//! paper's rules and from Arm ARM DDI 0487 B2.7.4.2.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod search;

use search::{Fetches, decide};
use std::collections::BTreeMap;
use textbed_litmus::kinds::{self, Kind};
use textbed_litmus::parse;

/// Most runs of one test.
const MOST: u64 = 60_000;

/// Tests whose recorded verdict rests on `ic iallu` being broadcast, which it is not (Arm ARM DDI
/// 0487 G8.2.80): the simulator reaches what is recorded as forbidden.
const LOCAL_IALLU: [&str; 2] = ["SB-bnop-cachesyncs3", "IDC1.SB-bnop-cachesyncs3"];

const CONFIGURATIONS: [&str; 3] = ["", "IDC", "IDC DIC"];

/// A shape: name, initial state, program, condition, and whether the outcome is allowed with
/// neither IDC nor DIC, with IDC, with both.
struct Shape {
    name: &'static str,
    initial: &'static str,
    program: &'static str,
    condition: &'static str,
    allowed: [bool; 3],
}

/// The function that is patched: 1 if the branch runs, 2 if the NOP does.
const BODY: &str = "MOV X10,#1 | f: B f1 | MOV X10,#2 | f1: NOP";

#[rustfmt::skip]
const SHAPES: &[Shape] = &[
    Shape { name: "SM", initial: "0:X0=NOP; 0:X1=P0:f;",
        program: "STR W0,[X1] | MOV X10,#1 | f: B f1 | MOV X10,#2 | f1: NOP",
        condition: "exists 0:X10=1", allowed: [true, true, true] },
    Shape { name: "SM+cachesync-isb", initial: "0:X0=NOP; 0:X1=P0:f;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists 0:X10=1", allowed: [false, false, false] },
    Shape { name: "SM+cachesync", initial: "0:X0=NOP; 0:X1=P0:f;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | @",
        condition: "exists 0:X10=1", allowed: [true, true, true] },
    Shape { name: "SM+dsb-ic-dsb-isb", initial: "0:X0=NOP; 0:X1=P0:f;",
        program: "STR W0,[X1] | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists 0:X10=1", allowed: [true, false, false] },
    Shape { name: "SM+dc-dsb-ic-isb", initial: "0:X0=NOP; 0:X1=P0:f;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | ISB | @",
        condition: "exists 0:X10=1", allowed: [true, true, false] },
    Shape { name: "SM+dsb-isb", initial: "0:X0=NOP; 0:X1=P0:f;",
        program: "STR W0,[X1] | DSB ISH | ISB | @",
        condition: "exists 0:X10=1", allowed: [true, true, false] },
    Shape { name: "SM+isb", initial: "0:X0=NOP; 0:X1=P0:f;",
        program: "STR W0,[X1] | ISB | @",
        condition: "exists 0:X10=1", allowed: [true, true, true] },
    Shape { name: "CoFF", initial: "0:X0=NOP; 0:X1=P1:f;",
        program: "STR W0,[X1] // BL g | MOV X8,X10 | BL g | B end | g: @ | RET | end: NOP",
        condition: "exists (1:X8=2 /\\ 1:X10=1)", allowed: [true, true, false] },
    Shape { name: "CoFR", initial: "0:X0=NOP; 0:X1=P1:f; 1:X1=P1:f; 1:X5=instr:\"B .+8\";",
        program: "STR W0,[X1] // @ | LDR W2,[X1] | CMP W2,W5 | CSET W3,EQ",
        condition: "exists (1:X10=2 /\\ 1:X3=1)", allowed: [false, false, false] },
    Shape { name: "CoRF+ctrl-isb", initial: "0:X0=NOP; 0:X1=P1:f; 1:X1=P1:f; 1:X0=NOP;",
        program: "STR W0,[X1] // LDR W2,[X1] | CMP W2,W0 | CSET W3,EQ | CBNZ W3,c | c: ISB | @",
        condition: "exists (1:X3=1 /\\ 1:X10=1)", allowed: [true, true, false] },
    Shape { name: "MP.RF+dmb+ctrl-isb", initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W0,[X1] | DMB ISH | STR W2,[X3] // LDR W4,[X3] | CBNZ W4,c | c: ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [true, true, false] },
    Shape { name: "MP.RF+cachesync+ctrl-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | CBNZ W4,c | c: ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [false, false, false] },
    Shape { name: "MP.RF+cachesync+ctrl",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | CBNZ W4,c | c: @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [true, true, true] },
    Shape { name: "MP.FR+dmb", initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W2,[X3] | DMB ISH | STR W0,[X1] // @ | LDR W4,[X3]",
        condition: "exists (1:X10=2 /\\ 1:X4=0)", allowed: [false, false, false] },
    Shape { name: "MP.FF+dmb", initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=P1:h;",
        program: "STR W0,[X1] | DMB ISH | STR W0,[X2] \
                  // MOV X11,#1 | h: B h1 | MOV X11,#2 | h1: @",
        condition: "exists (1:X11=2 /\\ 1:X10=1)", allowed: [true, true, false] },
    Shape { name: "MP.FF+cachesync", initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=P1:h;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | STR W0,[X2] \
                  // MOV X11,#1 | h: B h1 | MOV X11,#2 | h1: @",
        condition: "exists (1:X11=2 /\\ 1:X10=1)", allowed: [false, false, false] },
    Shape { name: "ISA2.F+dc+ic+ctrl-isb",
        initial: "0:X0=NOP; 0:X1=P2:f; 1:X1=P2:f; 0:X2=1; 1:X2=1; 0:X3=y; 1:X3=y; 1:X5=z; 2:X5=z;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | DSB ISH | IC IVAU,X1 | DSB ISH | STR W2,[X5] \
                  // LDR W6,[X5] | CBNZ W6,c | c: ISB | @",
        condition: "exists (1:X4=1 /\\ 2:X6=1 /\\ 2:X10=1)", allowed: [false, false, false] },
    // That a CPU fetched the new word does not mean that it is past the point of unification.
    Shape { name: "SM.F+ic",
        initial: "0:X0=NOP; 0:X1=P0:f; 0:X3=y; 1:X1=P0:f; 1:X5=P0:g; 1:X2=1; 1:X3=y;",
        program: "STR W0,[X1] | LDR W4,[X3] | CBNZ W4,c | c: ISB | BL g | B end | g: @ | RET \
                  | end: NOP // BLR X5 | IC IVAU,X1 | DSB ISH | STR W2,[X3]",
        condition: "exists (1:X10=2 /\\ 0:X4=1 /\\ 0:X10=1)", allowed: [true, false, false] },
    // IC IALLU reaches the CPU that executes it, IC IALLUIS every one.
    Shape { name: "SM+dc-dsb-iallu-dsb-isb", initial: "0:X0=NOP; 0:X1=P0:f;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IALLU | DSB ISH | ISB | @",
        condition: "exists 0:X10=1", allowed: [false, false, false] },
    Shape { name: "MP.RF+dc-dsb-iallu-dsb+ctrl-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IALLU | DSB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | CBNZ W4,c | c: ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [true, true, false] },
    Shape { name: "MP.RF+dc-dsb-ialluis-dsb+ctrl-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IALLUIS | DSB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | CBNZ W4,c | c: ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [false, false, false] },
    // What orders a store before a later clean: a DSB ST does, a DMB ST does not.
    Shape { name: "SB.RF+dmb+dsb.st-cachesync-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 1:X1=P1:f; 0:X3=y; 1:X3=y; 1:X2=1;",
        program: "STR W0,[X1] | DMB ISH | LDR W4,[X3] // STR W2,[X3] | DSB ST | DC CVAU,X1 \
                  | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists (0:X4=0 /\\ 1:X10=1)", allowed: [false, false, false] },
    Shape { name: "SB.RF+dmb+dmb.st-cachesync-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 1:X1=P1:f; 0:X3=y; 1:X3=y; 1:X2=1;",
        program: "STR W0,[X1] | DMB ISH | LDR W4,[X3] // STR W2,[X3] | DMB ST | DC CVAU,X1 \
                  | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists (0:X4=0 /\\ 1:X10=1)", allowed: [true, false, false] },
    Shape { name: "FOW",
        initial: "0:X0=instr:\"B .+12\"; 0:X7=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W0,[X1] | STR W7,[X1] | DSB ISH | IC IVAU,X1 | DSB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | CBNZ W4,c | c: ISB | MOV X10,#1 | f: B f1 | MOV X10,#2 \
                  | B f2 | MOV X10,#3 | f1: NOP | f2: NOP",
        condition: "exists (1:X4=1 /\\ ~(1:X10=2))", allowed: [true, false, false] },
];

/// The shape as a test's text.
fn text(shape: &Shape, caches: &str) -> String {
    let threads: Vec<Vec<String>> = shape
        .program
        .split("//")
        .map(|t| t.replace('@', BODY).split('|').map(|i| i.trim().to_owned()).collect())
        .collect();
    let rows = threads.iter().map(Vec::len).max().unwrap();
    let mut out = format!("AArch64 {}\nCacheType={caches}\n{{ {} }}\n", shape.name, shape.initial);
    let heads: Vec<String> = (0..threads.len()).map(|n| format!("P{n}")).collect();
    out += &format!(" {} ;\n", heads.join(" | "));
    for row in 0..rows {
        let cells: Vec<&str> =
            threads.iter().map(|t| t.get(row).map_or("", String::as_str)).collect();
        out += &format!(" {} ;\n", cells.join(" | "));
    }
    out + shape.condition
}

#[test]
fn the_simulator_decides_the_known_shapes() {
    let (mut equal, mut wrong) = (0, Vec::new());
    for shape in SHAPES {
        for (caches, allowed) in CONFIGURATIONS.iter().zip(shape.allowed) {
            let test = parse(&text(shape, caches)).unwrap();
            let found = decide(&test, Fetches::Machine, MOST);
            let expected = if allowed { Kind::Allowed } else { Kind::Forbidden };
            if found.kind == Some(expected) {
                equal += 1;
            } else {
                let name = shape.name;
                wrong.push(format!("{name} [{caches}]: {expected:?} expected, {found:?}"));
            }
        }
    }
    println!("shapes: {} compared, {equal} equal", SHAPES.len() * 3);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// No shape is vacuous: with fetches that no rule restricts, each outcome is reached.
#[test]
fn no_shape_is_vacuous() {
    for shape in SHAPES {
        let test = parse(&text(shape, "")).unwrap();
        let found = decide(&test, Fetches::Anything, MOST);
        assert_eq!(found.kind, Some(Kind::Allowed), "{}: {found:?}", shape.name);
    }
}

/// Every recorded verdict of the catalogue, by configuration. The simulator has loads and stores
/// in order, so it may miss an allowed outcome that needs them reordered (said by name); an outcome
/// that is recorded as forbidden it must not reach.
#[test]
#[ignore = "reads the directory named by TEXTBED_LITMUS"]
fn the_simulator_decides_the_catalogue() {
    let root = std::env::var("TEXTBED_LITMUS").expect("TEXTBED_LITMUS names a directory");
    let (mut files, mut verdicts) = (Vec::new(), BTreeMap::new());
    let mut open = vec![std::path::PathBuf::from(root)];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() => open.push(path),
                Some("litmus") => files.push(path),
                _ if path.ends_with("kinds.txt") => {
                    verdicts = kinds::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
                }
                _ => {}
            }
        }
    }
    files.sort();
    let mut table: BTreeMap<(bool, bool), [u32; 6]> = BTreeMap::new();
    let mut reached = Vec::new();
    for file in &files {
        let test = parse(&std::fs::read_to_string(file).unwrap()).unwrap();
        let row = table.entry((test.dic, test.idc)).or_default();
        let Some(recorded) = verdicts.get(&test.name) else {
            row[0] += 1;
            continue;
        };
        row[1] += 1;
        let found = decide(&test, Fetches::Machine, MOST);
        match found.kind {
            None => {
                println!("{}: undecided after {} runs", test.name, found.runs);
                row[2] += 1;
            }
            Some(kind) if kind == *recorded => {
                row[3] += 1;
                let free = decide(&test, Fetches::Anything, MOST).kind;
                if kind == Kind::Forbidden && free == Some(Kind::Forbidden) {
                    println!("{}: vacuous", test.name);
                    row[5] += 1;
                }
            }
            Some(kind) => {
                println!("{}: recorded {recorded:?}, simulator {kind:?}", test.name);
                row[4] += 1;
                let known = LOCAL_IALLU.contains(&test.name.as_str());
                if *recorded == Kind::Forbidden && !known {
                    reached.push(test.name);
                }
            }
        }
    }
    for ((dic, idc), [without, run, undecided, equal, other, vacuous]) in table {
        println!(
            "DIC{}-IDC{}: {run} run, {equal} equal ({vacuous} of them vacuous), {other} not \
             equal, {undecided} undecided, {without} without a record",
            u8::from(dic),
            u8::from(idc),
        );
    }
    assert!(reached.is_empty(), "forbidden outcomes were reached: {}", reached.join(", "));
}
