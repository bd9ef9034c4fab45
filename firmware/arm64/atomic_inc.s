// atomic_inc(address, count): adds 1 to a 32-bit word, `count` times, each time atomically.
// Arguments: address, how many times. Result: how many increments it did.
// Memory: `lock inc`; load exclusive and store exclusive; load reserve and store conditional.
// The result does not tell retries, which depend on what other CPUs do.

        .text
        .globl  atomic_inc
        .type   atomic_inc, %function
atomic_inc:
        mov     x2, x1
1:      cbz     x1, 3f
2:      ldaxr   w3, [x0]
        add     w3, w3, #1
        stlxr   w4, w3, [x0]
        cbnz    w4, 2b
        sub     x1, x1, #1
        b       1b
3:      mov     x0, x2
        ret
        .size   atomic_inc, . - atomic_inc
