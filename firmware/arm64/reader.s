// reader(flag, function): if the flag is set, synchronises this CPU's context and calls.
// Arguments: address of a 32-bit flag, address of a function. Result: what the function returns, or
// 2^64 - 1 if the flag was 0.
// Memory: one load of 4 bytes; saves on the stack.
// Load, dependent branch, context synchronisation, call: the reading side of code publication.
// The synchronising instruction: `cpuid` (serialises on Intel and AMD), `isb`, `isync`.

        .text
        .globl  reader
        .type   reader, %function
reader:
        ldr     w2, [x0]
        cbz     w2, 1f
        isb
        stp     x29, x30, [sp, #-16]!
        blr     x1
        ldp     x29, x30, [sp], #16
        ret
1:      mov     x0, #-1
        ret
        .size   reader, . - reader
