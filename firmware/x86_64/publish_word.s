# publish_word(address, word): a release store.
# Arguments: address, word. Result: 0. Memory: one store of 4 bytes, after everything before it.
# Plain on x86-64, whose stores are releases; `stlr` on arm64; `lwsync` first on powerpc.

        .text
        .globl  publish_word
        .type   publish_word, @function
publish_word:
        mov     %esi, (%rdi)
        xor     %eax, %eax
        ret
        .size   publish_word, . - publish_word
