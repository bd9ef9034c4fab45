# poke_call(site, word, function): stores one word of code and calls, without maintenance.
# Arguments: where, the 32-bit word, function to call. Result: what the function returns.
# Memory: one store of 4 bytes; saves on the stack.
# What self-modifying code must not do on arm64 and powerpc; x86-64 allows it for one CPU that uses
# the same linear address.

        .text
        .globl  poke_call
        .type   poke_call, @function
poke_call:
        stw     %r4, 0(%r3)
        mflr    %r0
        std     %r0, 16(%r1)
        stdu    %r1, -32(%r1)
        mr      %r12, %r5
        mtctr   %r5
        bctrl
        addi    %r1, %r1, 32
        ld      %r0, 16(%r1)
        mtlr    %r0
        blr
        .size   poke_call, . - poke_call
