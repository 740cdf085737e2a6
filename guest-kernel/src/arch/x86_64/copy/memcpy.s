    # RDI = to, RSI = from, RDX = bytes. Up to 32 bytes, everything is read before anything is
    # written.
    mov rax, rdi
    cmp rdx, 16
    jb 3f
    cmp rdx, 32
    ja 1f
    mov rcx, [rsi]                      # 16 to 32: two words from either end
    mov r8, [rsi + 8]
    mov r9, [rsi + rdx - 16]
    mov r10, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + 8], r8
    mov [rdi + rdx - 16], r9
    mov [rdi + rdx - 8], r10
    ret
1:  cmp rdx, {long}
    jae 2f
    lea r11, [rsi + rdx - 32]           # four words at a time, and the last four from the end
    lea rdx, [rdi + rdx - 32]
0:  mov rcx, [rsi]
    mov r8, [rsi + 8]
    mov r9, [rsi + 16]
    mov r10, [rsi + 24]
    mov [rdi], rcx
    mov [rdi + 8], r8
    mov [rdi + 16], r9
    mov [rdi + 24], r10
    add rsi, 32
    add rdi, 32
    cmp rdi, rdx
    jb 0b
    mov rcx, [r11]
    mov r8, [r11 + 8]
    mov r9, [r11 + 16]
    mov r10, [r11 + 24]
    mov [rdx], rcx
    mov [rdx + 8], r8
    mov [rdx + 16], r9
    mov [rdx + 24], r10
    ret
2:  mov r8, [rsi + rdx - 8]             # whole words, and the last one from the end
    lea r9, [rdi + rdx - 8]
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov [r9], r8
    ret
3:  cmp edx, 8
    jb 4f
    mov rcx, [rsi]
    mov r8, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + rdx - 8], r8
    ret
4:  cmp edx, 4
    jb 5f
    mov ecx, [rsi]
    mov r8d, [rsi + rdx - 4]
    mov [rdi], ecx
    mov [rdi + rdx - 4], r8d
    ret
5:  test edx, edx
    jz 6f
    mov r9d, edx                        # 1 to 3: first, middle and last byte
    shr r9d, 1
    movzx ecx, byte ptr [rsi]
    movzx r8d, byte ptr [rsi + r9]
    movzx r10d, byte ptr [rsi + rdx - 1]
    mov [rdi], cl
    mov [rdi + r9], r8b
    mov [rdi + rdx - 1], r10b
6:  ret
