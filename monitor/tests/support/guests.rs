//! Guests of a few instructions each, as machine code to be put into an image.
//!
//! They run where [`super::elf::BASE`] is, in ring 0 with the first 1 GiB mapped to itself, unless they go to ring 3 themselves. A check that fails
//! in a guest ends it with "panic". Ring-0 code may be emulated instruction by instruction, so none of them computes much.

use std::arch::global_asm;

/// Defines functions that return the machine code of guests. `EXIT code` and `CALL command` are assembler macros.
macro_rules! guests {
    ($($(#[$meta:meta])* $name:ident: $($line:literal)*;)*) => {
        $(
            global_asm!(
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
                ".popsection"
            );
        )*
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

global_asm!(
    ".macro EXIT code",
    "mov eax, \\code",
    "out 0xf4, eax",
    ".endm",
    // A call of the balloon port that has to succeed.
    ".macro CALL command",
    "mov eax, 0xae500000 + \\command",
    "mov edx, 0xae50",
    "out dx, eax",
    "test eax, eax",
    "jnz 5f",
    ".endm",
    ".macro HELLO vector",
    "mov edi, 1",
    "mov esi, 256",
    "mov r8d, \\vector",
    "CALL 1",
    ".endm",
    ".macro MARK number",
    "mov eax, \\number",
    "mov edx, 0xae58",
    "out dx, al",
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
);

guests! {
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

    /// Leaves with a failed check.
    panics:
        "lea rsi, [rip + 2f]" "mov ecx, 5" "mov edx, 0x3f8" "rep outsb"
        "jmp 5f"
        "2: .ascii \"alas\\n\"";

    /// Gives 2 MiB and a frame, is refused a frame of its own image, takes the 2 MiB back.
    gives_and_takes:
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

    /// Uses ports and addresses where nothing is, and the balloon port in wrong ways, then falls.
    pokes_about:
        "in al, 0x99" "cmp al, 0xff" "jne 5f"
        "out 0x99, eax"
        "mov edx, 0xae50" "in eax, dx" "cmp eax, -1" "jne 5f"
        "mov eax, 0xae500002" "out dx, al" "cmp eax, 0xae500002" "jne 5f"
        "lea rsi, [rip + 8b]" "mov ecx, 4" "rep outsb"
        "mov eax, [0x3f000000]" "cmp eax, -1" "jne 5f"
        "mov dword ptr [0x3f000000], 7"
        "ud2";

    /// Falls: there is no interrupt table.
    falls:
        "mov r12d, 0x1234"
        "lea rsi, [rip + 2f]" "mov ecx, 14" "mov edx, 0x3f8" "rep outsb"
        "ud2"
        "2: .ascii \"about to fall\\n\"";

    /// Computes in ring 3 for ever.
    spins: "HELLO 0" "RING3" "2: jmp 2b";

    /// Waits in ring 0 for ever, interrupts off.
    halts: "2: hlt" "jmp 2b";

    /// Reports that somebody waits for memory, then halts.
    presses:
        "HELLO 0"
        "mov ebx, 0x400000" "mov qword ptr [rbx + 24], 77" "mov byte ptr [rbx + 96], 0x78"
        "mov edi, ebx" "CALL 5"
        "2: hlt" "jmp 2b";

    /// Leaves with success when the doorbell rings.
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

    /// Writes 1,000 lines of ten bytes from ring 3, between its two boot marks, then computes for ever.
    talks:
        "RING3"
        "MARK 1"
        "mov ebx, 1000" "mov edx, 0x3f8"
        "3: lea rsi, [rip + 2f]" "mov ecx, 10" "4: lodsb" "out dx, al" "dec ecx" "jnz 4b"
        "dec ebx" "jnz 3b"
        "MARK 2"
        "6: pause" "jmp 6b"
        "2: .ascii \"ten bytes\\n\"";

    /// Writes to the 64 MiB from 16 MiB on, one word a frame, in ring 3; marks; then halts in `jmp`.
    touches:
        "HELLO 0" "RING3"
        "mov eax, 0x1000000" "mov ecx, 16384"
        "2: mov [rax], rcx" "add rax, 4096" "dec ecx" "jnz 2b"
        "MARK 1"
        "3: pause" "jmp 3b";
}
