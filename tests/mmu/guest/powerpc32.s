# Performs accesses that the host asks for, each below an interrupt handler (a 32-bit CPU with
# hashed tables, segment registers and blocks; loaded at 0xfff00000, where it starts, big-endian).
#
# The layout of memory is the other guests' (tests/mmu/tests/guest/qemu.rs): words of 8 bytes, of
# which this one looks at the lower half. Every access ends in an interrupt, if only by the `sc`
# behind it, and every interrupt in real mode.
#
# r20 control block, r25 vector of the interrupt, r29 cases left, r30 answer, r31 case.
# Not touched by what is tested: it uses r3 and r4.

        .set    CONTROL, 0x40           # upper half of the address
        .set    CASE_BYTES, 192
        .set    ANSWER_BYTES, 96
        .set    SDR1, 25
        .set    IBAT0U, 528
        .set    DBAT0U, 536
        .set    LOWER, 4                # of a word of 8 bytes

        .text
        .globl  _start
_start:
        .org    0x100                   # reset, and the vectors behind it
        b       main

        .org    0x200
        .set    vector, 0x200
        .rept   (0x2000 - 0x200) / 0x20
        li      %r25, vector
        b       ended
        .set    vector, vector + 0x20
        .org    vector
        .endr

main:
        lis     %r20, CONTROL
        li      %r3, 0
        .set    i, 0
        .rept   8                       # no blocks
        mtspr   IBAT0U + i, %r3
        mtspr   DBAT0U + i, %r3
        .set    i, i + 1
        .endr
        isync
        li      %r3, 1                  # ready
        stw     %r3, 16 + LOWER(%r20)

wait:
        lwz     %r5, 0 + LOWER(%r20)    # number of the batch asked for
        lwz     %r6, 8 + LOWER(%r20)    # and of the one done
        cmpw    %r5, %r6
        beq     wait
        lwz     %r29, 24 + LOWER(%r20)
        lwz     %r31, 40 + LOWER(%r20)
        lwz     %r30, 48 + LOWER(%r20)
        lwz     %r3, 32 + LOWER(%r20)
        mtspr   SDR1, %r3
        isync

next:
        cmpwi   %r29, 0
        beq     finished
        .set    i, 0
        .rept   5                       # words of entries: address, value
        lwz     %r6, 16 * i + LOWER(%r31)
        lwz     %r7, 16 * i + 8 + LOWER(%r31)
        stw     %r7, 0(%r6)
        .set    i, i + 1
        .endr
        lwz     %r6, 112 + LOWER(%r31)  # what the frame has before the access: both halves
        lwz     %r7, 120(%r31)
        lwz     %r8, 120 + LOWER(%r31)
        lwz     %r9, 0(%r6)
        lwz     %r10, 4(%r6)
        cmpw    %r7, %r9
        bne     1f
        cmpw    %r8, %r10
        beq     2f
1:
        stw     %r7, 0(%r6)
        stw     %r8, 4(%r6)
        dcbst   0, %r6
        sync
        icbi    0, %r6
        sync
        isync
2:
        .set    i, 0
        .rept   2                       # segment registers: which, value
        lwz     %r6, 128 + 16 * i + LOWER(%r31)
        lwz     %r7, 136 + 16 * i + LOWER(%r31)
        mtsrin  %r7, %r6
        .set    i, i + 1
        .endr
        lwz     %r7, 160 + LOWER(%r31)  # blocks of data and of fetches
        lwz     %r8, 168 + LOWER(%r31)
        mtspr   DBAT0U + 1, %r8
        mtspr   DBAT0U, %r7
        lwz     %r7, 176 + LOWER(%r31)
        lwz     %r8, 184 + LOWER(%r31)
        mtspr   IBAT0U + 1, %r8
        mtspr   IBAT0U, %r7
        sync
        lwz     %r4, 96 + LOWER(%r31)
        lwz     %r7, 80 + LOWER(%r31)
        tlbie   %r4
        tlbie   %r7
        tlbsync
        sync
        isync
        lis     %r8, 0x7fff             # no decrementer interrupt
        mtdec   %r8
        li      %r8, 0
        mtdsisr %r8
        mtdar   %r8
        mtsrr0  %r7
        lwz     %r7, 88 + LOWER(%r31)
        mtsrr1  %r7
        lwz     %r3, 104 + LOWER(%r31)
        rfi

ended:
        li      %r8, 0
        .set    i, 0
        .rept   12
        stw     %r8, 8 * i(%r30)
        .set    i, i + 1
        .endr
        stw     %r25, 0 + LOWER(%r30)
        mfsrr1  %r7
        stw     %r7, 8 + LOWER(%r30)
        mfdsisr %r7
        stw     %r7, 16 + LOWER(%r30)
        mfdar   %r7
        stw     %r7, 24 + LOWER(%r30)
        stw     %r3, 32 + LOWER(%r30)
        lwz     %r6, 112 + LOWER(%r31)
        lwz     %r7, 0(%r6)
        lwz     %r8, 4(%r6)
        stw     %r7, 40(%r30)
        stw     %r8, 40 + LOWER(%r30)
        li      %r8, 0
        .set    i, 0
        .rept   5                       # entries as the access left them; they go again
        lwz     %r6, 16 * i + LOWER(%r31)
        lwz     %r7, 0(%r6)
        stw     %r7, 48 + 8 * i + LOWER(%r30)
        stw     %r8, 0(%r6)
        .set    i, i + 1
        .endr
        mfsrr0  %r7
        stw     %r7, 88 + LOWER(%r30)
        addi    %r31, %r31, CASE_BYTES
        addi    %r30, %r30, ANSWER_BYTES
        addi    %r29, %r29, -1
        b       next

finished:
        sync
        lwz     %r5, 0 + LOWER(%r20)
        stw     %r5, 8 + LOWER(%r20)
        b       wait
