# add3(a, b, c): adds three arguments.
# Arguments: a, b, c. Result: a + b + c modulo 2^64. Memory: none.

        .text
        .globl  add3
        .type   add3, @function
add3:
        add     %r3, %r3, %r4
        add     %r3, %r3, %r5
        blr
        .size   add3, . - add3
