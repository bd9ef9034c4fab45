# trap_undefined(): an instruction that no architecture version defines.
# Arguments: none. Result: none. Memory: none.
# `ud2`, `udf #0`, and the powerpc word 0, which is reserved as illegal.

        .text
        .globl  trap_undefined
        .type   trap_undefined, @function
trap_undefined:
        ud2
        mov     $7, %eax
        ret
        .size   trap_undefined, . - trap_undefined
