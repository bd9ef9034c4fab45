# sync_cpuid(leaf): the serialising instruction that every x86-64 has.
# Arguments: leaf of CPUID. Result: EAX of it. Memory: saves on the stack.

        .text
        .globl  sync_cpuid
        .type   sync_cpuid, @function
sync_cpuid:
        push    %rbx
        mov     %edi, %eax
        xor     %ecx, %ecx
        cpuid
        pop     %rbx
        ret
        .size   sync_cpuid, . - sync_cpuid
