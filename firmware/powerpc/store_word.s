# store_word(address, word): stores 32 bits, without any maintenance.
# Arguments: address, word. Result: 0. Memory: one store of 4 bytes.

        .text
        .globl  store_word
        .type   store_word, @function
store_word:
        stw     %r4, 0(%r3)
        li      %r3, 0
        blr
        .size   store_word, . - store_word
