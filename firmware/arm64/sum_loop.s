// sum_loop(words, count): replaces each 32-bit word by the sum of all words up to it.
// Arguments: address of the words, how many. Result: the last sum modulo 2^32, 0 for no words.
// Memory: one load and one store of 4 bytes for each word, in ascending order.

        .text
        .globl  sum_loop
        .type   sum_loop, %function
sum_loop:
        mov     w2, wzr
1:      cbz     x1, 2f
        ldr     w3, [x0]
        add     w2, w2, w3
        str     w2, [x0], #4
        sub     x1, x1, #1
        b       1b
2:      mov     w0, w2
        ret
        .size   sum_loop, . - sum_loop
