// handler_skip: an exception handler that counts, and returns behind the instruction that trapped:
// 2 bytes on x86-64 (`ud2`), 4 elsewhere.
// Arguments: r15, x27 or r30 has the address of a 32-bit counter (r29 and x28 are its own to use).
// Result: none, every other register is kept. Memory: the counter, and what the entry pushed.
// The return is `iretq`, `eret` or `rfid`.

        .text
        .globl  handler_skip
        .type   handler_skip, %function
handler_skip:
        ldr     w28, [x27]
        add     w28, w28, #1
        str     w28, [x27]
        mrs     x28, elr_el1
        add     x28, x28, #4
        msr     elr_el1, x28
        eret
        .size   handler_skip, . - handler_skip
