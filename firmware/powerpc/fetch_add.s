# fetch_add(address, addend): adds to a 32-bit word and tells what it was, atomically.
# Arguments: address, addend. Result: the word before. Memory: one atomic access of 4 bytes.
# One instruction on x86-64 (`lock xadd`) and arm64 (`ldaddal`, FEAT_LSE); a reservation loop on
# powerpc.

        .text
        .globl  fetch_add
        .type   fetch_add, @function
fetch_add:
1:      lwarx   %r6, 0, %r3
        add     %r7, %r6, %r4
        stwcx.  %r7, 0, %r3
        bne-    1b
        clrldi  %r3, %r6, 32
        blr
        .size   fetch_add, . - fetch_add
