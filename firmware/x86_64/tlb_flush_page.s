# tlb_flush_page(address): makes this CPU (arm64, powerpc: every CPU) forget one kernel page.
# Arguments: an address in the page (4 KiB pages). Result: 0. Memory: no access.
# `invlpg` (local); `tlbi vaale1is` between `dsb ishst` and `dsb ish`, `isb`; radix `tlbie` of
# process 0 between `ptesync` and `eieio; tlbsync; ptesync`.

        .text
        .globl  tlb_flush_page
        .type   tlb_flush_page, @function
tlb_flush_page:
        invlpg  (%rdi)
        xor     %eax, %eax
        ret
        .size   tlb_flush_page, . - tlb_flush_page
