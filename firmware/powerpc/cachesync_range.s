# cachesync_range(address, bytes, line_bytes): as `cachesync`, for a range.
# Arguments: first address, length in bytes, size of a cache line in bytes (a power of two).
# Result: how many lines were invalidated, 0 on x86-64. Memory: maintenance only, no access.
# All cleans, one barrier, all invalidations, one barrier, one synchronisation: the order that the
# manuals allow for more than one line.

        .text
        .globl  cachesync_range
        .type   cachesync_range, @function
cachesync_range:
        addi    %r6, %r5, -1
        add     %r4, %r3, %r4           # first byte behind the range
        andc    %r7, %r3, %r6           # first line
        li      %r3, 0
        mr      %r8, %r7
1:      cmpld   %r8, %r4
        bge     2f
        dcbst   0, %r8
        add     %r8, %r8, %r5
        b       1b
2:      sync
        mr      %r8, %r7
3:      cmpld   %r8, %r4
        bge     4f
        icbi    0, %r8
        add     %r8, %r8, %r5
        addi    %r3, %r3, 1
        b       3b
4:      sync
        isync
        blr
        .size   cachesync_range, . - cachesync_range
