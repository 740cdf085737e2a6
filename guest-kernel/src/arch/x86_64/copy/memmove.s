    # RDI = to, RSI = from, RDX = bytes.
    cmp rdx, 32
    jbe {memcpy}
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    jb 1f                               # the destination begins within the source
    neg rcx
    cmp rcx, rdx
    jae {memcpy}                        # no overlap
    mov rax, rdi                        # forwards; the last word is read before it is overwritten
    mov r8, [rsi + rdx - 8]
    lea r9, [rdi + rdx - 8]
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov [r9], r8
    ret
1:  mov rax, rdi                        # backwards, likewise with the first word
    mov r8, [rsi]
0:  mov rcx, [rsi + rdx - 8]
    mov [rdi + rdx - 8], rcx
    sub rdx, 8
    cmp rdx, 8
    ja 0b
    mov [rdi], r8
    ret
