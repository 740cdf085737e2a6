# Ring-3 entries for exceptions and upcalls.

.section .text.trap, "ax", @progbits
.code64

# Exception gates lead here, one stub per vector, on the exception IST stack. Until the first
# instruction has masked upcalls, the ring-0 stub recognises the stubs by their addresses.
.balign 32
.global exception_stubs
exception_stubs:
.set vector, 0
.rept 32
.balign 32
    inc qword ptr gs:[{mask}]
.if !((vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30))
    push 0                              # in place of the error code that these don't have
.endif
    .byte 0x6a, vector                  # push the vector
    jmp exception_entry
.set vector, vector + 1
.endr
.balign 32
.global exception_stubs_size
.set exception_stubs_size, . - exception_stubs

.macro push_registers
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
.endm

.macro pop_registers
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
.endm

exception_entry:
    push_registers
    cld
    mov eax, {user_data}                # some CPUs null SS when an exception changes stacks
    mov ss, eax
    mov rdi, [rsp + {saved_rsp}]        # is the interrupted stack the thread's, with room below?
    lea rax, [rdi - {stack_room}]
    cmp rax, gs:[{stack_low}]
    jb 1f
    cmp rdi, gs:[{stack_high}]
    ja 1f
    lea rdi, [rdi - {frame_words} * 8]  # move the frame there: this stack is the next exception's
    and rdi, -16
    mov rdx, rdi
    mov rsi, rsp
    mov ecx, {frame_words}
    rep movsq
    mov rsp, rdx
    mov rdi, rdx
    mov rbx, rdx
    push qword ptr [rdx + 17 * 8]       # for backtraces, a frame that leads to the interrupted code:
    push rbp                            # behind registers, vector and error code lies its RIP
    mov rbp, rsp
    call {handle_exception}
    mov rsp, rbx
    pop_registers
    add rsp, 16                         # vector, error code
    iretq
1:  mov rdi, rsp
    and rsp, -16
    call {stack_overflow}
    ud2

# The ring-0 stub passes an interrupt on: registers and flags are the interrupted code's, RIP is
# in the CPU block, upcalls are masked.
.balign 16
.global upcall_entry
upcall_entry:
    push {user_data}                    # the frame for IRETQ: SS, RSP, RFLAGS, CS, RIP
    push rsp
    pushfq
    add qword ptr [rsp + 8], 8          # RSP as it was before the first push
    push {user_code}
    push qword ptr gs:[{upcall_rip}]
    push_registers
    cld
    mov rbx, rsp
    push qword ptr [rsp + 15 * 8]       # for backtraces, as above: its RIP lies behind the registers
    push rbp
    mov rbp, rsp
0:  and rsp, -16
    call {deliver_pending}
    mov qword ptr gs:[{mask}], 0
    cmp qword ptr gs:[{pending}], 0     # noted between the last check and the unmasking
    je 1f
    mov qword ptr gs:[{mask}], 1
    jmp 0b
1:  mov rsp, rbx
    pop_registers
    iretq
