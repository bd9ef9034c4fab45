# memcpy_words(to, from, count): copies 32-bit words, ascending.
# Arguments: destination, source, how many words. Result: the destination.
# Memory: one load and one store of 4 bytes for each word.

        .text
        .globl  memcpy_words
        .type   memcpy_words, @function
memcpy_words:
        cmpdi   %r5, 0
        beqlr
        mtctr   %r5
        mr      %r6, %r3
1:      lwz     %r7, 0(%r4)
        stw     %r7, 0(%r6)
        addi    %r4, %r4, 4
        addi    %r6, %r6, 4
        bdnz    1b
        blr
        .size   memcpy_words, . - memcpy_words
