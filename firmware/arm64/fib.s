// fib(n): Fibonacci number by plain recursion; keeps the stack busy.
// Arguments: n. Result: fib(n), with fib(0) = 0 and fib(1) = 1.
// Memory: saves registers on the stack, a frame for each level.

        .text
        .globl  fib
        .type   fib, %function
fib:
        cmp     x0, #2
        b.lo    1f
        stp     x29, x30, [sp, #-32]!
        stp     x19, x20, [sp, #16]
        mov     x19, x0
        sub     x0, x19, #1
        bl      fib
        mov     x20, x0
        sub     x0, x19, #2
        bl      fib
        add     x0, x0, x20
        ldp     x19, x20, [sp, #16]
        ldp     x29, x30, [sp], #32
1:      ret
        .size   fib, . - fib
