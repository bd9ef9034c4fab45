# reader(flag, function): if the flag is set, synchronises this CPU's context and calls.
# Arguments: address of a 32-bit flag, address of a function. Result: what the function returns, or
# 2^64 - 1 if the flag was 0.
# Memory: one load of 4 bytes; saves on the stack.
# Load, dependent branch, context synchronisation, call: the reading side of code publication.
# The synchronising instruction: `cpuid` (serialises on Intel and AMD), `isb`, `isync`.

        .text
        .globl  reader
        .type   reader, @function
reader:
        lwz     %r5, 0(%r3)
        cmpwi   %r5, 0
        beq     1f
        isync
        mflr    %r0
        std     %r0, 16(%r1)
        stdu    %r1, -32(%r1)
        mr      %r12, %r4
        mtctr   %r4
        bctrl
        addi    %r1, %r1, 32
        ld      %r0, 16(%r1)
        mtlr    %r0
        blr
1:      li      %r3, -1
        blr
        .size   reader, . - reader
