// load_word(address): loads 32 bits.
// Arguments: address. Result: the word, zero-extended. Memory: one load of 4 bytes.

        .text
        .globl  load_word
        .type   load_word, %function
load_word:
        ldr     w0, [x0]
        ret
        .size   load_word, . - load_word
