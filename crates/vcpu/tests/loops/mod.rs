//! Loops of guest code: arithmetic alone, loads and stores, stores into the page that runs, calls.
//!
//! Each is a function of three arguments: data that it may use, how often it goes round, and an
//! address that the third loop stores to.

#![allow(dead_code)] // tests and benches use their part

use textbed_arch::Arch;

/// A loop in the code of each architecture, and its instructions by turn.
pub(crate) struct Loop {
    pub(crate) name: &'static str,
    x86_64: (&'static [u8], u64),
    arm64: (&'static [u32], u64),
    power: (&'static [u32], u64),
}

impl Loop {
    /// Its bytes.
    pub(crate) fn bytes(&self, arch: Arch) -> Vec<u8> {
        match arch {
            Arch::X86_64 => self.x86_64.0.to_vec(),
            Arch::Arm64 => self.arm64.0.iter().flat_map(|w| w.to_le_bytes()).collect(),
            Arch::Ppc64le => self.power.0.iter().flat_map(|w| w.to_le_bytes()).collect(),
            Arch::Ppc64 | Arch::Ppc32 => {
                self.power.0.iter().flat_map(|w| w.to_be_bytes()).collect()
            }
        }
    }

    /// Instructions that each turn executes.
    pub(crate) fn by_turn(&self, arch: Arch) -> u64 {
        match arch {
            Arch::X86_64 => self.x86_64.1,
            Arch::Arm64 => self.arm64.1,
            _ => self.power.1,
        }
    }
}

/// All four.
pub(crate) const LOOPS: [Loop; 4] = [ALU, MEMORY, CODE_STORES, CALLS];

/// Arithmetic in registers.
pub(crate) const ALU: Loop = Loop {
    name: "alu",
    x86_64: (
        &[
            0x48, 0x01, 0xc8, // addq %rcx, %rax
            0x48, 0x31, 0xc2, // xorq %rax, %rdx
            0x48, 0xc1, 0xc2, 0x11, // rolq $17, %rdx
            0x48, 0x8d, 0x4c, 0x51, 0x01, // leaq 1(%rcx,%rdx,2), %rcx
            0x48, 0x29, 0xd0, // subq %rdx, %rax
            0x49, 0x09, 0xc8, // orq %rcx, %r8
            0x48, 0xff, 0xce, // decq %rsi
            0x75, 0xe6, // jne 0x0
            0xc3, // retq
        ],
        8,
    ),
    arm64: (
        &[
            0x8b03_0042, // add x2, x2, x3
            0xca02_0063, // eor x3, x3, x2
            0x93c3_4463, // ror x3, x3, #17
            0x8b03_0444, // add x4, x2, x3, lsl #1
            0xcb04_0042, // sub x2, x2, x4
            0xaa04_00a5, // orr x5, x5, x4
            0xf100_0421, // subs x1, x1, #1
            0x54ff_ff21, // b.ne 0x0
            0xd65f_03c0, // ret
        ],
        8,
    ),
    power: (
        &[
            0x7c89_03a6, // mtctr 4
            0x7ca5_3214, // add 5, 5, 6
            0x7cc6_2a78, // xor 6, 6, 5
            0x78c6_8800, // rotldi 6, 6, 17
            0x78c7_0fa4, // sldi 7, 6, 1
            0x7ce7_2a14, // add 7, 7, 5
            0x7ca7_2850, // sub 5, 5, 7
            0x7d08_3b78, // or 8, 8, 7
            0x4200_ffe4, // bdnz 0x4 <.text+0x4>
            0x4e80_0020, // blr
        ],
        8,
    ),
};

/// Two loads and a store.
pub(crate) const MEMORY: Loop = Loop {
    name: "load/store",
    x86_64: (
        &[
            0x48, 0x8b, 0x07, // movq (%rdi), %rax
            0x48, 0x8b, 0x4f, 0x08, // movq 8(%rdi), %rcx
            0x48, 0x01, 0xc8, // addq %rcx, %rax
            0x48, 0x89, 0x47, 0x10, // movq %rax, 16(%rdi)
            0x48, 0x83, 0xf7, 0x40, // xorq $64, %rdi
            0x48, 0xff, 0xce, // decq %rsi
            0x75, 0xe9, // jne 0x0
            0xc3, // retq
        ],
        7,
    ),
    arm64: (
        &[
            0xf940_0002, // ldr x2, [x0]
            0xf940_0403, // ldr x3, [x0, #8]
            0x8b03_0042, // add x2, x2, x3
            0xf900_0802, // str x2, [x0, #16]
            0xd27a_0000, // eor x0, x0, #0x40
            0xf100_0421, // subs x1, x1, #1
            0x54ff_ff41, // b.ne 0x0
            0xd65f_03c0, // ret
        ],
        7,
    ),
    power: (
        &[
            0x7c89_03a6, // mtctr 4
            0xe8a3_0000, // ld 5, 0(3)
            0xe8c3_0008, // ld 6, 8(3)
            0x7ca5_3214, // add 5, 5, 6
            0xf8a3_0010, // std 5, 16(3)
            0x6863_0040, // xori 3, 3, 64
            0x4200_ffec, // bdnz 0x4 <.text+0x4>
            0x4e80_0020, // blr
        ],
        6,
    ),
};

/// A store to the third argument.
pub(crate) const CODE_STORES: Loop = Loop {
    name: "own code page",
    x86_64: (
        &[
            0x48, 0x89, 0x0a, // movq %rcx, (%rdx)
            0x48, 0x83, 0xc1, 0x01, // addq $1, %rcx
            0x48, 0xff, 0xce, // decq %rsi
            0x75, 0xf4, // jne 0x0
            0xc3, // retq
        ],
        4,
    ),
    arm64: (
        &[
            0xb900_0043, // str w3, [x2]
            0x9100_0463, // add x3, x3, #1
            0xf100_0421, // subs x1, x1, #1
            0x54ff_ffa1, // b.ne 0x0
            0xd65f_03c0, // ret
        ],
        4,
    ),
    power: (
        &[
            0x7c89_03a6, // mtctr 4
            0x90c5_0000, // stw 6, 0(5)
            0x38c6_0001, // addi 6, 6, 1
            0x4200_fff8, // bdnz 0x4 <.text+0x4>
            0x4e80_0020, // blr
        ],
        3,
    ),
};

/// A call of a function that uses the stack.
pub(crate) const CALLS: Loop = Loop {
    name: "calls",
    x86_64: (
        &[
            0xe8, 0x06, 0x00, 0x00, 0x00, // callq 0xb <.text+0xb>
            0x48, 0xff, 0xce, // decq %rsi
            0x75, 0xf6, // jne 0x0
            0xc3, // retq
            0x53, // pushq %rbx
            0x48, 0x83, 0xc0, 0x03, // addq $3, %rax
            0x48, 0x8d, 0x1c, 0x30, // leaq (%rax,%rsi), %rbx
            0x5b, // popq %rbx
            0xc3, // retq
        ],
        8,
    ),
    arm64: (
        &[
            0xaa1e_03e9, // mov x9, x30
            0x9400_0004, // bl 0x14 <$x.0+0x14>
            0xf100_0421, // subs x1, x1, #1
            0x54ff_ffc1, // b.ne 0x4 <$x.0+0x4>
            0xd65f_0120, // ret x9
            0xa9bf_7bfd, // stp x29, x30, [sp, #-16]!
            0x9100_0c42, // add x2, x2, #3
            0x8b01_0043, // add x3, x2, x1
            0xa8c1_7bfd, // ldp x29, x30, [sp], #16
            0xd65f_03c0, // ret
        ],
        8,
    ),
    power: (
        &[
            0x7d28_02a6, // mflr 9
            0x7c89_03a6, // mtctr 4
            0x4800_0011, // bl 0x18 <.text+0x18>
            0x4200_fffc, // bdnz 0x8 <.text+0x8>
            0x7d28_03a6, // mtlr 9
            0x4e80_0020, // blr
            0x7c08_02a6, // mflr 0
            0xf801_0010, // std 0, 16(1)
            0xf821_ffc1, // stdu 1, -64(1)
            0x38a5_0003, // addi 5, 5, 3
            0x7cc5_2214, // add 6, 5, 4
            0x3821_0040, // addi 1, 1, 64
            0xe801_0010, // ld 0, 16(1)
            0x7c08_03a6, // mtlr 0
            0x4e80_0020, // blr
        ],
        11,
    ),
};
