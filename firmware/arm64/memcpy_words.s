// memcpy_words(to, from, count): copies 32-bit words, ascending.
// Arguments: destination, source, how many words. Result: the destination.
// Memory: one load and one store of 4 bytes for each word.

        .text
        .globl  memcpy_words
        .type   memcpy_words, %function
memcpy_words:
        mov     x3, x0
1:      cbz     x2, 2f
        ldr     w4, [x1], #4
        str     w4, [x3], #4
        sub     x2, x2, #1
        b       1b
2:      ret
        .size   memcpy_words, . - memcpy_words
