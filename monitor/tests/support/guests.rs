//! Guests of a few instructions each, as machine code for an image.
//!
//! They run where [`super::elf::BASE`] is, in ring 0 with the first 1 GiB mapped to itself, unless
//! they go to ring 3 themselves. A check that fails in a guest ends it with "panic". Ring-0 code
//! may be emulated instruction by instruction, so none of them computes much.

use std::arch::global_asm;

/// Defines functions that return the machine code of guests. `EXIT code` and `CALL command` are
/// assembler macros.
macro_rules! guests {
    (macros { $($macro_line:literal,)* } $($(#[$meta:meta])* $name:ident: $($line:literal)*;)*) => {
        // One block: macros are known only in their own unit of compilation.
        global_asm!(
            $($macro_line,)*
            $(
                ".pushsection .rodata",
                ".balign 8",
                concat!(".globl ", stringify!($name)),
                concat!(stringify!($name), ":"),
                ".quad 9f - 8f",
                "8:",
                $($line,)*
                "5: mov eax, 0x12", // where a failed check leads
                "out 0xf4, eax",
                "9:",
                ".popsection",
            )*
        );
        mod symbols {
            unsafe extern "C" {
                $(pub(super) static $name: u64;)*
            }
        }
        $(
            $(#[$meta])*
            pub(crate) fn $name() -> &'static [u8] {
                let symbol = &raw const symbols::$name;
                // SAFETY: the assembler put the code's length at the symbol, aligned.
                let bytes = usize::try_from(unsafe { symbol.read() }).expect("a length");
                // SAFETY: the code follows its length.
                let code = unsafe { symbol.add(1) };
                // SAFETY: `bytes` bytes of read-only code are there.
                unsafe { std::slice::from_raw_parts(code.cast(), bytes) }
            }
        )*
    };
}

guests! {
    macros {
        ".macro EXIT code",
        "mov eax, \\code",
        "out 0xf4, eax",
        ".endm",
        // Makes a call of the balloon port that has to succeed.
        ".macro CALL command",
        "mov eax, 0xae500000 + \\command",
        "mov edx, 0xae50",
        "out dx, eax",
        "test eax, eax",
        "jnz 5f",
        ".endm",
        ".macro HELLO vector",
        "mov edi, 3", // the version of the protocol
        "mov esi, 256",
        "mov r8d, \\vector",
        "CALL 1",
        ".endm",
        ".macro MARK number",
        "mov eax, \\number",
        "mov edx, 0xae58",
        "out dx, al",
        ".endm",
        // RBX to the first virtio device's registers, mapped through a level-2 table at 0x6000 for
        // the fourth GiB.
        ".macro MAP_DISK",
        "mov qword ptr [0x4018], 0x6007",
        "mov rax, 0xd0000097",
        "mov [0x6400], rax",
        "mov ebx, 0xd0000000",
        ".endm",
        ".macro REGISTER offset, value",
        "mov dword ptr [rbx + \\offset], \\value",
        ".endm",
        // Starts the disk. Its queue: 16 descriptors at 0x500000, rings at 0x501000 and 0x502000.
        // One request: header at 0x503000, `bytes` bytes of data at 0x800000, status at 0x503100;
        // the device writes the data where `flags` is 3, reads it where it is 1.
        ".macro START_DISK bytes, flags",
        "MAP_DISK",
        "cmp dword ptr [rbx], 0x74726976",
        "jne 5f",
        "REGISTER 0x70, 0",
        "REGISTER 0x70, 3",
        "REGISTER 0x24, 1",
        "REGISTER 0x20, 1",
        "REGISTER 0x24, 0",
        "REGISTER 0x20, 0x200",
        "REGISTER 0x70, 11",
        "REGISTER 0x38, 16",
        "REGISTER 0x80, 0x500000",
        "REGISTER 0x90, 0x501000",
        "REGISTER 0xa0, 0x502000",
        "REGISTER 0x44, 1",
        "REGISTER 0x70, 15",
        "cmp dword ptr [rbx + 0x70], 15",
        "jne 5f",
        "mov ebp, 0x500000",
        "mov dword ptr [rbp], 0x503000",
        "mov dword ptr [rbp + 8], 16",
        "mov dword ptr [rbp + 12], 0x10001",
        "mov dword ptr [rbp + 16], 0x800000",
        "mov dword ptr [rbp + 24], \\bytes",
        "mov dword ptr [rbp + 28], 0x20000 + \\flags",
        "mov dword ptr [rbp + 32], 0x503100",
        "mov dword ptr [rbp + 40], 1",
        "mov dword ptr [rbp + 44], 2",
        ".endm",
        // Offers the request, whose entry in the ring is 0 as all of them are, and notifies the
        // device if it wants that.
        ".macro OFFER",
        "inc word ptr [0x501002]",
        "mfence",
        "test byte ptr [0x502000], 1",
        "jnz 77f",
        "REGISTER 0x50, 0",
        "77:",
        ".endm",
        // The same, and waits until it is done, with success.
        ".macro REQUEST kind, sector",
        "mov dword ptr [0x503000], \\kind",
        "mov rax, \\sector",
        "mov [0x503008], rax",
        "mov byte ptr [0x503100], 0xff",
        "OFFER",
        "mov ax, [0x501002]",
        "78: pause",
        "cmp [0x502002], ax",
        "jne 78b",
        "cmp byte ptr [0x503100], 0",
        "jne 5f",
        ".endm",
        // From ring 3, between the two boot marks, without interrupts: 10,000 requests of `bytes`
        // bytes in the first 64 MiB, `depth` at a time, at most 4. Sectors are random where
        // `sectors` is 0, else so many further each time.
        ".macro MEASURE kind, bytes, depth, sectors",
        "START_DISK \\bytes, (3 - 2 * \\kind)",
        "mov word ptr [0x501000], 1",
        // Four chains: descriptors 0, 3, 6, 9; headers 16 bytes apart; data 1 MiB apart.
        ".irp n, 0, 1, 2, 3",
        "mov dword ptr [rbp + 48 * \\n], 0x503000 + 16 * \\n",
        "mov dword ptr [rbp + 48 * \\n + 8], 16",
        "mov dword ptr [rbp + 48 * \\n + 12], 0x10001 + 0x30000 * \\n",
        "mov dword ptr [rbp + 48 * \\n + 16], 0x800000 + 0x100000 * \\n",
        "mov dword ptr [rbp + 48 * \\n + 24], \\bytes",
        "mov dword ptr [rbp + 48 * \\n + 28], 0x20000 + 3 - 2 * \\kind + 0x30000 * \\n",
        "mov dword ptr [rbp + 48 * \\n + 32], 0x503100",
        "mov dword ptr [rbp + 48 * \\n + 40], 1",
        "mov dword ptr [rbp + 48 * \\n + 44], 2",
        "mov dword ptr [0x503000 + 16 * \\n], \\kind",
        "mov word ptr [0x501004 + 2 * \\n], 3 * \\n",
        "mov word ptr [0x50100c + 2 * \\n], 3 * \\n",
        "mov word ptr [0x501014 + 2 * \\n], 3 * \\n",
        "mov word ptr [0x50101c + 2 * \\n], 3 * \\n",
        ".endr",
        "RING3",
        "MARK 1",
        "xor esi, esi",
        "xor edi, edi",
        "mov r12d, 12345",
        // Request ESI, once request ESI - depth is done.
        "2: pause",
        "mov eax, esi",
        "sub ax, [0x502002]",
        "cmp ax, \\depth",
        "jae 2b",
        "mov ecx, esi",
        "and ecx, 3",
        "shl ecx, 4",
        "mov [rcx + 0x503008], rdi",
        "inc esi",
        "OFFER",
        ".if \\sectors",
        "add edi, \\sectors",
        "and edi, 0x1ffff",
        ".else",
        "imul r12d, r12d, 1103515245",
        "add r12d, 12345",
        "mov edi, r12d",
        "shr edi, 15",
        "and edi, 0x1fff8",
        ".endif",
        "cmp esi, 10000",
        "jb 2b",
        "4: pause",
        "cmp [0x502002], si",
        "jne 4b",
        "cmp byte ptr [0x503100], 0",
        "jne 5f",
        "MARK 2",
        "EXIT 0x10",
        ".endm",
        // Goes to ring 3, with port access, at the next instruction.
        ".macro RING3",
        "lea rax, [rip + 7f]",
        "push 0x2b",
        "push 0x80000",
        "push 0x3002",
        "push 0x33",
        "push rax",
        "iretq",
        "7:",
        ".endm",
    }

    /// Ends at once.
    success: "EXIT 0x10";

    /// Checks what it is started with, writes a line, ends.
    boots:
        "test esi, esi" "jnz 5f"
        "cmp rdi, 0x2000" "jne 5f"
        "mov eax, [rdi + 24]" "mov eax, [rax]" "cmp eax, 0xedfe0dd0" "jne 5f" // the device tree's magic
        "MARK 1" "MARK 2"
        "lea rsi, [rip + 2f]" "mov ecx, 6" "mov edx, 0x3f8" "rep outsb"
        "EXIT 0x10"
        "2: .ascii \"hello\\n\"";

    /// Exits as after a failed check.
    panics:
        "lea rsi, [rip + 2f]" "mov ecx, 5" "mov edx, 0x3f8" "rep outsb"
        "jmp 5f"
        "2: .ascii \"alas\\n\"";

    /// Inflates 2 MiB and a frame, is refused a frame of its own image, deflates the 2 MiB.
    inflates_and_deflates:
        "HELLO 0"
        "mov dword ptr [0x600000], 7"
        "mov ebx, 0x400000"
        "mov rax, 0x6000900" "mov [rbx], rax" // frame 0x600, order 9
        "mov rax, 0x8000000" "mov [rbx + 8], rax"
        "mov rax, 0x2000000" "mov [rbx + 16], rax"
        "mov edi, ebx" "mov esi, 3" "CALL 3"
        "cmp rdi, 513" "jne 5f"
        "cmp byte ptr [rbx], 1" "jne 5f"
        "cmp byte ptr [rbx + 8], 1" "jne 5f"
        "cmp byte ptr [rbx + 16], 5" "jne 5f"
        "mov edi, ebx" "mov esi, 1" "CALL 4"
        "cmp rdi, 512" "jne 5f"
        "cmp dword ptr [0x600000], 0" "jne 5f"
        "EXIT 0x10";

    /// Deflates the 2 MiB at 100 GiB, uses them, and finds no memory at 101 GiB. A level-2 table at
    /// 0x6000 maps both.
    deflates_far_away:
        "HELLO 0"
        "mov ebx, 0x400000"
        "2: mov rax, 0x19000000900" "mov [rbx], rax" // frame 0x1900000, order 9
        "mov edi, ebx" "mov esi, 1" "CALL 4"
        "cmp rdi, 512" "jne 2b" // until the target allows it
        "mov rax, 0x1900000087" "mov [0x6000], rax"
        "mov rax, 0x1940000087" "mov [0x6008], rax"
        "mov qword ptr [0x4320], 0x6007"
        "mov rbp, 0x1900000000"
        "mov dword ptr [rbp + 64], 7" "cmp dword ptr [rbp + 64], 7" "jne 5f"
        "cmp dword ptr [rbp + 128], 0" "jne 5f"
        "mov dword ptr [rbp + 0x200000], 7" "mov eax, [rbp + 0x200000]" "cmp eax, -1" "jne 5f"
        "EXIT 0x10";

    /// Deflates the 2 MiB at 64 MiB once the target allows it, and ends with success.
    grows:
        "HELLO 0"
        "mov ebx, 0x400000"
        "2: mov rax, 0x40000900" "mov [rbx], rax" // frame 0x4000, order 9
        "mov edi, ebx" "mov esi, 1" "CALL 4"
        "cmp rdi, 512" "jne 2b"
        "EXIT 0x10";

    /// Writes a new number to each frame of 16 MiB, verifies all of them, asks for its target, and
    /// does so again, for ever. Panics where a frame has another number.
    verifies:
        "HELLO 0" "RING3"
        "xor r12d, r12d"
        "2: inc r12"
        "mov eax, 0x1000000" "mov ecx, 4096"
        "3: mov [rax], r12" "add rax, 4096" "dec ecx" "jnz 3b"
        "mov eax, 0x1000000" "mov ecx, 4096"
        "4: cmp [rax], r12" "jne 5f" "add rax, 4096" "dec ecx" "jnz 4b"
        "CALL 2"
        "jmp 2b";

    /// Uses unassigned ports and addresses, and the balloon port in wrong ways, then triple-faults.
    pokes_about:
        "in al, 0x99" "cmp al, 0xff" "jne 5f"
        "out 0x99, eax"
        "mov edx, 0xae50" "in eax, dx" "cmp eax, -1" "jne 5f"
        "mov eax, 0xae500002" "out dx, al" "cmp eax, 0xae500002" "jne 5f"
        "lea rsi, [rip + 8b]" "mov ecx, 4" "rep outsb"
        "mov eax, [0x3f000000]" "cmp eax, -1" "jne 5f"
        "mov dword ptr [0x3f000000], 7"
        "ud2";

    /// Triple-faults: there is no interrupt table.
    falls:
        "mov r12d, 0x1234"
        "lea rsi, [rip + 2f]" "mov ecx, 14" "mov edx, 0x3f8" "rep outsb"
        "ud2"
        "2: .ascii \"about to fall\\n\"";

    /// Computes in ring 3 for ever.
    spins: "HELLO 0" "RING3" "2: jmp 2b";

    /// Asks for its target repeatedly, from ring 3.
    nags: "HELLO 0" "RING3" "2: CALL 2" "jmp 2b";

    /// Waits in ring 0 for ever, interrupts off.
    halts: "2: hlt" "jmp 2b";

    /// Reports that a thread waits for memory, then halts.
    presses:
        "HELLO 0"
        "mov ebx, 0x400000" "mov qword ptr [rbx + 56], 77" "mov byte ptr [rbx + 576], 0x78"
        "mov edi, ebx" "CALL 5"
        "2: hlt" "jmp 2b";

    /// Exits with success when the doorbell rings.
    listens:
        // Map the local APIC: a level-2 table at 0x6000 for the fourth GiB.
        "mov qword ptr [0x4018], 0x6007"
        "mov rax, 0xfee00097" "mov [0x6fb8], rax"
        // An interrupt gate at vector 0x40 and a table for it at 0x7000.
        "lea rax, [rip + 3f]" "mov word ptr [0x7400], ax" "mov word ptr [0x7402], 8" "mov word ptr [0x7404], 0x8e00"
        "shr rax, 16" "mov word ptr [0x7406], ax"
        "lidt [rip + 2f]"
        "mov eax, 0xfee000f0" "mov dword ptr [rax], 0x1ff"
        "HELLO 0x40"
        "MARK 1"
        "4: sti" "hlt" "jmp 4b"
        "3: EXIT 0x10"
        "2: .word 0xfff" ".quad 0x7000";

    /// Writes 1,000 lines of ten bytes from ring 3, between its two boot marks, then computes for
    /// ever.
    talks:
        "RING3"
        "MARK 1"
        "mov ebx, 1000" "mov edx, 0x3f8"
        "3: lea rsi, [rip + 2f]" "mov ecx, 10" "4: lodsb" "out dx, al" "dec ecx" "jnz 4b"
        "dec ebx" "jnz 3b"
        "MARK 2"
        "6: pause" "jmp 6b"
        "2: .ascii \"ten bytes\\n\"";

    /// Writes to the 64 MiB from 16 MiB on, one word a frame, in ring 3; marks; then halts in
    /// `jmp`.
    touches:
        "HELLO 0" "RING3"
        "mov eax, 0x1000000" "mov ecx, 16384"
        "2: mov [rax], rcx" "add rax, 4096" "dec ecx" "jnz 2b"
        "MARK 1"
        "3: pause" "jmp 3b";

    /// Copies sector 1 to sector 2, flushes, and exits with success when the disk's interrupt
    /// comes.
    uses_disk:
        // The local APIC, an interrupt gate at vector 0x50, a table for it at 0x7000.
        "START_DISK 512, 3"
        "mov rax, 0xfee00097" "mov [0x6fb8], rax"
        "lea rax, [rip + 3f]" "mov word ptr [0x7500], ax" "mov word ptr [0x7502], 8" "mov word ptr [0x7504], 0x8e00"
        "shr rax, 16" "mov word ptr [0x7506], ax"
        "lidt [rip + 2f]"
        "mov eax, 0xfee000f0" "mov dword ptr [rax], 0x1ff"
        "mov word ptr [0x501000], 1"
        "REQUEST 0, 1"
        "cmp dword ptr [0x800000], 0x4f524541" "jne 5f"
        "mov dword ptr [0x50001c], 0x20001"
        "REQUEST 1, 2"
        "mov word ptr [0x501000], 0"
        "mov word ptr [0x50000e], 2"
        "mov dword ptr [0x503000], 4"
        "mov byte ptr [0x503100], 0xff"
        "OFFER"
        "4: sti" "hlt" "jmp 4b"
        "3: cmp byte ptr [0x503100], 0" "jne 5f"
        "EXIT 0x10"
        "2: .word 0xfff" ".quad 0x7000";

    /// Reads sector 1; exits with success if that fails.
    expects_a_read_error:
        "START_DISK 512, 3"
        "mov word ptr [0x501000], 1"
        "mov dword ptr [0x503008], 1"
        "mov byte ptr [0x503100], 0xff"
        "OFFER"
        "2: pause" "cmp word ptr [0x502002], 1" "jne 2b"
        "cmp byte ptr [0x503100], 1" "jne 5f"
        "EXIT 0x10";

    /// Names addresses that are not memory; panics when its disk has stopped.
    breaks_its_disk:
        "START_DISK 512, 3"
        "mov dword ptr [0x500010], 0xc0000000"
        "OFFER"
        "2: pause" "test dword ptr [rbx + 0x70], 0x40" "jz 2b"
        "jmp 5f";

    /// Notifies a disk that has nothing to do 10,000 times from ring 3, between its two boot marks.
    kicks:
        "MAP_DISK" "RING3"
        "MARK 1"
        "mov ecx, 10000"
        "2: REGISTER 0x50, 0" "dec ecx" "jnz 2b"
        "MARK 2"
        "EXIT 0x10";

    /// Makes random reads of 4 KiB, one at a time.
    reads_randomly: "MEASURE 0, 4096, 1, 0";
    /// Does the same, four at a time.
    reads_randomly_ahead: "MEASURE 0, 4096, 4, 0";
    /// Makes random writes of 4 KiB, one at a time.
    writes_randomly: "MEASURE 1, 4096, 1, 0";
    /// Makes reads of 64 KiB in order, four at a time.
    reads_clusters: "MEASURE 0, 0x10000, 4, 128";
    /// Makes writes of 64 KiB in order, four at a time.
    writes_clusters: "MEASURE 1, 0x10000, 4, 128";
    /// Makes reads of 1 MiB in order, two at a time.
    reads_on: "MEASURE 0, 0x100000, 2, 2048";
    /// Makes writes of 1 MiB in order, two at a time.
    writes_on: "MEASURE 1, 0x100000, 2, 2048";
}
