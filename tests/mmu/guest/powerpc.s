# Performs accesses that the host asks for, each below an interrupt handler (QEMU's powernv8 and
# powernv9, loaded at 0 by -bios, hypervisor state, big-endian).
#
# The host writes code, tables and cases to memory that it shares with QEMU; see
# tests/mmu/tests/guest/qemu.rs for the layout, which this file and that one have in common. Every
# access ends in an interrupt, if only by the `sc` behind it, and every interrupt in real mode.
#
# r20 control block, r25 vector of the interrupt, r29 cases left, r30 answer, r31 case.
# Not touched by what is tested: it uses r3 and r4.

        .set    CONTROL, 0x40           # upper half of the address
        .set    CASE_BYTES, 192
        .set    ANSWER_BYTES, 96
        .set    AMR, 29
        .set    IAMR, 61
        .set    PID, 48
        .set    SPR_LPCR, 318
        .set    LPIDR, 319
        .set    PTCR, 464
        .set    SDR1, 25
        .set    PVR, 287

        .text
        .globl  _start
_start:
        .org    0x10                    # where powernv starts
        b       main

        # Interrupt vectors, every place where one may be.
        .org    0x100
        .set    vector, 0x100
        .rept   (0x1000 - 0x100) / 0x20
        li      %r25, vector
        b       ended
        .set    vector, vector + 0x20
        .org    vector
        .endr

main:
        lis     %r20, CONTROL
        li      %r3, 0
        mtspr   LPIDR, %r3
        mfspr   %r3, PVR
        srdi    %r3, %r3, 16
        cmpdi   %cr3, %r3, 0x4e         # POWER9 has processes and tables of partitions
        bne     %cr3, 1f
        li      %r3, 1
        mtspr   PID, %r3
1:
        li      %r3, 1                  # ready
        std     %r3, 16(%r20)

wait:
        ld      %r5, 0(%r20)            # number of the batch asked for
        ld      %r6, 8(%r20)            # and of the one done
        cmpd    %r5, %r6
        beq     wait
        ld      %r29, 24(%r20)
        ld      %r31, 40(%r20)
        ld      %r30, 48(%r20)
        ld      %r3, 32(%r20)
        bne     %cr3, 1f
        mtspr   PTCR, %r3
        b       2f
1:
        mtspr   SDR1, %r3
2:
        ld      %r3, 56(%r20)           # LPCR: radix trees by a process table, or hashed tables
        mtspr   SPR_LPCR, %r3
        cmpdi   %cr2, %r3, 0
        isync

next:
        cmpdi   %r29, 0
        beq     finished
        .set    i, 0
        .rept   5                       # entries: address, value
        ld      %r6, 16 * i(%r31)
        ld      %r7, 16 * i + 8(%r31)
        std     %r7, 0(%r6)
        .set    i, i + 1
        .endr
        ld      %r6, 112(%r31)          # what the frame has before the access
        ld      %r7, 120(%r31)
        ld      %r8, 0(%r6)
        cmpd    %r7, %r8
        beq     1f
        std     %r7, 0(%r6)
        dcbst   0, %r6
        sync
        icbi    0, %r6
        sync
        isync
1:
        ld      %r7, 128(%r31)
        mtspr   AMR, %r7
        ld      %r7, 136(%r31)
        mtspr   IAMR, %r7
        bne     %cr2, 2f
        ld      %r7, 144(%r31)          # hashed: the segments
        ld      %r8, 152(%r31)
        slbmte  %r8, %r7
        ld      %r7, 160(%r31)
        ld      %r8, 168(%r31)
        slbmte  %r8, %r7
        isync
        ptesync
        ld      %r7, 96(%r31)           # QEMU takes any of these for all
        li      %r8, 0
        tlbie   %r7, %r8, 0, 0, 0
        b       3f
2:
        ptesync
        li      %r8, 0
        li      %r7, 0xc00              # all of what is cached of trees, of all processes
        tlbie   %r7, %r8, 2, 1, 1
        tlbie   %r7, %r8, 2, 0, 1
3:
        eieio
        tlbsync
        ptesync
        lis     %r7, 0x7fff             # no decrementer interrupt
        mtdec   %r7
        li      %r7, 0
        mtdsisr %r7
        mtdar   %r7
        ld      %r7, 80(%r31)
        mtsrr0  %r7
        ld      %r7, 88(%r31)
        mtsrr1  %r7
        ld      %r4, 96(%r31)
        ld      %r3, 104(%r31)
        rfid

ended:
        std     %r25, 0(%r30)
        mfsrr1  %r7
        std     %r7, 8(%r30)
        mfdsisr %r7
        std     %r7, 16(%r30)
        mfdar   %r7
        std     %r7, 24(%r30)
        std     %r3, 32(%r30)
        ld      %r6, 112(%r31)
        ld      %r7, 0(%r6)
        std     %r7, 40(%r30)
        .set    i, 0
        .rept   5                       # entries as the access left them
        ld      %r6, 16 * i(%r31)
        ld      %r7, 0(%r6)
        std     %r7, 48 + 8 * i(%r30)
        .set    i, i + 1
        .endr
        bne     %cr2, 4f
        li      %r7, 0
        .set    i, 0
        .rept   5                       # hashed: the next case's lie elsewhere
        ld      %r6, 16 * i(%r31)
        std     %r7, 0(%r6)
        .set    i, i + 1
        .endr
4:
        mfsrr0  %r7
        std     %r7, 88(%r30)
        addi    %r31, %r31, CASE_BYTES
        addi    %r30, %r30, ANSWER_BYTES
        addi    %r29, %r29, -1
        b       next

finished:
        sync
        ld      %r5, 0(%r20)
        std     %r5, 8(%r20)
        b       wait
