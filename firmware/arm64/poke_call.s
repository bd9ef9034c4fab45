// poke_call(site, word, function): stores one word of code and calls, without maintenance.
// Arguments: where, the 32-bit word, function to call. Result: what the function returns.
// Memory: one store of 4 bytes; saves on the stack.
// What self-modifying code must not do on arm64 and powerpc; x86-64 allows it for one CPU that uses
// the same linear address.

        .text
        .globl  poke_call
        .type   poke_call, %function
poke_call:
        str     w1, [x0]
        stp     x29, x30, [sp, #-16]!
        blr     x2
        ldp     x29, x30, [sp], #16
        ret
        .size   poke_call, . - poke_call
