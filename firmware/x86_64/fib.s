# fib(n): Fibonacci number by plain recursion; keeps the stack busy.
# Arguments: n. Result: fib(n), with fib(0) = 0 and fib(1) = 1.
# Memory: saves registers on the stack, a frame for each level.

        .text
        .globl  fib
        .type   fib, @function
fib:
        cmp     $2, %rdi
        jb      1f
        push    %rbx
        push    %rdi
        dec     %rdi
        call    fib
        mov     %rax, %rbx
        pop     %rdi
        sub     $2, %rdi
        sub     $8, %rsp
        call    fib
        add     $8, %rsp
        add     %rbx, %rax
        pop     %rbx
        ret
1:      mov     %rdi, %rax
        ret
        .size   fib, . - fib
