// Performs accesses that the host asks for, each below an exception handler (QEMU's virt, loaded by
// -device loader, EL1).
//
// The host writes code, tables and cases to memory that it shares with QEMU; see
// tests/mmu/tests/guest/qemu.rs for the layout, which this file and that one have in common. What
// is tested is on TTBR0's side; this code and its data are on TTBR1's. Every access ends in an
// exception, if only by the `svc` behind it.
//
// x20 control block, x24 offset of data, x25 vector of the exception, x29 cases left, x28 answer,
// x27 case. Not touched by what is tested: it uses x0 and x1.

        .set    MEMORY, 0x40000000
        .set    CONTROL, 0x400000
        .set    CASE_BYTES, 192
        .set    ANSWER_BYTES, 96
        // Where TTBR1 has memory: to execute, and to write. Neither is of use for both, for WXN is
        // among what is tested.
        .set    CODE_AT, 0xffffff8040000000
        .set    DATA_AT, 0xffffff8080000000

        .set    ATTRIBUTES, 0x401               // block, accessed, MAIR index 0
        .set    TCR_HIGH, 25 << 16 | 2 << 30    // 39 bits, 4 KiB
        .set    SCTLR_PLAIN, 0x30d01805         // M, C, I and what is RES1

        .text
        .globl  _start
_start:
        ldr     x20, =MEMORY + CONTROL
        mov     x0, #0xff
        msr     mair_el1, x0
        adr     x0, identity
        msr     ttbr0_el1, x0
        adr     x0, high
        msr     ttbr1_el1, x0
        ldr     x0, =TCR_HIGH | 25 | 2 << 32    // the same below, 40 bits of physical address
        msr     tcr_el1, x0
        isb
        ldr     x0, =SCTLR_PLAIN
        msr     sctlr_el1, x0
        isb
        ldr     x0, =CODE_AT - MEMORY
        adr     x1, mapped
        add     x0, x0, x1
        br      x0
mapped:
        adr     x0, vectors
        msr     vbar_el1, x0
        ldr     x24, =DATA_AT - MEMORY
        add     x20, x20, x24
        mov     x0, #1                          // ready
        str     x0, [x20, #16]

wait:
        ldr     x5, [x20, #0]                   // number of the batch asked for
        ldr     x6, [x20, #8]                   // and of the one done
        cmp     x5, x6
        b.eq    wait
        dmb     ish
        ldr     x29, [x20, #24]
        ldr     x27, [x20, #40]
        add     x27, x27, x24
        ldr     x28, [x20, #48]
        add     x28, x28, x24

next:
        cbz     x29, finished
        mov     x2, x27
        mov     w3, #5
1:      ldp     x6, x7, [x2], #16               // entries: address, value
        str     x7, [x6, x24]
        subs    w3, w3, #1
        b.ne    1b
        ldp     x6, x7, [x27, #112]             // what the frame has before the access
        ldr     x8, [x6, x24]
        cmp     x7, x8
        b.eq    2f
        str     x7, [x6, x24]
        add     x6, x6, x24
        dc      cvau, x6
        dsb     ish
        ic      ialluis
2:      ldp     x7, x8, [x27, #128]             // TCR, with what TTBR1 needs; SCTLR
        msr     tcr_el1, x7
        msr     sctlr_el1, x8
        ldr     x7, [x27, #144]
        msr     ttbr0_el1, x7
        dsb     ish
        isb
        tlbi    vmalle1
        dsb     ish
        msr     esr_el1, xzr
        msr     far_el1, xzr
        ldp     x7, x8, [x27, #80]              // where to, PSTATE
        msr     elr_el1, x7
        msr     spsr_el1, x8
        ldp     x1, x0, [x27, #96]              // address, register
        eret

ended:
        str     x25, [x28]
        mrs     x7, esr_el1
        str     x7, [x28, #8]
        mrs     x7, far_el1
        str     x7, [x28, #24]
        str     x0, [x28, #32]
        ldr     x6, [x27, #112]
        ldr     x7, [x6, x24]
        str     x7, [x28, #40]
        mov     x2, x27
        add     x3, x28, #48
        mov     w4, #5
1:      ldr     x6, [x2], #16                   // entries as the access left them
        ldr     x7, [x6, x24]
        str     x7, [x3], #8
        subs    w4, w4, #1
        b.ne    1b
        mrs     x7, elr_el1
        str     x7, [x28, #88]
        add     x27, x27, #CASE_BYTES
        add     x28, x28, #ANSWER_BYTES
        sub     x29, x29, #1
        b       next

finished:
        dmb     ish
        ldr     x5, [x20, #0]
        str     x5, [x20, #8]
        b       wait

        .ltorg

        .balign 0x800
vectors:
        .set    vector, 0
        .rept   16
        mov     x25, #vector
        b       ended
        .set    vector, vector + 0x80
        .balign 0x80
        .endr

        .balign 0x1000
identity:                                       // level 1: memory where it is
        .quad   0
        .quad   MEMORY | ATTRIBUTES
        .balign 0x1000
high:                                           // read-only, for EL1; writable, not executable
        .quad   0
        .quad   MEMORY | ATTRIBUTES | 1 << 7 | 1 << 54
        .quad   MEMORY | ATTRIBUTES | 1 << 53 | 1 << 54
        .balign 0x1000
