// reader_wait(flag, function): waits for the flag, synchronises this CPU's context and calls.
// Arguments: address of a 32-bit flag, address of a function. Result: what the function returns.
// Memory: loads of 4 bytes until one is not 0; saves on the stack.
// Load (`ldar` on arm64), dependent branch, context synchronisation, call: the reading side of code
// publication.
// The synchronising instruction: `cpuid` (serialises on Intel and AMD), `isb`, `isync`.

        .text
        .globl  reader_wait
        .type   reader_wait, %function
reader_wait:
1:      ldar    w2, [x0]
        cbz     w2, 1b
        isb
        stp     x29, x30, [sp, #-16]!
        blr     x1
        ldp     x29, x30, [sp], #16
        ret
        .size   reader_wait, . - reader_wait
