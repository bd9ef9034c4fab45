// cachesync(address): makes the code in one cache line fetchable by this CPU.
// Arguments: an address in the line. Result: 0. Memory: maintenance only, no access.
// The sequence of the manuals for one line (DDI 0487 B2.7.4.2; Power ISA Book II 4.4). x86-64 keeps
// its instruction caches coherent: what is left there is to serialise, here by `cpuid`.

        .text
        .globl  cachesync
        .type   cachesync, %function
cachesync:
        dc      cvau, x0
        dsb     ish
        ic      ivau, x0
        dsb     ish
        isb
        mov     x0, xzr
        ret
        .size   cachesync, . - cachesync
