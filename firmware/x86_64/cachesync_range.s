# cachesync_range(address, bytes, line_bytes): as `cachesync`, for a range.
# Arguments: first address, length in bytes, size of a cache line in bytes (a power of two).
# Result: how many lines were invalidated, 0 on x86-64. Memory: maintenance only, no access.
# All cleans, one barrier, all invalidations, one barrier, one synchronisation: the order that the
# manuals allow for more than one line.

        .text
        .globl  cachesync_range
        .type   cachesync_range, @function
cachesync_range:
        push    %rbx
        xor     %eax, %eax
        cpuid
        pop     %rbx
        xor     %eax, %eax
        ret
        .size   cachesync_range, . - cachesync_range
