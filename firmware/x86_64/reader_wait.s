# reader_wait(flag, function): waits for the flag, synchronises this CPU's context and calls.
# Arguments: address of a 32-bit flag, address of a function. Result: what the function returns.
# Memory: loads of 4 bytes until one is not 0; saves on the stack.
# Load (`ldar` on arm64), dependent branch, context synchronisation, call: the reading side of code
# publication.
# The synchronising instruction: `cpuid` (serialises on Intel and AMD), `isb`, `isync`.

        .text
        .globl  reader_wait
        .type   reader_wait, @function
reader_wait:
1:      mov     (%rdi), %eax
        test    %eax, %eax
        jz      1b
        push    %rbx
        xor     %eax, %eax
        cpuid
        call    *%rsi
        pop     %rbx
        ret
        .size   reader_wait, . - reader_wait
