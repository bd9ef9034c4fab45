# handler_skip: an exception handler that counts, and returns behind the instruction that trapped:
# 2 bytes on x86-64 (`ud2`), 4 elsewhere.
# Arguments: r15, x27 or r30 has the address of a 32-bit counter (r29 and x28 are its own to use).
# Result: none, every other register is kept. Memory: the counter, and what the entry pushed.
# The return is `iretq`, `eret` or `rfid`.

        .text
        .globl  handler_skip
        .type   handler_skip, @function
handler_skip:
        lwz     %r29, 0(%r30)
        addi    %r29, %r29, 1
        stw     %r29, 0(%r30)
        mfsrr0  %r29
        addi    %r29, %r29, 4
        mtsrr0  %r29
        rfid
        .size   handler_skip, . - handler_skip
