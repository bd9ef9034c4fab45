# memcpy_words(to, from, count): copies 32-bit words, ascending.
# Arguments: destination, source, how many words. Result: the destination.
# Memory: one load and one store of 4 bytes for each word.

        .text
        .globl  memcpy_words
        .type   memcpy_words, @function
memcpy_words:
        mov     %rdi, %rax
1:      test    %rdx, %rdx
        jz      2f
        mov     (%rsi), %ecx
        mov     %ecx, (%rdi)
        add     $4, %rsi
        add     $4, %rdi
        dec     %rdx
        jmp     1b
2:      ret
        .size   memcpy_words, . - memcpy_words
