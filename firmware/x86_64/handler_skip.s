# handler_skip: an exception handler that counts, and returns behind the instruction that trapped:
# 2 bytes on x86-64 (`ud2`), 4 elsewhere.
# Arguments: r15, x27 or r30 has the address of a 32-bit counter (r29 and x28 are its own to use).
# Result: none, every other register is kept. Memory: the counter, and what the entry pushed.
# The return is `iretq`, `eret` or `rfid`.

        .text
        .globl  handler_skip
        .type   handler_skip, @function
handler_skip:
        incl    (%r15)
        addq    $2, (%rsp)
        iretq
        .size   handler_skip, . - handler_skip
