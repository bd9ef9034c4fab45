# store_word(address, word): stores 32 bits, without any maintenance.
# Arguments: address, word. Result: 0. Memory: one store of 4 bytes.

        .text
        .globl  store_word
        .type   store_word, @function
store_word:
        mov     %esi, (%rdi)
        xor     %eax, %eax
        ret
        .size   store_word, . - store_word
