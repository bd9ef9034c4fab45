# tlb_flush_page(address): makes this CPU (arm64, powerpc: every CPU) forget one kernel page.
# Arguments: an address in the page (4 KiB pages). Result: 0. Memory: no access.
# `invlpg` (local); `tlbi vaale1is` between `dsb ishst` and `dsb ish`, `isb`; radix `tlbie` of
# process 0 between `ptesync` and `eieio; tlbsync; ptesync`.

        .text
        .globl  tlb_flush_page
        .type   tlb_flush_page, @function
tlb_flush_page:
        ptesync
        clrrdi  %r4, %r3, 12            # RB: page address, AP = 0 (4 KiB), IS = 0
        li      %r5, 0                  # RS: process 0, the kernel
        tlbie   %r4, %r5, 0, 1, 1       # RIC = 0 (TLB only), PRS = 1, R = 1
        eieio
        tlbsync
        ptesync
        li      %r3, 0
        blr
        .size   tlb_flush_page, . - tlb_flush_page
