    # RDI = to, ESI = byte, RDX = bytes.
    movzx ecx, sil
    movabs rsi, 0x0101010101010101
    imul rsi, rcx
    mov rax, rdi
    cmp rdx, 16
    jb 2f
    cmp rdx, {long}
    jae 1f
    mov [rdi + rdx - 16], rsi           # two words at a time, and the last two at the end
    mov [rdi + rdx - 8], rsi
    lea rcx, [rdi + rdx - 16]
0:  mov [rdi], rsi
    mov [rdi + 8], rsi
    add rdi, 16
    cmp rdi, rcx
    jb 0b
    ret
1:  mov r8, rdi                         # whole words, and the last one at the end
    mov [rdi + rdx - 8], rsi
    mov rax, rsi
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov rax, r8
    ret
2:  cmp edx, 8
    jb 3f
    mov [rdi], rsi
    mov [rdi + rdx - 8], rsi
    ret
3:  cmp edx, 4
    jb 4f
    mov [rdi], esi
    mov [rdi + rdx - 4], esi
    ret
4:  test edx, edx
    jz 5f
    mov r9d, edx                        # 1 to 3: first, middle and last byte
    shr r9d, 1
    mov [rdi], sil
    mov [rdi + r9], sil
    mov [rdi + rdx - 1], sil
5:  ret
