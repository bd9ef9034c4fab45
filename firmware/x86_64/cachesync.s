# cachesync(address): makes the code in one cache line fetchable by this CPU.
# Arguments: an address in the line. Result: 0. Memory: maintenance only, no access.
# The sequence of the manuals for one line (DDI 0487 B2.7.4.2; Power ISA Book II 4.4). x86-64 keeps
# its instruction caches coherent: what is left there is to serialise, here by `cpuid`.

        .text
        .globl  cachesync
        .type   cachesync, @function
cachesync:
        push    %rbx
        xor     %eax, %eax
        cpuid
        pop     %rbx
        xor     %eax, %eax
        ret
        .size   cachesync, . - cachesync
