# From a loader to ring 3: load our own tables, leave. Two ways in, one way on.
#
# hermit_start: 64-bit, paging on, RDI = boot information (hermit-entry protocol). pvh_start:
# 32-bit, paging off, EBX = start information (Xen's PVH protocol, as QEMU, Firecracker and Cloud
# Hypervisor speak it).
#
# The page tables map the first GiB and the local APIC; all else is mapped later, from ring 3. The
# tables that LIDT and LTR load are still empty: ring 3 fills them before anything can trap, as
# that costs nothing there. All registers that the kernel relies on are set here and not left to
# the loader. In CR4, SMEP and SMAP would keep ring 0 from pages that ring 3 may use, and all
# pages are of that kind.

.section .note.Xen, "a", @note
.balign 4
    .long 4, 4, 18                      # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_start

.section .text.ring0, "ax", @progbits
.code32
.global pvh_start
pvh_start:
    lgdt [boot_gdt_pointer]
    mov esp, offset boot_stack_top
    mov eax, {cr4}
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080                 # EFER: long mode, no-execute pages
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, cr0
    or eax, 0x80000001                  # paging, protection
    mov cr0, eax
    push 0x08
    mov eax, offset pvh_start_64
    push eax
    retf
.code64
pvh_start_64:
    mov edi, ebx
    mov esi, {origin_pvh}
    jmp leave_ring_0

.global hermit_start
hermit_start:
    mov esi, {origin_hermit}
    lgdt [rip + boot_gdt_pointer]
    mov eax, {cr4}
    mov cr4, rax
    mov ecx, 0xc0000080                 # EFER: no-execute pages, which the tables below have
    rdmsr
    or eax, 0x800
    wrmsr
    mov rax, offset boot_pml4
    mov cr3, rax
leave_ring_0:
    mov rax, cr0
    or rax, 0x10000                     # write protection holds for ring 0 too
    mov cr0, rax
    xor eax, eax                        # null selectors: an IRETQ to ring 3 would clear others, bases included
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ecx, 0xc0000101                 # GS base
    mov eax, offset {cpus}
    xor edx, edx
    wrmsr
    mov eax, offset {tss}               # the descriptor's base, in three pieces
    mov [boot_gdt + {gdt_tss} + 2], ax
    shr eax, 16
    mov [boot_gdt + {gdt_tss} + 4], al
    mov [boot_gdt + {gdt_tss} + 7], ah
    mov eax, {gdt_tss}
    ltr ax
    lidt [rip + boot_idt_pointer]
    mov rsp, offset boot_stack_top
    mov rax, rsp
    push {user_data}
    push rax
    push {flags}                        # interrupts stay off
    push {user_code}
    mov rax, offset ring_3_start
    push rax
    iretq
ring_3_start:
    xor ebp, ebp
    call {kernel_main}
    ud2

.section .data.boot, "aw", @progbits
.balign 4096
.global boot_pml4
boot_pml4:
    .quad boot_pdpt + 0x7               # present, writable, user
    .fill 511, 8, 0
boot_pdpt:
    .quad boot_first_gib + 0x7
    .quad 0, 0
    .quad boot_fourth_gib + 0x7
    .fill 508, 8, 0
boot_first_gib:                         # 2 MiB pages; only those that may hold the image's code can be run
    .set slot, 0
    .rept 512
    .if slot >= 1 && slot < {code_end} / 0x200000
    .quad slot * 0x200000 + 0x87
    .else
    .quad 0x8000000000000087 + slot * 0x200000
    .endif
    .set slot, slot + 1
    .endr
boot_fourth_gib:
    .fill 503, 8, 0
    .quad 0x80000000fee0009f            # the local APIC, uncached
    .fill 8, 8, 0

.balign 16
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 0x08 ring-0 code
    .quad 0x00cf93000000ffff            # 0x10 ring-0 data
    .quad 0x0000890000000000 + {tss_limit}, 0   # 0x18 task state, base filled in above
    .quad 0x00cff3000000ffff            # 0x2b ring-3 data
    .quad 0x00affb000000ffff            # 0x33 ring-3 code
boot_gdt_end:
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .quad boot_gdt
boot_idt_pointer:
    .word 256 * 16 - 1
    .quad {idt}

.section .bss.boot, "aw", @nobits
.balign 4096
.global boot_stack_bottom
boot_stack_bottom:
    .skip 65536
.global boot_stack_top
boot_stack_top:
