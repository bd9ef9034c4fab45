# sync_core(): drops what this CPU has fetched ahead.
# Arguments: none. Result: 0. Memory: none but the stack on x86-64.
# `isb` and `isync`; on x86-64 an `iretq` to the next instruction, which serialises on every CPU.

        .text
        .globl  sync_core
        .type   sync_core, @function
sync_core:
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
1:      xor     %eax, %eax
        ret
        .size   sync_core, . - sync_core
