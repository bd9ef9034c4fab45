// call0(function): calls through a register.
// Arguments: address of a function without arguments. Result: what it returns.
// Memory: saves its return address on the stack.

        .text
        .globl  call0
        .type   call0, %function
call0:
        stp     x29, x30, [sp, #-16]!
        blr     x0
        ldp     x29, x30, [sp], #16
        ret
        .size   call0, . - call0
