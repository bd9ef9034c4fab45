//! Litmus shapes with what is known of each, in three configurations.
//!
//! They are those of Simner et al., 'ARMv8-A system semantics: instruction fetch in relaxed
//! architectures' (ESOP 2020), written anew, and others of our own; their verdicts follow from the
//! paper's rules and from Arm ARM DDI 0487 B2.7.4.2.

// Each test file uses a part.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) const CONFIGURATIONS: [&str; 3] = ["", "IDC", "IDC DIC"];

/// A shape: name, initial state, program, condition, and whether the outcome is allowed with
/// neither IDC nor DIC, with IDC, with both.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    initial: &'static str,
    program: &'static str,
    condition: &'static str,
    pub(crate) allowed: [bool; 3],
}

/// The function that is patched: 1 if the branch runs, 2 if the NOP does.
const BODY: &str = "MOV X10,#1 | f: B f1 | MOV X10,#2 | f1: NOP";

#[rustfmt::skip]
pub(crate) const SHAPES: &[Shape] = &[
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
    // Two readers, each with another old version.
    Shape { name: "FOW2",
        initial: "0:X0=instr:\"B .+12\"; 0:X7=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y; 2:X3=y; \
                  2:X5=P1:g;",
        program: "STR W0,[X1] | STR W7,[X1] | DSB ISH | IC IVAU,X1 | DSB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | CBNZ W4,c | c: ISB | BL g | B end | g: MOV X10,#1 | f: B f1 \
                  | MOV X10,#2 | B f2 | MOV X10,#3 | f1: NOP | f2: RET | end: NOP \
                  // LDR W4,[X3] | CBNZ W4,d | d: ISB | BLR X5",
        condition: "exists (1:X4=1 /\\ 2:X4=1 /\\ 1:X10=1 /\\ 2:X10=3)",
        allowed: [true, false, false] },
    // A clean and no invalidation: an instruction cache may hold many versions.
    Shape { name: "MP.RF+dc+ctrl-isb-isb",
        initial: "0:X0=instr:\"B .+12\"; 0:X7=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W0,[X1] | STR W7,[X1] | DC CVAU,X1 | DSB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | CBNZ W4,c | c: ISB | BL g | MOV X8,X10 | ISB | BL g \
                  | MOV X9,X10 | ISB | BL g | B end | g: MOV X10,#1 | f: B f1 | MOV X10,#2 | B f2 \
                  | MOV X10,#3 | f1: NOP | f2: RET | end: NOP",
        condition: "exists (1:X4=1 /\\ 1:X8=2 /\\ 1:X9=3 /\\ 1:X10=1)",
        allowed: [true, true, false] },
];

/// The shape as a test's text.
pub(crate) fn text(shape: &Shape, caches: &str) -> String {
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

/// Shapes of more than one fetch, or with loads and stores reordered.
#[rustfmt::skip]
pub(crate) const MORE_SHAPES: &[Shape] = &[
    // Code in both directions: each fetch alone may be old, both are not.
    Shape { name: "SB.F+cachesync-isbs",
        initial: "0:X0=NOP; 1:X0=NOP; 0:X1=P1:f; 1:X1=P0:f;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @ \
                  // STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists (0:X10=1 /\\ 1:X10=1)", allowed: [false, false, false] },
    Shape { name: "SB.F+cachesync-isb+cachesync",
        initial: "0:X0=NOP; 1:X0=NOP; 0:X1=P1:f; 1:X1=P0:f;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @ \
                  // STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | @",
        condition: "exists (0:X10=1 /\\ 1:X10=1)", allowed: [true, true, true] },
    Shape { name: "SB.F+cachesync-isb+dsb-ic-dsb-isb",
        initial: "0:X0=NOP; 1:X0=NOP; 0:X1=P1:f; 1:X1=P0:f;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @ \
                  // STR W0,[X1] | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists (0:X10=1 /\\ 1:X10=1)", allowed: [true, false, false] },
    // Loads are not in order; only what feeds a branch, an address or a DSB reaches the fetch.
    Shape { name: "MP.RF+cachesync+isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [true, true, true] },
    Shape { name: "MP.RF+cachesync+acq-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | STLR W2,[X3] \
                  // LDAR W4,[X3] | ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [true, true, true] },
    Shape { name: "MP.RF+cachesync+dsb.ld-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X3=y;",
        program: "STR W0,[X1] | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | DSB ISHLD | ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [false, false, false] },
    // A release carries no clean, a full DMB does.
    Shape { name: "MP.RF+dc-rel+dsb-ic-dsb-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X1=P1:f; 1:X3=y;",
        program: "STR W0,[X1] | DC CVAU,X1 | STLR W2,[X3] \
                  // LDR W4,[X3] | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [true, false, false] },
    Shape { name: "MP.RF+dc-dmb.st+dsb-ic-dsb-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X1=P1:f; 1:X3=y;",
        program: "STR W0,[X1] | DC CVAU,X1 | DMB ISHST | STR W2,[X3] \
                  // LDR W4,[X3] | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [true, false, false] },
    Shape { name: "MP.RF+dc-dmb+dsb-ic-dsb-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X1=P1:f; 1:X3=y;",
        program: "STR W0,[X1] | DC CVAU,X1 | DMB ISH | STR W2,[X3] \
                  // LDR W4,[X3] | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [false, false, false] },
    // The reader repairs the code itself: a DMB LD orders no load before a clean.
    Shape { name: "MP.RF+dmb.st+dmb.ld-cachesync-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X1=P1:f; 1:X3=y;",
        program: "STR W0,[X1] | DMB ISHST | STR W2,[X3] \
                  // LDR W4,[X3] | DMB ISHLD \
                  | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [true, false, false] },
    Shape { name: "MP.RF+dmb.st+dsb.ld-cachesync-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X1=P1:f; 1:X3=y;",
        program: "STR W0,[X1] | DMB ISHST | STR W2,[X3] \
                  // LDR W4,[X3] | DSB ISHLD \
                  | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [false, false, false] },
    // A picked register feeds maintenance, not the address of a load.
    Shape { name: "MP.RF+dmb.st+pickaddr-cachesync-isb",
        initial: "0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; 1:X6=P1:f; 1:X7=y; 1:X3=y;",
        program: "STR W0,[X1] | DMB ISHST | STR W2,[X3] \
                  // LDR W4,[X3] | CMP W4,#1 | CSEL X1,X6,X7,EQ \
                  | DC CVAU,X1 | DSB ISH | IC IVAU,X1 | DSB ISH | ISB | @",
        condition: "exists (1:X4=1 /\\ 1:X10=1)", allowed: [false, false, false] },
];
