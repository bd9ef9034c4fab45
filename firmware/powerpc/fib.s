# fib(n): Fibonacci number by plain recursion; keeps the stack busy.
# Arguments: n. Result: fib(n), with fib(0) = 0 and fib(1) = 1.
# Memory: saves registers on the stack, a frame for each level.

        .text
        .globl  fib
        .type   fib, @function
fib:
        cmpldi  %r3, 2
        bltlr
        mflr    %r0
        std     %r0, 16(%r1)
        std     %r30, -16(%r1)
        std     %r31, -8(%r1)
        stdu    %r1, -48(%r1)
        mr      %r30, %r3
        addi    %r3, %r30, -1
        bl      fib
        mr      %r31, %r3
        addi    %r3, %r30, -2
        bl      fib
        add     %r3, %r3, %r31
        addi    %r1, %r1, 48
        ld      %r0, 16(%r1)
        ld      %r30, -16(%r1)
        ld      %r31, -8(%r1)
        mtlr    %r0
        blr
        .size   fib, . - fib
