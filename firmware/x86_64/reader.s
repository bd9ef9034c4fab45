# reader(flag, function): if the flag is set, synchronises this CPU's context and calls.
# Arguments: address of a 32-bit flag, address of a function. Result: what the function returns, or
# 2^64 - 1 if the flag was 0.
# Memory: one load of 4 bytes; saves on the stack.
# Load, dependent branch, context synchronisation, call: the reading side of code publication.
# The synchronising instruction: `cpuid` (serialises on Intel and AMD), `isb`, `isync`.

        .text
        .globl  reader
        .type   reader, @function
reader:
        mov     (%rdi), %eax
        test    %eax, %eax
        jz      1f
        push    %rbx
        xor     %eax, %eax
        cpuid
        call    *%rsi
        pop     %rbx
        ret
1:      mov     $-1, %rax
        ret
        .size   reader, . - reader
