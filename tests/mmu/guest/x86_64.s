# Performs accesses that the host asks for, each below an exception handler (QEMU's pc, loaded by
# -kernel as a PVH image).
#
# The host writes code, tables and cases to memory that it shares with QEMU; see
# tests/mmu/tests/guest/qemu.rs for the layout, which this file and that one have in common. What is
# tested is below entry 1 of the root table; entry 0 leads to this code and its data, of which the
# tables here have only as much as it needs until the host's are there. Every access ends in an
# exception, if only by the `int3` behind it.
#
# There are 5 levels where the CPU has them.
#
# r12 control block, r13 cases left, r14 answer, r15 case. Not touched by what is tested: it uses
# rax and rbx.

        .set    CONTROL, 0x400000
        .set    CASE_BYTES, 192
        .set    ANSWER_BYTES, 96
        .set    IA32_EFER, 0xc0000080
        .set    IA32_PKRS, 0x6e1
        .set    CODE64, 0x08
        .set    DATA, 0x10
        .set    USER_DATA, 0x18
        .set    USER_CODE64, 0x20
        .set    TSS, 0x28

        .section .note, "a", @note
        .long   4, 4, 18                        # XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .long   _start

        .text
        .code32
        .globl  _start
_start:
        cli
        mov     $stack_end, %esp
        lgdt    gdtr
        mov     $7, %eax
        xor     %ecx, %ecx
        cpuid
        mov     $1 << 5, %ebx                   # PAE
        mov     $level4, %eax
        test    $1 << 16, %ecx
        jz      1f
        or      $1 << 12, %ebx                  # LA57
        mov     $level5, %eax
1:      mov     %ebx, %cr4
        mov     %eax, %cr3
        mov     $IA32_EFER, %ecx
        mov     $1 << 8, %eax                   # LME
        xor     %edx, %edx
        wrmsr
        mov     $0x80000001, %eax               # PG, PE
        mov     %eax, %cr0
        ljmp    $CODE64, $long

        .code64
long:
        mov     $DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $stack_end, %rsp
        # Gates of all exceptions, open to processes: DPL 3, the first stack of the TSS.
        mov     $stubs, %rbx
        mov     $idt, %rdi
        mov     $32, %ecx
1:      mov     %rbx, %rax
        mov     %ax, (%rdi)
        movw    $CODE64, 2(%rdi)
        movw    $0xee01, 4(%rdi)
        shr     $16, %rax
        mov     %ax, 6(%rdi)
        add     $16, %rbx
        add     $16, %rdi
        loop    1b
        lidt    idtr
        mov     $tss, %rax                      # below 16 MiB: the rest of the descriptor is 0
        mov     %ax, tss_descriptor + 2
        shr     $16, %rax
        mov     %al, tss_descriptor + 4
        mov     $TSS, %eax
        ltr     %ax
        mov     $CONTROL, %r12
        movq    $1, 16(%r12)                    # ready

wait:
        mov     (%r12), %rax                    # number of the batch asked for
        cmp     8(%r12), %rax                   # and of the one done
        je      wait
        mov     24(%r12), %r13
        mov     40(%r12), %r15
        mov     48(%r12), %r14
        mov     32(%r12), %rax                  # the host's tables
        mov     %rax, %cr3

next:
        test    %r13, %r13
        jz      finished
        .set    i, 0
        .rept   5                               # entries: address, value
        mov     16 * i(%r15), %rdi
        mov     16 * i + 8(%r15), %rax
        mov     %rax, (%rdi)
        .set    i, i + 1
        .endr
        mov     112(%r15), %rdi                 # what the frame has before the access
        mov     120(%r15), %rax
        cmp     (%rdi), %rax
        je      1f
        mov     %rax, (%rdi)
1:      mov     128(%r15), %rax
        mov     %rax, %cr0
        mov     136(%r15), %rbx
        mov     %rbx, %rax
        or      $1 << 22, %rax                  # PKE, for wrpkru
        mov     %rax, %cr4
        mov     152(%r15), %rax
        xor     %ecx, %ecx
        xor     %edx, %edx
        wrpkru
        mov     %rbx, %cr4
        mov     144(%r15), %rax
        mov     $IA32_EFER, %ecx
        wrmsr
        mov     160(%r15), %rax
        mov     $IA32_PKRS, %ecx
        wrmsr
        mov     %cr3, %rax
        mov     %rax, %cr3
        xor     %eax, %eax
        mov     %rax, %cr2
        mov     $DATA, %eax
        mov     $CODE64, %ecx
        cmpq    $0, 88(%r15)
        je      2f
        mov     $USER_DATA | 3, %eax
        mov     $USER_CODE64 | 3, %ecx
2:      mov     $stack_end, %rsp
        push    %rax
        push    $stack_end
        pushq   168(%r15)                       # RFLAGS
        push    %rcx
        pushq   80(%r15)                        # where to
        mov     96(%r15), %rbx
        mov     104(%r15), %rax
        iretq

        # On the stack: vector, error code, RIP.
ended:
        pop     %rdi
        mov     %rdi, (%r14)
        pop     %rdi
        mov     %rdi, 8(%r14)
        pop     %rdi
        mov     %rdi, 88(%r14)
        mov     %cr2, %rdi
        mov     %rdi, 24(%r14)
        mov     %rax, 32(%r14)
        mov     112(%r15), %rdi
        mov     (%rdi), %rax
        mov     %rax, 40(%r14)
        .set    i, 0
        .rept   5                               # entries as the access left them
        mov     16 * i(%r15), %rdi
        mov     (%rdi), %rax
        mov     %rax, 48 + 8 * i(%r14)
        .set    i, i + 1
        .endr
        add     $CASE_BYTES, %r15
        add     $ANSWER_BYTES, %r14
        dec     %r13
        jmp     next

finished:
        mov     (%r12), %rax
        mov     %rax, 8(%r12)
        jmp     wait

        # One every 16 bytes; those that push no error code have one pushed.
        .balign 16
stubs:
        .set    vector, 0
        .rept   32
        .if     (1 << vector) & 0x60227d00
        .else
        push    $0
        .endif
        push    $vector
        jmp     ended
        .set    vector, vector + 1
        .balign 16
        .endr

        .balign 16
gdt:
        .quad   0
        .quad   0x00af9a000000ffff
        .quad   0x00cf92000000ffff
        .quad   0x00cff2000000ffff
        .quad   0x00affa000000ffff
tss_descriptor:
        .quad   0x0000890000000067
        .quad   0
gdtr:
        .word   gdtr - gdt - 1
        .long   gdt
idtr:
        .word   32 * 16 - 1
        .quad   idt

        .balign 16
idt:
        .zero   32 * 16
        .balign 16
tss:
        .long   0
        .quad   0, 0, 0, 0
        .quad   handler_stack_end
        .zero   0x68 - 44
        .balign 16
        .zero   256
handler_stack_end:
        .zero   256
stack_end:

        .balign 0x1000
level5:
        .quad   level4 + 3
        .balign 0x1000
level4:
        .quad   level3 + 3
        .balign 0x1000
level3:                                         # the first GiB where it is
        .quad   0x83
        .balign 0x1000
