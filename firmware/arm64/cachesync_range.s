// cachesync_range(address, bytes, line_bytes): as `cachesync`, for a range.
// Arguments: first address, length in bytes, size of a cache line in bytes (a power of two).
// Result: how many lines were invalidated, 0 on x86-64. Memory: maintenance only, no access.
// All cleans, one barrier, all invalidations, one barrier, one synchronisation: the order that the
// manuals allow for more than one line.

        .text
        .globl  cachesync_range
        .type   cachesync_range, %function
cachesync_range:
        sub     x3, x2, #1
        add     x1, x0, x1              // first byte behind the range
        bic     x4, x0, x3              // first line
        mov     x0, xzr
        mov     x5, x4
1:      cmp     x5, x1
        b.hs    2f
        dc      cvau, x5
        add     x5, x5, x2
        b       1b
2:      dsb     ish
        mov     x5, x4
3:      cmp     x5, x1
        b.hs    4f
        ic      ivau, x5
        add     x5, x5, x2
        add     x0, x0, #1
        b       3b
4:      dsb     ish
        isb
        ret
        .size   cachesync_range, . - cachesync_range
