# sum_loop(words, count): replaces each 32-bit word by the sum of all words up to it.
# Arguments: address of the words, how many. Result: the last sum modulo 2^32, 0 for no words.
# Memory: one load and one store of 4 bytes for each word, in ascending order.

        .text
        .globl  sum_loop
        .type   sum_loop, @function
sum_loop:
        xor     %eax, %eax
1:      test    %rsi, %rsi
        jz      2f
        add     (%rdi), %eax
        mov     %eax, (%rdi)
        add     $4, %rdi
        dec     %rsi
        jmp     1b
2:      ret
        .size   sum_loop, . - sum_loop
