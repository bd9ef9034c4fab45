//! Generated programs: straight lines of arithmetic, loads, stores and atomic operations on three
//! pages of data.

#![allow(dead_code)] // each test file uses its part

use textbed_arch::Arch;

use crate::bed::PAGE;

/// Instructions of a program, without its return.
pub(crate) const LENGTH: usize = 40;

pub(crate) use textbed_machine::SplitMix64 as Random;

fn pick<'a, T>(r: &mut Random, from: &'a [T]) -> &'a T {
    &from[r.below(from.len() as u64) as usize]
}

/// x86-64 instructions with a memory operand `[rdi + disp32]`: bytes before the displacement.
const X86_MEMORY: &[&[u8]] = &[
    &[0x8b, 0x87],                   // mov eax, m
    &[0x48, 0x8b, 0x8f],             // mov rcx, m
    &[0x89, 0x97],                   // mov m, edx
    &[0x48, 0x89, 0x87],             // mov m, rax
    &[0x66, 0x89, 0x8f],             // mov m, cx
    &[0x88, 0x87],                   // mov m, al
    &[0x0f, 0xb6, 0x97],             // movzx edx, byte m
    &[0x48, 0x63, 0x87],             // movsxd rax, dword m
    &[0x48, 0x01, 0x87],             // add m, rax
    &[0x48, 0x13, 0x8f],             // adc rcx, m
    &[0x48, 0x29, 0x97],             // sub m, rdx
    &[0x48, 0x87, 0x97],             // xchg m, rdx
    &[0xf0, 0x48, 0x0f, 0xc1, 0x97], // lock xadd m, rdx
    &[0xf0, 0x48, 0x0f, 0xb1, 0x8f], // lock cmpxchg m, rcx
    &[0x48, 0x0f, 0xb1, 0x8f],       // cmpxchg m, rcx
    &[0xff, 0xb7],                   // push m
    &[0x8f, 0x87],                   // pop m
    &[0x48, 0xff, 0x87],             // inc m
    &[0xf7, 0x9f],                   // neg dword m
    &[0x48, 0xd1, 0xa7],             // shl m, 1
    &[0x0f, 0x38, 0xf0, 0x87],       // movbe eax, m
    &[0x0f, 0x38, 0xf1, 0x8f],       // movbe m, ecx
    &[0x48, 0x0f, 0xaf, 0x97],       // imul rdx, m
    &[0xf3, 0x0f, 0x6f, 0x87],       // movdqu xmm0, m
    &[0xf3, 0x0f, 0x7f, 0x87],       // movdqu m, xmm0
    &[0x66, 0x0f, 0xd6, 0x87],       // movq m, xmm0
    &[0xf3, 0x0f, 0x7e, 0x8f],       // movq xmm1, m
    &[0x48, 0x0f, 0xab, 0x8f],       // bts m, rcx (see below)
];

/// x86-64 instructions without memory, or with [rsi] and [rbx].
const X86_OTHER: &[&[u8]] = &[
    &[0x48, 0x01, 0xc8],       // add rax, rcx
    &[0x48, 0x31, 0xd1],       // xor rcx, rdx
    &[0x48, 0xc1, 0xc2, 0x11], // rol rdx, 17
    &[0x0f, 0x44, 0xc2],       // cmove eax, edx
    &[0x66, 0x0f, 0xef, 0xc1], // pxor xmm0, xmm1
    &[0xac],                   // lodsb
    &[0x48, 0xad],             // lodsq
    &[0x50, 0x59],             // push rax; pop rcx
    &[0x9c, 0x5a],             // pushf; pop rdx
    &[0x57, 0xa4, 0x5f],       // push rdi; movsb; pop rdi
];

fn x86_insn(r: &mut Random) -> Vec<u8> {
    if r.below(4) == 0 {
        return pick(r, X86_OTHER).to_vec();
    }
    let mut insn = pick(r, X86_MEMORY).to_vec();
    let disp = r.below(2 * PAGE) as i32 - PAGE as i32;
    // No CMPXCHG16B: in a block of several instructions the bare engine gives it wrong flags.
    let bts = insn.starts_with(&[0x48, 0x0f, 0xab]);
    if bts {
        // The bit number selects the word: keep it small.
        insn.splice(0..0, [0x0f, 0xb6, 0xc9]); // movzx ecx, cl
    }
    insn.extend(disp.to_le_bytes());
    if bts {
        // Flags but CF are undefined, and depend on how much the engine translates at once.
        insn.extend([0x39, 0xc0]); // cmp eax, eax
    }
    if matches!(insn[..2], [0xff, 0xb7]) {
        insn.extend([0x8f, 0x87]);
        insn.extend((disp ^ 8).to_le_bytes());
    } else if matches!(insn[..2], [0x8f, 0x87]) {
        insn.splice(0..0, [0x51]); // push rcx
    }
    insn
}

/// arm64 words with their base in x8; offsets are filled in by [`arm64_insn`].
fn arm64_insn(r: &mut Random) -> Vec<u32> {
    let rt = |r: &mut Random| r.below(6) as u32;
    let (a, b, c) = (rt(r), rt(r), rt(r));
    let simm9 = (r.below(512) as u32) << 12;
    let base = 8 << 5;
    // Bring x8 near some offset first, so that pages are crossed.
    let move_base = 0x9100_0000 | (r.below(PAGE) as u32) << 10 | 9 << 5 | 8; // add x8, x9, #n
    let align = 0x927c_ed08; // and x8, x8, #~15
    let one = |word| vec![move_base, word];
    let aligned_one = |words: &[u32]| [&[move_base, align][..], words].concat();
    match r.below(22) {
        0 => one(0xb840_0000 | simm9 | base | a), // ldur w
        1 => one(0xf840_0000 | simm9 | base | a), // ldur x
        2 => one(0xb800_0000 | simm9 | base | a), // stur w
        3 => one(0xf800_0000 | simm9 | base | a), // stur x
        4 => one(0x3840_0000 | simm9 | base | a), // ldurb
        5 => one(0x7800_0000 | simm9 | base | a), // sturh
        6 => one(0xb880_0000 | simm9 | base | a), // ldursw
        7 => one(0xa940_0000 | (r.below(128) as u32) << 15 | 6 << 10 | base | a), // ldp x a, x6
        8 => one(0xa900_0000 | (r.below(128) as u32) << 15 | b << 10 | base | a), // stp
        9 => one(0x2940_0000 | (r.below(128) as u32) << 15 | 6 << 10 | base | a), // ldp w
        10 => one(0x3cc0_0000 | simm9 | base | a), // ldur q
        11 => one(0x3c80_0000 | simm9 | base | a), // stur q
        12 => one(0x4c40_a000 | base | (a & 3)),  // ld1 {v.16b, v+1.16b}
        13 => one(0x4c00_8000 | base | (a & 3)),  // st2 {v.16b, v+1.16b}
        14 => aligned_one(&[0xf8e0_8000 | a << 16 | base | b]), // swpal x
        15 => aligned_one(&[0xb820_0000 | a << 16 | base | b]), // ldadd w
        16 => aligned_one(&[0xc8e0_fc00 | a << 16 | base | b]), // casal x
        17 => aligned_one(&[0x88df_fc00 | base | a]), // ldar w
        18 => aligned_one(&[0xc89f_fc00 | base | a]), // stlr x
        // ldaxr x a; stlxr w7, x b
        19 => aligned_one(&[0xc85f_fc00 | base | a, 0xc807_fc00 | base | b]),
        20 => vec![0x8b00_0000 | a << 16 | b << 5 | c], // add
        _ => vec![0x9b00_7c00 | a << 16 | b << 5 | c],  // mul
    }
}

/// powerpc words with their base in r8.
fn power_insn(r: &mut Random) -> Vec<u32> {
    let rt = |r: &mut Random| 3 + r.below(4) as u32; // r3..r6
    let (a, b, c) = (rt(r), rt(r), rt(r));
    let v = r.below(4) as u32;
    let d = r.below(PAGE) as u32;
    let move_base = 0x3909_0000 | (d & 0xffff); // addi r8, r9, d
    let align = 0x7908_06e4 & !0x7e0 | (59 & 31) << 6 | (59 >> 5) << 5; // clrrdi r8, r8, 4
    let one = |word| vec![move_base, word];
    let aligned_one = |words: &[u32]| [&[move_base, align][..], words].concat();
    let x = |rt: u32, xo: u32| 31 << 26 | rt << 21 | 8 << 11 | xo << 1; // X-form, RA = 0, RB = r8
    match r.below(24) {
        0 => one(32 << 26 | a << 21 | 8 << 16),         // lwz
        1 => one(36 << 26 | a << 21 | 8 << 16),         // stw
        2 => one(58 << 26 | a << 21 | 8 << 16),         // ld
        3 => one(62 << 26 | a << 21 | 8 << 16),         // std
        4 => one(34 << 26 | a << 21 | 8 << 16 | 1),     // lbz
        5 => one(38 << 26 | a << 21 | 8 << 16 | 1),     // stb
        6 => one(42 << 26 | a << 21 | 8 << 16 | 3),     // lha
        7 => one(44 << 26 | a << 21 | 8 << 16 | 3),     // sth
        8 => one(33 << 26 | a << 21 | 8 << 16 | 5),     // lwzu
        9 => one(62 << 26 | a << 21 | 8 << 16 | 4 | 1), // stdu
        10 => one(x(a, 534)),                           // lwbrx
        11 => one(x(a, 662)),                           // stwbrx
        12 => one(x(a, 532)),                           // ldbrx
        13 => one(x(a, 660)),                           // stdbrx
        14 => one(50 << 26 | v << 21 | 8 << 16),        // lfd
        15 => one(54 << 26 | v << 21 | 8 << 16),        // stfd
        16 => one(x(v, 103)),                           // lvx
        17 => one(x(v, 231)),                           // stvx
        18 => one(x(v, 844)),                           // lxvd2x
        19 => one(x(v, 972)),                           // stxvd2x
        20 => aligned_one(&[x(a, 20), x(b, 150) | 1]),  // lwarx; stwcx.
        21 => aligned_one(&[x(a, 84), x(b, 214) | 1]),  // ldarx; stdcx.
        22 => vec![31 << 26 | a << 21 | b << 16 | c << 11 | 266 << 1], // add
        _ => vec![31 << 26 | a << 21 | b << 16 | c << 11 | 233 << 1], // mulld
    }
}

/// A program: code without return, and the number of its instructions.
pub(crate) fn program(arch: Arch, r: &mut Random) -> Vec<u8> {
    let mut code = Vec::new();
    for _ in 0..LENGTH {
        match arch {
            Arch::X86_64 => code.extend(x86_insn(r)),
            Arch::Arm64 => {
                code.extend(arm64_insn(r).into_iter().flat_map(u32::to_le_bytes));
            }
            Arch::Ppc64le => code.extend(power_insn(r).into_iter().flat_map(u32::to_le_bytes)),
            _ => code.extend(power_insn(r).into_iter().flat_map(u32::to_be_bytes)),
        }
    }
    code
}

/// Registers that a program starts with, by the manual's number: pointers into the middle of the
/// data, the rest random.
pub(crate) fn initial(arch: Arch, r: &mut Random, middle: u64) -> Vec<(u8, u64)> {
    let (pointers, others): (&[u8], &[u8]) = match arch {
        Arch::X86_64 => (&[7, 6], &[0, 1, 2, 3, 8]),
        Arch::Arm64 => (&[8, 9], &[0, 1, 2, 3, 4, 5, 6]),
        _ => (&[8, 9], &[3, 4, 5, 6, 7]),
    };
    let pointers = pointers.iter().map(|n| (*n, middle));
    let others: Vec<_> = others.iter().map(|n| (*n, r.number())).collect();
    pointers.chain(others).collect()
}
