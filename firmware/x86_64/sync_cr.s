# sync_cr(): serialises by writing CR4 back as it is.
# Arguments: none. Result: 0. Memory: none.

        .text
        .globl  sync_cr
        .type   sync_cr, @function
sync_cr:
        mov     %cr4, %rax
        mov     %rax, %cr4
        xor     %eax, %eax
        ret
        .size   sync_cr, . - sync_cr
