// invalidate_line(address): only the invalidation of `cachesync`, and the wait for it.
// Arguments: an address in the line. Result: 0. Memory: maintenance only, no access.
// No context synchronisation. Nothing to do on x86-64.

        .text
        .globl  invalidate_line
        .type   invalidate_line, %function
invalidate_line:
        ic      ivau, x0
        dsb     ish
        mov     x0, xzr
        ret
        .size   invalidate_line, . - invalidate_line
