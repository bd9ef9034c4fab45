# sync_serialize(): SERIALIZE, where the CPU has it.
# Arguments: none. Result: 0. Memory: none. Its only effect is to serialise.

        .text
        .globl  sync_serialize
        .type   sync_serialize, @function
sync_serialize:
        .byte   0x0f, 0x01, 0xe8        # SERIALIZE; not every assembler knows the name
        xor     %eax, %eax
        ret
        .size   sync_serialize, . - sync_serialize
