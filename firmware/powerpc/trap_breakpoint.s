# trap_breakpoint(): a breakpoint instruction.
# Arguments: none. Result: 7, if somebody resumes it behind the breakpoint. Memory: none.
# `int3` (the trap reports the next instruction), `brk #0`, `trap` (both report themselves).

        .text
        .globl  trap_breakpoint
        .type   trap_breakpoint, @function
trap_breakpoint:
        trap
        li      %r3, 7
        blr
        .size   trap_breakpoint, . - trap_breakpoint
