# Entries of ring 0. Each instruction may cost a microsecond here, so they do nothing that ring 3
# could do.

.section .text.ring0, "ax", @progbits
.code64

# int3 from ring 3: EAX = number. On CALL_IST.
.balign 16
.global ring0_call
ring0_call:
    test eax, eax
    jz 0f
    dec eax
    jz 1f
    dec eax
    jz 2f
    dec eax
    jnz 4f
    or dword ptr [rsp + 16], 0x200      # ENABLE_INTERRUPTS: in the flags that IRETQ restores
    iretq
0:  mov rax, cr2                        # READ_FAULT_ADDRESS
    iretq
1:  mov rax, cr3                        # FLUSH_ALL
    mov cr3, rax
    iretq
4:  lidt [rip + no_idt]                 # REMOVE_GATES: no fault of the caller can be handled any more
    iretq
2:  cmp qword ptr gs:[{pending}], 0     # HALT: interrupts are off, so none slips in between the check and the halt
    jne 3f
    sti
    hlt
    cli
3:  iretq

# An interrupt: acknowledge it, note it, and continue in ring 3 at `upcall_entry` unless upcalls
# are masked. On INTERRUPT_IST.
.macro interrupt bit
    push rax
    or qword ptr gs:[{pending}], \bit
    mov eax, {end_of_interrupt}
    mov dword ptr [rax], 0
    test byte ptr [rsp + 16], 3         # the ring-0 stub itself was halted: it checks what is pending
    jz 1f
    mov qword ptr [rsp + 40], {user_data} # an exception's change of stacks may have nulled SS, which IRETQ refuses
    cmp qword ptr gs:[{mask}], 0
    jne 1f
    mov rax, [rsp + 8]
    sub rax, offset exception_stubs     # an exception stub that has not masked upcalls yet
    cmp rax, offset exception_stubs_size
    jb 1f
    mov rax, [rsp + 8]
    mov gs:[{upcall_rip}], rax
    mov qword ptr gs:[{mask}], 1
    mov qword ptr [rsp + 8], offset upcall_entry
1:  pop rax
    iretq
.endm
.balign 16
.global ring0_timer
ring0_timer:
    interrupt {timer}
.balign 16
.global ring0_balloon
ring0_balloon:
    interrupt {balloon}

# One entry for each virtio device, at fixed distances.
.balign 16
.global ring0_devices
ring0_devices:
.set device, 0
.rept {devices}
    interrupt {first_device} << device
.set device, device + 1
.org ring0_devices + device * {device_entry_bytes}
.endr

.balign 16
.global ring0_spurious
ring0_spurious:
    test byte ptr [rsp + 8], 3
    jz 1f
    mov qword ptr [rsp + 32], {user_data}
1:  iretq

# A fault inside the ring-0 stub, or an event that no guest causes: end the machine with an exit
# code of its own, or where there is no exit port, by a reset. On FATAL_IST.
.balign 16
.global ring0_fatal
ring0_fatal:
    mov eax, {ring0_fault}
    mov edx, {exit_port}
    out dx, eax
    lidt [rip + no_idt]                 # the next fault finds no gate, not even that of a double fault
    ud2
0:  cli
    hlt
    jmp 0b
.balign 16
no_idt:
    .word 0
    .quad 0
