// add3(a, b, c): adds three arguments.
// Arguments: a, b, c. Result: a + b + c modulo 2^64. Memory: none.

        .text
        .globl  add3
        .type   add3, %function
add3:
        add     x0, x0, x1
        add     x0, x0, x2
        ret
        .size   add3, . - add3
