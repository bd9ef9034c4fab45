# store_two(address, first, second): stores two 64-bit values by one instruction.
# Arguments: address, the two values. Result: 0.
# Memory: 16 bytes, by one `stp` on arm64 and one vector store on x86-64 and powerpc.
# A fault on its second half must leave nothing of the first.

        .text
        .globl  store_two
        .type   store_two, @function
store_two:
        mtvsrdd %vs0, %r4, %r5
        stxvd2x %vs0, 0, %r3
        li      %r3, 0
        blr
        .size   store_two, . - store_two
