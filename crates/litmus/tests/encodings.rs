//! The assembler against a disassembler that was not written here, and the decoder against both.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use capstone::prelude::*;
use textbed_litmus::{Op, assemble};

/// Text as written in a test, and as the disassembler prints it at address 0x1000.
const TEXTS: &[(&str, &str)] = &[
    ("MOV W2,#1", "mov w2, #1"),
    ("MOV X2,#65535", "mov x2, #65535"),
    ("MOV W3,#-2", "mov w3, #-2"),
    ("MOV X4,#-1", "mov x4, #-1"),
    ("MOV W1,W2", "mov w1, w2"),
    ("MOV X1,X30", "mov x1, x30"),
    ("ADD X9,X9,#1", "add x9, x9, #1"),
    ("ADD W1,W2,W3", "add w1, w2, w3"),
    ("SUB X1,X2,#4095", "sub x1, x2, #4095"),
    ("SUBS W1,W2,W3", "subs w1, w2, w3"),
    ("ADDS X1,X2,#3", "adds x1, x2, #3"),
    ("AND W1,W2,W3", "and w1, w2, w3"),
    ("ANDS X1,X2,X3", "ands x1, x2, x3"),
    ("ORR X1,X2,X3", "orr x1, x2, x3"),
    ("EOR W6,W2,W2", "eor w6, w2, w2"),
    ("CMP W2,W0", "cmp w2, w0"),
    ("CMP X1,#7", "cmp x1, #7"),
    ("CSET W3,EQ", "cset w3, eq"),
    ("CSET X3,GT", "cset x3, gt"),
    ("CSEL X1,X2,X3,NE", "csel x1, x2, x3, ne"),
    ("CSINC W1,W2,W3,LT", "csinc w1, w2, w3, lt"),
    ("LDR W2,[X1]", "ldr w2, [x1]"),
    ("LDR X2,[X1,#8]", "ldr x2, [x1, #8]"),
    ("LDR W4,[X5,W6,SXTW]", "ldr w4, [x5, w6, sxtw]"),
    ("LDR X4,[X5,X6]", "ldr x4, [x5, x6]"),
    ("STR W0,[X1]", "str w0, [x1]"),
    ("STR X0,[X1,#16]", "str x0, [x1, #16]"),
    ("STR W5,[X4,W1,SXTW]", "str w5, [x4, w1, sxtw]"),
    ("LDRB W1,[X2,#3]", "ldrb w1, [x2, #3]"),
    ("STRH W1,[X2,#2]", "strh w1, [x2, #2]"),
    ("LDAR W1,[X2]", "ldar w1, [x2]"),
    ("LDAPR X1,[X2]", "ldapr x1, [x2]"),
    ("STLR X2,[X3]", "stlr x2, [x3]"),
    ("B .+8", "b #0x1008"),
    ("B near", "b #0x1010"),
    ("BL .-4", "bl #0xffc"),
    ("B.NE near", "b.ne #0x1010"),
    ("CBNZ W2,near", "cbnz w2, #0x1010"),
    ("CBZ X2,near", "cbz x2, #0x1010"),
    ("TBZ X2,#33,near", "tbz x2, #0x21, #0x1010"),
    ("TBNZ W2,#3,near", "tbnz w2, #3, #0x1010"),
    ("BR X1", "br x1"),
    ("BLR X1", "blr x1"),
    ("RET", "ret"),
    ("RET X1", "ret x1"),
    ("ADR X9,near", "adr x9, #0x1010"),
    ("ADR X9,.-3", "adr x9, #0xffd"),
    ("NOP", "nop"),
    ("ISB", "isb"),
    ("DSB ISH", "dsb ish"),
    ("DSB SY", "dsb sy"),
    ("DSB LD", "dsb ld"),
    ("DMB ISHST", "dmb ishst"),
    ("DMB ST", "dmb st"),
    ("DC CVAU,X1", "dc cvau, x1"),
    ("DC CIVAC,X12", "dc civac, x12"),
    ("IC IVAU,X1", "ic ivau, x1"),
    ("IC IALLU", "ic iallu"),
    ("IC IALLUIS", "ic ialluis"),
    ("UDF #0", "udf #0"),
    ("BRK #1", "brk #1"),
    ("SVC #0", "svc #0"),
    ("HVC #2", "hvc #2"),
    ("SMC #3", "smc #3"),
    ("ERET", "eret"),
    ("MSR ELR_EL1,X9", "msr elr_el1, x9"),
];

/// Numbers as values, so that hexadecimal and decimal compare.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('#') {
        out.push_str(before);
        let end = after.find([',', ']']).unwrap_or(after.len());
        let (number, tail) = after.split_at(end);
        let (sign, digits) = match number.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", number),
        };
        let value = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
            None => digits.parse().unwrap(),
        };
        // A 64-bit pattern and its negative are one number.
        out.push_str(&format!("#{}", if sign == "-" { -(value as i64) } else { value as i64 }));
        rest = tail;
    }
    out + rest
}

#[test]
fn the_disassembler_reads_what_was_assembled() {
    let cs = Capstone::new().arm64().mode(arch::arm64::ArchMode::Arm).build().unwrap();
    let near = |name: &str| (name == "near").then_some(0x1010);
    let (mut equal, mut unknown) = (0, 0);
    for (text, expected) in TEXTS {
        let word = assemble(text, 0x1000, &near).unwrap();
        assert!(Op::decode(word).is_some(), "'{text}' ({word:08x}) is not decoded");
        let list = cs.disasm_count(&word.to_le_bytes(), 0x1000, 1).unwrap();
        let Some(insn) = list.iter().next() else {
            assert!(text.starts_with("UDF"), "'{text}' ({word:08x}) is unknown there");
            unknown += 1;
            continue;
        };
        let found = format!("{} {}", insn.mnemonic().unwrap(), insn.op_str().unwrap());
        assert_eq!(plain(found.trim()), plain(expected), "'{text}' ({word:08x})");
        equal += 1;
    }
    println!("assembler: {} compared, {equal} equal, {unknown} not known", TEXTS.len() - unknown);
}

#[test]
fn what_cannot_be_encoded_is_refused() {
    let none = |_: &str| None;
    for text in [
        "MOV W1,#65536",
        "MOV W31,#0",
        "ADD X1,X2,#4096",
        "LDR W1,[X2,#3]",
        "LDR W1,[W2]",
        "LDR W1,[XZR]",
        "B nowhere",
        "B .+2",
        "B .",
        "B .é",
        "TBZ W1,#32,.+4",
        "CSET W1,XX",
        "DSB",
        "DSB nothing",
        "DC CVAU",
        "DC ZVA,X1",
        "UDF #65536",
        "LDXR W1,[X2]",
        "FADD D1,D2,D3",
        "",
    ] {
        assert!(assemble(text, 0, &none).is_err(), "'{text}' was taken");
    }
}
