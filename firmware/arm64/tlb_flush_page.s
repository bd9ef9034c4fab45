// tlb_flush_page(address): makes this CPU (arm64, powerpc: every CPU) forget one kernel page.
// Arguments: an address in the page (4 KiB pages). Result: 0. Memory: no access.
// `invlpg` (local); `tlbi vaale1is` between `dsb ishst` and `dsb ish`, `isb`; radix `tlbie` of
// process 0 between `ptesync` and `eieio; tlbsync; ptesync`.

        .text
        .globl  tlb_flush_page
        .type   tlb_flush_page, %function
tlb_flush_page:
        dsb     ishst
        ubfx    x1, x0, #12, #44        // operand: VA[55:12]
        tlbi    vaale1is, x1
        dsb     ish
        isb
        mov     x0, xzr
        ret
        .size   tlb_flush_page, . - tlb_flush_page
