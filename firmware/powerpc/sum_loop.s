# sum_loop(words, count): replaces each 32-bit word by the sum of all words up to it.
# Arguments: address of the words, how many. Result: the last sum modulo 2^32, 0 for no words.
# Memory: one load and one store of 4 bytes for each word, in ascending order.

        .text
        .globl  sum_loop
        .type   sum_loop, @function
sum_loop:
        li      %r5, 0
        cmpdi   %r4, 0
        beq     2f
        mtctr   %r4
1:      lwz     %r6, 0(%r3)
        add     %r5, %r5, %r6
        stw     %r5, 0(%r3)
        addi    %r3, %r3, 4
        bdnz    1b
2:      clrldi  %r3, %r5, 32
        blr
        .size   sum_loop, . - sum_loop
