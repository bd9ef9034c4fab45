# spin(): never returns; a limit has to end it.
# Arguments: none. Result: none. Memory: none.

        .text
        .globl  spin
        .type   spin, @function
spin:
1:      jmp     1b
        .size   spin, . - spin
