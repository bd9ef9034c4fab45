# store_two(address, first, second): stores two 64-bit values by one instruction.
# Arguments: address, the two values. Result: 0.
# Memory: 16 bytes, by one `stp` on arm64 and one vector store on x86-64 and powerpc.
# A fault on its second half must leave nothing of the first.

        .text
        .globl  store_two
        .type   store_two, @function
store_two:
        movq    %rsi, %xmm0
        movq    %rdx, %xmm1
        punpcklqdq %xmm1, %xmm0
        movdqu  %xmm0, (%rdi)
        xor     %eax, %eax
        ret
        .size   store_two, . - store_two
