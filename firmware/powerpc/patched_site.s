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
        li      %r3, 1
        .globl  site, taken, alternative
site:   nop                                     # ori 0,0,0: in the patch class
        .size   site, . - site
        blr
taken:  li      %r3, 2
        blr
alternative:
        .long   0x48000000 + (taken - site)     # I-form B, AA = 0, LK = 0
        .size   alternative, . - alternative
        .size   patched_site, . - patched_site
