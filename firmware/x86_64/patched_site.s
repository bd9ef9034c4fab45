# patched_site(): a function with one place to patch.
# Arguments: none. Result: 1 while `site` is a no-operation, 2 once it branches to `taken`.
# Memory: none.
# Symbols: `site` (the instruction to be replaced; its size is the symbol's), `taken`, and
# `alternative`: the branch from `site` to `taken` as bytes to be stored at `site`, never executed
# where it lies.

        .text
        .globl  patched_site
        .type   patched_site, @function
patched_site:
        mov     $1, %eax
        .globl  site, taken, alternative
site:   .byte   0x0f, 0x1f, 0x44, 0x00, 0x00    # the five-byte NOP of the SDM's table of NOPs
        .size   site, . - site
        ret
taken:  mov     $2, %eax
        ret
        .balign 8
alternative:
        .byte   0xe9                            # JMP rel32, relative to the end of `site`
        .long   taken - (site + 5)
        .size   alternative, . - alternative
        .size   patched_site, . - patched_site
