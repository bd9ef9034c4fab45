# poke_sync_call(site, word, function): stores one word of code, makes it fetchable, calls.
# Arguments: where, the 32-bit word, function to call. Result: what the function returns.
# Memory: one store of 4 bytes, maintenance of its line; saves on the stack.
# The whole chain on one CPU: store, clean, invalidate, complete, synchronise (DDI 0487 B2.7.4.2;
# Power ISA Book II 4.4); on x86-64 a serialising instruction.

        .text
        .globl  poke_sync_call
        .type   poke_sync_call, @function
poke_sync_call:
        mov     %rdx, %r8
        mov     %esi, (%rdi)
        push    %rbx
        xor     %eax, %eax
        cpuid
        call    *%r8
        pop     %rbx
        ret
        .size   poke_sync_call, . - poke_sync_call
