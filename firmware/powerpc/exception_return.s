# exception_return(): goes to its last two instructions by an exception return.
# Arguments: none. Result: 42, if the return landed where it was sent. Memory: none but the stack
# on x86-64.
# `iretq` takes its frame from the stack; `eret` takes ELR_EL1 and SPSR_EL1 (EL1h, masks as they
# are); `rfid` takes SRR0 and SRR1 (MSR as it is).

        .text
        .globl  exception_return
        .type   exception_return, @function
exception_return:
        mflr    %r0
        bcl     20, 31, 1f              # the form that does not unbalance return prediction
1:      mflr    %r4
        mtlr    %r0
        addi    %r4, %r4, 2f - 1b
        mtsrr0  %r4
        mfmsr   %r5
        mtsrr1  %r5
        rfid
        .long   0
2:      li      %r3, 42
        blr
        .size   exception_return, . - exception_return
