# ret42(): the smallest routine whose run can be seen.
# Arguments: none. Result: 42. Memory: none.

        .text
        .globl  ret42
        .type   ret42, @function
ret42:
        li      %r3, 42
        blr
        .size   ret42, . - ret42
