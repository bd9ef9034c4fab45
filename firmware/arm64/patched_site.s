// patched_site(): a function with one place to patch.
// Arguments: none. Result: 1 while `site` is a no-operation, 2 once it branches to `taken`.
// Memory: none.
// Symbols: `site` (the instruction to be replaced; its size is the symbol's), `taken`, and
// `alternative`: the branch from `site` to `taken` as bytes to be stored at `site`, never executed
// where it lies.

        .text
        .globl  patched_site
        .type   patched_site, %function
patched_site:
        mov     w0, #1
        .globl  site, taken, alternative
site:   nop
        .size   site, . - site
        ret
taken:  mov     w0, #2
        ret
alternative:
        .long   0x14000000 + (taken - site) / 4 // B, offset in words
        .size   alternative, . - alternative
        .size   patched_site, . - patched_site
