# atomic_inc(address, count): adds 1 to a 32-bit word, `count` times, each time atomically.
# Arguments: address, how many times. Result: how many increments it did.
# Memory: `lock inc`; load exclusive and store exclusive; load reserve and store conditional.
# The result does not tell retries, which depend on what other CPUs do.

        .text
        .globl  atomic_inc
        .type   atomic_inc, @function
atomic_inc:
        mr      %r7, %r4
        cmpdi   %r4, 0
        beq     3f
        mtctr   %r4
2:      lwarx   %r6, 0, %r3
        addi    %r6, %r6, 1
        stwcx.  %r6, 0, %r3
        bne-    2b
        bdnz    2b
3:      mr      %r3, %r7
        blr
        .size   atomic_inc, . - atomic_inc
