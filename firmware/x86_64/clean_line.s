# clean_line(address): only the first half of `cachesync`: clean, and wait for it.
# Arguments: an address in the line. Result: 0. Memory: maintenance only, no access.
# Nothing to do on x86-64.

        .text
        .globl  clean_line
        .type   clean_line, @function
clean_line:
        xor     %eax, %eax
        ret
        .size   clean_line, . - clean_line
