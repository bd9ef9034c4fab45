# atomic_inc(address, count): adds 1 to a 32-bit word, `count` times, each time atomically.
# Arguments: address, how many times. Result: how many increments it did.
# Memory: `lock inc`; load exclusive and store exclusive; load reserve and store conditional.
# The result does not tell retries, which depend on what other CPUs do.

        .text
        .globl  atomic_inc
        .type   atomic_inc, @function
atomic_inc:
        mov     %rsi, %rax
1:      test    %rsi, %rsi
        jz      2f
        lock incl (%rdi)
        dec     %rsi
        jmp     1b
2:      ret
        .size   atomic_inc, . - atomic_inc
