# exception_return(): goes to its last two instructions by an exception return.
# Arguments: none. Result: 42, if the return landed where it was sent. Memory: none but the stack
# on x86-64.
# `iretq` takes its frame from the stack; `eret` takes ELR_EL1 and SPSR_EL1 (EL1h, masks as they
# are); `rfid` takes SRR0 and SRR1 (MSR as it is).

        .text
        .globl  exception_return
        .type   exception_return, @function
exception_return:
        mov     %rsp, %rcx
        mov     %ss, %eax
        push    %rax
        push    %rcx
        pushfq
        mov     %cs, %eax
        push    %rax
        lea     1f(%rip), %rax
        push    %rax
        iretq
        ud2
1:      mov     $42, %eax
        ret
        .size   exception_return, . - exception_return
