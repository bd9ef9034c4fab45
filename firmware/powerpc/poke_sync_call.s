# poke_sync_call(site, word, function): stores one word of code, makes it fetchable, calls.
# Arguments: where, the 32-bit word, function to call. Result: what the function returns.
# Memory: one store of 4 bytes, maintenance of its line; saves on the stack.
# The whole chain on one CPU: store, clean, invalidate, complete, synchronise (DDI 0487 B2.7.4.2;
# Power ISA Book II 4.4); on x86-64 a serialising instruction.

        .text
        .globl  poke_sync_call
        .type   poke_sync_call, @function
poke_sync_call:
        stw     %r4, 0(%r3)
        dcbst   0, %r3
        sync
        icbi    0, %r3
        sync
        isync
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
        .size   poke_sync_call, . - poke_sync_call
