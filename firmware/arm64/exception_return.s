// exception_return(): goes to its last two instructions by an exception return.
// Arguments: none. Result: 42, if the return landed where it was sent. Memory: none but the stack
// on x86-64.
// `iretq` takes its frame from the stack; `eret` takes ELR_EL1 and SPSR_EL1 (EL1h, masks as they
// are); `rfid` takes SRR0 and SRR1 (MSR as it is).

        .text
        .globl  exception_return
        .type   exception_return, %function
exception_return:
        adr     x1, 1f
        msr     elr_el1, x1
        mrs     x2, daif
        mov     x3, #5                  // M[3:0] = 0101: EL1h
        orr     x2, x2, x3
        msr     spsr_el1, x2
        eret
        udf     #1
1:      mov     w0, #42
        ret
        .size   exception_return, . - exception_return
