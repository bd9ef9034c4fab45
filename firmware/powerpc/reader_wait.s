# reader_wait(flag, function): waits for the flag, synchronises this CPU's context and calls.
# Arguments: address of a 32-bit flag, address of a function. Result: what the function returns.
# Memory: loads of 4 bytes until one is not 0; saves on the stack.
# Load (`ldar` on arm64), dependent branch, context synchronisation, call: the reading side of code
# publication.
# The synchronising instruction: `cpuid` (serialises on Intel and AMD), `isb`, `isync`.

        .text
        .globl  reader_wait
        .type   reader_wait, @function
reader_wait:
1:      lwz     %r5, 0(%r3)
        cmpwi   %r5, 0
        beq     1b
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
        .size   reader_wait, . - reader_wait
