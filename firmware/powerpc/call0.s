# call0(function): calls through a register.
# Arguments: address of a function without arguments. Result: what it returns.
# Memory: saves its return address on the stack.

        .text
        .globl  call0
        .type   call0, @function
call0:
        mflr    %r0
        std     %r0, 16(%r1)
        stdu    %r1, -32(%r1)
        mr      %r12, %r3
        mtctr   %r3
        bctrl
        addi    %r1, %r1, 32
        ld      %r0, 16(%r1)
        mtlr    %r0
        blr
        .size   call0, . - call0
