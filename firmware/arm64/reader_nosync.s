// reader_nosync(flag, function): as `reader`, without the context synchronisation.
// Arguments: address of a 32-bit flag, address of a function. Result: what the function returns, or
// 2^64 - 1 if the flag was 0.
// Memory: one load of 4 bytes; saves on the stack.
// A dependent branch alone does not order an instruction fetch after the load: the reading side as
// it must not be written on arm64 and powerpc.

        .text
        .globl  reader_nosync
        .type   reader_nosync, %function
reader_nosync:
        ldr     w2, [x0]
        cbz     w2, 1f
        stp     x29, x30, [sp, #-16]!
        blr     x1
        ldp     x29, x30, [sp], #16
        ret
1:      mov     x0, #-1
        ret
        .size   reader_nosync, . - reader_nosync
