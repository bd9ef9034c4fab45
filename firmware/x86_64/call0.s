# call0(function): calls through a register.
# Arguments: address of a function without arguments. Result: what it returns.
# Memory: saves its return address on the stack.

        .text
        .globl  call0
        .type   call0, @function
call0:
        sub     $8, %rsp
        call    *%rdi
        add     $8, %rsp
        ret
        .size   call0, . - call0
