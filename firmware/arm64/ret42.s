// ret42(): the smallest routine whose run can be seen.
// Arguments: none. Result: 42. Memory: none.

        .text
        .globl  ret42
        .type   ret42, %function
ret42:
        mov     w0, #42
        ret
        .size   ret42, . - ret42
