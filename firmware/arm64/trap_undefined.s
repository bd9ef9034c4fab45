// trap_undefined(): an instruction that no architecture version defines.
// Arguments: none. Result: none. Memory: none.
// `ud2`, `udf #0`, and the powerpc word 0, which is reserved as illegal.

        .text
        .globl  trap_undefined
        .type   trap_undefined, %function
trap_undefined:
        udf     #0
        mov     w0, #7
        ret
        .size   trap_undefined, . - trap_undefined
