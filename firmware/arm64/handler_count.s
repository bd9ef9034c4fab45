// handler_count: an interrupt handler that counts, and returns to where it was taken.
// Arguments: r15, x27 or r30 has the address of a 32-bit counter (r29 and x28 are its own to use).
// Result: none, every other register is kept. Memory: the counter, and what the entry pushed.
// The return is `iretq`, `eret` or `rfid`.

        .text
        .globl  handler_count
        .type   handler_count, %function
handler_count:
        ldr     w28, [x27]
        add     w28, w28, #1
        str     w28, [x27]
        eret
        .size   handler_count, . - handler_count
